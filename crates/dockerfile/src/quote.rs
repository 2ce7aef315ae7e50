//! Text as Go's `%q` shows it.

/// `text` in double quotes, with what would not show escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            other if u32::from(other) < 0x20 || other == '\u{7f}' => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(other)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A list of texts: `["a" "b"]`.
pub fn quote_list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_does() {
        assert_eq!(quote("a \"b\" \\ é\n\u{1}"), r#""a \"b\" \\ é\n\x01""#);
        assert_eq!(quote_list(&["sh".to_owned(), "-c".to_owned()]), r#"["sh" "-c"]"#);
        assert_eq!(quote_list(&[]), "[]");
    }
}
