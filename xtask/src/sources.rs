//! What a reader may expect of every source file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file beyond this many lines has a second room in it. Near 500 is where to look; this is where to act.
const MOST_LINES: usize = 900;

/// Words that mark something unfinished.
const UNFINISHED: &[&str] = &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME")];

/// Every fault of the Rust sources below `root`.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in ["crates", "sim", "conformance", "testkit", "xtask", "fuzz"] {
        collect(&root.join(folder), &mut files)?;
    }
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        // A file of tests says whose it is by where it stands.
        let is_tests = file.file_name().is_some_and(|name| name == "tests.rs");
        let purpose = (!is_tests && !text.starts_with("//!"))
            .then(|| "does not begin with its purpose (`//!`)".to_owned());
        faults.extend(
            purpose.into_iter().chain(check_text(&text)).map(|fault| format!("{}: {fault}", file.display())),
        );
    }
    Ok(faults)
}

fn check_text(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MOST_LINES {
        faults.push(format!("has {lines} lines, more than {MOST_LINES}: look for a second room"));
    }
    for word in UNFINISHED {
        if text.contains(word) {
            faults.push(format!("contains {word}"));
        }
    }
    faults
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "fuzz") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_or_endless_file_is_a_fault() {
        assert_eq!(check_text("fn main() {}\n"), Vec::<String>::new());
        assert_eq!(check_text(concat!("fn f() { todo", "!() }\n")).len(), 1);
        assert_eq!(check_text(&"\n".repeat(MOST_LINES + 1)).len(), 1);
    }

    #[test]
    fn a_file_says_its_purpose_first() {
        let folder = std::env::temp_dir().join(format!("xtask-sources-{}", std::process::id()));
        for room in ["crates", "sim", "conformance", "testkit", "xtask", "fuzz"] {
            std::fs::create_dir_all(folder.join(room)).expect("a temporary folder");
        }
        std::fs::write(folder.join("sim/good.rs"), "//! Purpose.\n").expect("a file");
        std::fs::write(folder.join("sim/tests.rs"), "use super::*;\n").expect("a file");
        std::fs::write(folder.join("sim/bad.rs"), "use super::*;\n").expect("a file");
        let faults = check(&folder).expect("readable folders");
        std::fs::remove_dir_all(&folder).expect("a folder to remove");
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("bad.rs"), "{faults:?}");
    }
}
