//! How decisions and snapshots are written: a version byte, then MessagePack with field names, so that fields
//! can be added later.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte of everything written here.
const VERSION: u8 = 1;

/// Bytes in the log that this program cannot read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Written by a newer program.
    #[error("it was written in format {0}; this program reads format {VERSION}")]
    Version(u8),
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// No such value.
    #[error("it cannot be read")]
    Value(#[source] rmp_serde::decode::Error),
}

/// Writes a value.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    value.serialize(&mut serializer).expect("writing to memory fails for no value of ours");
    bytes
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => rmp_serde::from_slice(rest).map_err(DecodeError::Value),
        Some((version, _)) => Err(DecodeError::Version(*version)),
        None => Err(DecodeError::Empty),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize)]
    struct Old {
        name: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct New {
        name: String,
        #[serde(default)]
        added: Option<u64>,
    }

    #[test]
    fn a_field_can_be_added_later() {
        let bytes = encode(&Old { name: "n".to_owned() });
        let read: New = decode(&bytes).expect("older bytes are read");
        assert_eq!(read, New { name: "n".to_owned(), added: None });
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        assert_eq!(decode::<New>(&[]).expect_err("empty").to_string(), "it is empty");
        let newer = decode::<New>(&[9, 0]).expect_err("newer").to_string();
        assert_eq!(newer, "it was written in format 9; this program reads format 1");
        assert!(decode::<New>(&[1, 0xc1]).is_err());
    }
}
