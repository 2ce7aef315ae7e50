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
    for folder in ["crates", "sim", "conformance", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        faults.extend(check_file(&text).into_iter().map(|fault| format!("{}: {fault}", file.display())));
    }
    Ok(faults)
}

fn check_file(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push("does not begin with its purpose (`//!`)".to_owned());
    }
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
    fn a_file_says_its_purpose_first_and_is_finished() {
        assert_eq!(check_file("//! Purpose.\nfn main() {}\n"), Vec::<String>::new());
        assert_eq!(check_file("fn main() {}\n").len(), 1);
        assert_eq!(check_file(concat!("//! Purpose.\nfn f() { todo", "!() }\n")).len(), 1);
        assert_eq!(check_file(&format!("//! Purpose.\n{}", "\n".repeat(MOST_LINES))).len(), 1);
    }
}
