//! What the log is encrypted with.

/// The key of a log: 32 bytes from a random source.
#[derive(Clone)]
pub struct LogKey([u8; 32]);

impl LogKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> LogKey {
        LogKey(bytes)
    }
}

impl std::fmt::Debug for LogKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LogKey(..)")
    }
}
