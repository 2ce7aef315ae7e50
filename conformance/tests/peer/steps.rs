//! Files of steps, one a line, empty lines and lines with `#` aside:
//!
//! - `docker ARGUMENTS`: the stock client, with quotes as a shell's;
//! - `get PATH`, `post PATH [JSON]`, `delete PATH`: a request to the API;
//! - `until TEXT <= docker ARGUMENTS`: waits until the client prints this; lines are joined with spaces.
//!
//! `$HOST` stands for the machine's name, which is the node's.

/// What both daemons are asked.
#[derive(Debug)]
pub enum Step {
    /// The stock client.
    Docker(Vec<String>),
    /// A request.
    Api {
        /// Its method.
        method: &'static str,
        /// Its path, without the version.
        path: String,
        /// Its JSON, or nothing.
        body: String,
    },
    /// The stock client, again and again.
    Until {
        /// What it should print.
        text: String,
        /// What it is asked.
        arguments: Vec<String>,
    },
}

/// A step and how messages and `differences.txt` name it: its line.
#[derive(Debug)]
pub struct Named {
    /// The line.
    pub line: String,
    /// What it says.
    pub step: Step,
}

/// Reads a file.
///
/// # Errors
/// With the line that is no step.
pub fn parse(text: &str) -> Result<Vec<Named>, String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let step = step(&line.replace("$HOST", &name)).ok_or_else(|| format!("no step: {line}"))?;
            Ok(Named { line: line.to_owned(), step })
        })
        .collect()
}

fn step(line: &str) -> Option<Step> {
    let (word, rest) = line.split_once(' ')?;
    let request = |method| {
        let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let encode = |text: &str| text.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        Some(Step::Api { method, path: encode(path), body: body.to_owned() })
    };
    match word {
        "docker" => Some(Step::Docker(words(rest)?)),
        "get" => request("GET"),
        "post" => request("POST"),
        "delete" => request("DELETE"),
        "until" => {
            let (text, command) = rest.split_once("<= docker ")?;
            Some(Step::Until { text: text.trim().to_owned(), arguments: words(command)? })
        }
        _ => None,
    }
}

/// The words of a command line; nothing where a quote is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}
