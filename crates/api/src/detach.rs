//! Detach keys: the keystrokes by which a user at a terminal leaves a container without ending it.

/// Docker's default: ctrl-p, ctrl-q.
const DEFAULT: &[u8] = &[0x10, 0x11];

/// Watches what a client types for a sequence of keys.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// A `detachKeys` parameter that names no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid detach keys ({0}) provided")]
pub struct ParseDetachKeysError(String);

/// What a piece of input turned out to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Bytes for the container. A started sequence is held back until it is known to be none.
    Forward(Vec<u8>),
    /// The sequence is complete: these bytes came before it, and the client leaves.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`: single characters, or `ctrl-` and one of `a-z@[\]^_`, between commas. An empty
    /// text is Docker's default.
    pub fn parse(text: &str) -> Result<DetachKeys, ParseDetachKeysError> {
        if text.is_empty() {
            return Ok(DetachKeys { keys: DEFAULT.to_vec(), matched: 0 });
        }
        let keys: Option<Vec<u8>> = text.split(',').map(parse_key).collect();
        let keys = keys.ok_or_else(|| ParseDetachKeysError(text.to_owned()))?;
        Ok(DetachKeys { keys, matched: 0 })
    }

    /// Takes what was typed next.
    pub fn typed(&mut self, input: &[u8]) -> Typed {
        let mut forward = Vec::with_capacity(input.len() + self.matched);
        for &byte in input {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return Typed::Detach(forward);
                }
                continue;
            }
            // What was held back was no sequence after all. As Docker's escape proxy, the sequence is then
            // looked for afresh from this byte on.
            forward.extend_from_slice(self.keys.get(..self.matched).unwrap_or_default());
            self.matched = usize::from(self.keys.first() == Some(&byte));
            if self.matched == 0 {
                forward.push(byte);
            } else if self.keys.len() == 1 {
                return Typed::Detach(forward);
            }
        }
        Typed::Forward(forward)
    }
}

fn parse_key(text: &str) -> Option<u8> {
    match (text.strip_prefix("ctrl-"), text.as_bytes()) {
        (Some(key), _) => match key.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [b'@'] => Some(0),
            [b'['] => Some(27),
            [b'\\'] => Some(28),
            [b']'] => Some(29),
            [b'^'] => Some(30),
            [b'_'] => Some(31),
            _ => None,
        },
        (None, [single]) => Some(*single),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_keys() -> DetachKeys {
        DetachKeys::parse("").expect("the default is good")
    }

    #[test]
    fn the_sequence_detaches_also_across_pieces() {
        assert_eq!(default_keys().typed(b"ls\x10\x11rest"), Typed::Detach(b"ls".to_vec()));
        let mut keys = default_keys();
        assert_eq!(keys.typed(b"a\x10"), Typed::Forward(b"a".to_vec()));
        assert_eq!(keys.typed(b"\x11"), Typed::Detach(Vec::new()));
    }

    #[test]
    fn what_only_begins_like_it_is_forwarded() {
        let mut keys = default_keys();
        assert_eq!(keys.typed(b"\x10"), Typed::Forward(Vec::new()));
        assert_eq!(keys.typed(b"x"), Typed::Forward(b"\x10x".to_vec()));
        assert_eq!(keys.typed(b"\x10\x10\x11"), Typed::Detach(b"\x10".to_vec()));
    }

    #[test]
    fn keys_are_named_as_docker_names_them() {
        let mut keys = DetachKeys::parse("ctrl-@,x,ctrl-_").expect("good keys");
        assert_eq!(keys.typed(b"\x00x\x1f"), Typed::Detach(Vec::new()));
        assert_eq!(DetachKeys::parse("q").expect("good").typed(b"aq"), Typed::Detach(b"a".to_vec()));
        for text in ["ctrl-", "ctrl-1", "shift-a", "ab", ","] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}
