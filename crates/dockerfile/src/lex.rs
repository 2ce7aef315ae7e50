//! Variables, quotes and escapes in the words of instructions (BuildKit's `shell.Lex`).

use crate::error::LexError;
use crate::glob;
use crate::quote::quote;

/// How deep `${a:-${b:-...}}` may nest.
const DEPTH_LIMIT: usize = 64;

/// Puts variables into words.
#[derive(Clone, Copy, Debug)]
pub struct Lex {
    escape: char,
}

impl Lex {
    /// One for a Dockerfile whose escape character is this.
    pub fn new(escape: char) -> Lex {
        Lex { escape }
    }

    /// The word with variables put in and quotes taken off. Of two values of a name in `env` (`NAME=value`) the first counts.
    ///
    /// # Errors
    /// For quotes and braces without end, `${x?...}` of what is not set, and substitutions that nobody knows.
    pub fn word(&self, word: &str, env: &[String]) -> Result<String, LexError> {
        self.process(word, env).map(|(word, _)| word)
    }

    /// The same, split at the spaces that were not quoted, those of variables' values among them.
    ///
    /// # Errors
    /// As [`Lex::word`].
    pub fn words(&self, word: &str, env: &[String]) -> Result<Vec<String>, LexError> {
        self.process(word, env).map(|(_, words)| words)
    }

    fn process(&self, word: &str, env: &[String]) -> Result<(String, Vec<String>), LexError> {
        let characters: Vec<char> = word.chars().collect();
        let mut scan = Scan { escape: self.escape, characters: &characters, position: 0, env, depth: 0 };
        scan.until(None, false).map_err(|problem| LexError { word: quote(word), problem })
    }
}

/// Words as they come together.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    /// A character that ends a word if it is a space.
    fn add(&mut self, character: char) {
        if !character.is_whitespace() {
            self.word.push(character);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Scan<'a> {
    escape: char,
    characters: &'a [char],
    position: usize,
    env: &'a [String],
    depth: usize,
}

type Scanned<T> = Result<T, String>;

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.position += 1;
        Some(character)
    }

    /// Reads to the end, or past `stop`. With `raw`, escapes stay as they are.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Scanned<(String, Vec<String>)> {
        let (mut result, mut words) = (String::new(), Words::default());
        while let Some(character) = self.peek() {
            if Some(character) == stop {
                self.position += 1;
                return Ok((result, words.finish()));
            }
            match character {
                '\'' => {
                    let text = self.single_quoted()?;
                    words.word.push_str(&text);
                    result.push_str(&text);
                }
                '"' => {
                    let text = self.double_quoted(raw)?;
                    words.word.push_str(&text);
                    result.push_str(&text);
                }
                '$' => {
                    let text = self.dollar()?;
                    text.chars().for_each(|character| words.add(character));
                    result.push_str(&text);
                }
                _ if character == self.escape => {
                    self.position += 1;
                    if raw {
                        words.word.push(character);
                        result.push(character);
                    }
                    if let Some(escaped) = self.next() {
                        words.word.push(escaped);
                        result.push(escaped);
                    }
                }
                _ => {
                    self.position += 1;
                    words.add(character);
                    result.push(character);
                }
            }
        }
        match stop {
            None => Ok((result, words.finish())),
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
        }
    }

    fn single_quoted(&mut self) -> Scanned<String> {
        self.position += 1;
        let mut result = String::new();
        loop {
            match self.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote".to_owned()
                    );
                }
                Some('\'') => return Ok(result),
                Some(character) => result.push(character),
            }
        }
    }

    fn double_quoted(&mut self, raw: bool) -> Scanned<String> {
        self.position += 1;
        let mut result = String::new();
        loop {
            match self.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote".to_owned()
                    );
                }
                Some('"') => {
                    self.position += 1;
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(character) if character == self.escape => {
                    self.position += 1;
                    if raw {
                        result.push(character);
                    }
                    match self.peek() {
                        None => {}
                        // As in sh: others keep their escape.
                        Some(escaped) if matches!(escaped, '"' | '$') || escaped == self.escape => {
                            self.position += 1;
                            result.push(escaped);
                        }
                        Some(_) if raw => {}
                        Some(_) => result.push(character),
                    }
                }
                Some(character) => {
                    self.position += 1;
                    result.push(character);
                }
            }
        }
    }

    fn dollar(&mut self) -> Scanned<String> {
        self.position += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                self.value(&name).unwrap_or_default().to_owned()
            });
        }
        self.position += 1;
        match self.peek() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(format!("substitutions nest deeper than {DEPTH_LIMIT}"));
        }
        let substituted = self.braced();
        self.depth -= 1;
        substituted
    }

    /// What is in braces, past the closing one.
    fn braced(&mut self) -> Scanned<String> {
        let name = self.name();
        let mut modifier = match self.next() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('}') => return Ok(self.value(&name).unwrap_or_default().to_owned()),
            Some(character) => character,
        };
        let mut shown = modifier.to_string();
        let empty_is_unset = modifier == ':';
        if empty_is_unset {
            modifier = self.next().ok_or(MISSING_BRACE)?;
            shown.push(modifier);
        }
        match modifier {
            '-' | '+' | '?' => {
                let word = self.operand('}', false)?;
                self.choose(&name, modifier, empty_is_unset, word)
            }
            '#' | '%' if !empty_is_unset => {
                let word = self.operand('}', true)?;
                let value = self.value(&name).unwrap_or_default();
                let (longest, pattern) = match word.strip_prefix(modifier) {
                    Some(pattern) => (true, pattern),
                    None => (false, word.as_str()),
                };
                Ok(glob::trim(value, pattern, modifier == '#', longest))
            }
            '/' if !empty_is_unset => {
                let all = self.peek() == Some('/');
                self.position += usize::from(all);
                let pattern = self.operand('/', true)?;
                let replacement = self.operand('}', false)?;
                Ok(glob::replace(self.value(&name).unwrap_or_default(), &pattern, &replacement, all))
            }
            _ => Err(format!("unsupported modifier ({shown}) in substitution")),
        }
    }

    fn operand(&mut self, stop: char, raw: bool) -> Scanned<String> {
        match self.until(Some(stop), raw) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.peek().is_none() => Err(MISSING_BRACE.to_owned()),
            Err(problem) => Err(problem),
        }
    }

    fn choose(&self, name: &str, modifier: char, empty_is_unset: bool, word: String) -> Scanned<String> {
        let value = self.value(name);
        let is_set = value.is_some_and(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, is_set) {
            ('-', true) | ('?', true) => Ok(value.unwrap_or_default().to_owned()),
            ('-', false) | ('+', true) => Ok(word),
            ('+', false) => Ok(String::new()),
            _ if !word.is_empty() => Err(format!("{name}: {word}")),
            _ if value.is_some() => Err(format!("{name}: is not allowed to be empty")),
            _ => Err(format!("{name}: is not allowed to be unset")),
        }
    }

    /// A variable's name: letters, digits and `_`; all digits; or one of sh's special ones.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(character) = self.peek() {
            if name.is_empty() && character.is_ascii_digit() {
                while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
                    name.push(digit);
                    self.position += 1;
                }
                return name;
            }
            if name.is_empty() && matches!(character, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                self.position += 1;
                return character.to_string();
            }
            if !character.is_alphanumeric() && character != '_' {
                break;
            }
            name.push(character);
            self.position += 1;
        }
        name
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|entry| {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            (key == name).then_some(value)
        })
    }
}

