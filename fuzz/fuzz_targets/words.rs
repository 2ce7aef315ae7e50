//! Words with variables, patterns of names and `.dockerignore`. The first line is a variable's value, the second a word or pattern
//! or path, the rest a file of patterns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skep_dockerfile::{Ignore, Lex, glob, quote};

fuzz_target!(|text: &str| {
    let (value, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (word, patterns) = rest.split_once('\n').unwrap_or((rest, ""));
    let env = [format!("A={value}"), "B=x y".to_owned(), "C=".to_owned()];
    for escape in ['\\', '`'] {
        let (whole, words) = (Lex::new(escape).word(word, &env), Lex::new(escape).words(word, &env));
        assert_eq!(whole.is_ok(), words.is_ok(), "one word is right where several are");
        // What a variable stands for is not looked into again.
        assert_eq!(Lex::new(escape).word("$A", &env).as_deref(), Ok(value));
    }
    assert!(quote(value).starts_with('"'));
    let matched = glob::matches(word, value);
    if !glob::is_pattern(word) && !word.contains('\\') {
        assert_eq!(matched, Some(word == value), "what is no pattern matches itself");
    }
    let ignore = Ignore::parse(patterns);
    let _ = (ignore.excludes(word), Ignore::parse("").excludes(word));
});