const MISSING_BRACE: &str = "syntax error: missing '}'";

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Vec<String> {
        ["A=one", "E=", "SPACED=two words", "P=/a/b/c.tar.gz", "A=later"].map(str::to_owned).to_vec()
    }

    #[test]
    fn words_are_substituted_as_in_sh() {
        for (text, expected) in [
            ("$A", "one"),
            ("${A}b", "oneb"),
            ("$Ab", ""),
            ("x$", "x$"),
            ("$1", ""),
            ("\\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A\"", "one"),
            ("\"\\$A \\\" \\n\"", "$A \" \\n"),
            ("a\\ b", "a b"),
            ("end\\", "end"),
            ("${N:-x}", "x"),
            ("${N-x}", "x"),
            ("${E:-x}", "x"),
            ("${E-x}", ""),
            ("${A:+y}", "y"),
            ("${E:+y}", ""),
            ("${E+y}", "y"),
            ("${N+y}", ""),
            ("${N:-${A}}", "one"),
            ("${N:-a'b c'd}", "ab cd"),
            ("${A:?gone}", "one"),
            ("${P##*/}", "c.tar.gz"),
            ("${P#*/}", "a/b/c.tar.gz"),
            ("${P%.*}", "/a/b/c.tar"),
            ("${P%%.*}", "/a/b/c"),
            ("${P/b/x}", "/a/x/c.tar.gz"),
            ("${P//[/x}", "/a/b/c.tar.gz"),
            ("${A//o/0}", "0ne"),
            ("é$A", "éone"),
        ] {
            assert_eq!(Lex::new('\\').word(text, &env()).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(Lex::new('`').word("C:\\$A`$A", &env()).as_deref(), Ok("C:\\one$A"));
    }

    #[test]
    fn faults_are_told() {
        for (text, problem) in [
            ("${A", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${:x}", "syntax error: bad substitution"),
            ("${A:x}", "unsupported modifier (:x) in substitution"),
            ("${A!x}", "unsupported modifier (!) in substitution"),
            ("${N?}", "N: is not allowed to be unset"),
            ("${E:?}", "E: is not allowed to be empty"),
            ("${N:?why}", "N: why"),
            ("'a", "unexpected end of statement while looking for matching single-quote"),
            ("\"a", "unexpected end of statement while looking for matching double-quote"),
            ("${A:-x", "syntax error: missing '}'"),
        ] {
            assert_eq!(Lex::new('\\').word(text, &env()).unwrap_err().problem, problem, "{text}");
        }
        let deep = "${N:-".repeat(10_000);
        assert!(Lex::new('\\').word(&deep, &[]).is_err());
    }

    #[test]
    fn unquoted_spaces_part_words() {
        let words = |text| Lex::new('\\').words(text, &env()).unwrap();
        assert_eq!(words("$SPACED"), ["two", "words"]);
        assert_eq!(words("\"$SPACED\""), ["two words"]);
        assert_eq!(words("a$SPACED b"), ["atwo", "words", "b"]);
        assert_eq!(words("$N"), Vec::<String>::new());
    }
}
