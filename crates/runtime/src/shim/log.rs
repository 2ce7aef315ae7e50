//! Writing Docker's json-file: one JSON object a line, `{"log":..,"stream":..,"time":..}`.
//!
//! As Docker does, a line longer than 16 KiB is written in parts, of which only the last ends in a newline.

use std::io;
use std::os::fd::OwnedFd;

use skep_types::Time;

use crate::logs::Stream;

/// The most bytes of a line in one part.
pub const PART_LIMIT: usize = 16 << 10;

/// What one stream has of a line that is not whole yet.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    /// When the first part of this line was written, if one was: all its parts bear that time.
    since: Option<Time>,
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: OwnedFd,
    /// Of standard output and standard error.
    partial: [Partial; 2],
}

impl Log {
    /// Continues in this file, which is open for appending.
    pub fn new(file: OwnedFd) -> Log {
        Log { file, partial: Default::default() }
    }

    /// Takes what a stream gave. Lines that could not be written (a full disk) are lost, whole; the container goes on.
    pub fn take(&mut self, stream: Stream, mut bytes: &[u8], now: Time) {
        let mut text = Vec::new();
        let partial = &mut self.partial[stream as usize];
        while !bytes.is_empty() {
            let room = PART_LIMIT - partial.bytes.len();
            let window = &bytes[..room.min(bytes.len())];
            let newline = window.iter().position(|byte| *byte == b'\n');
            let taken = newline.map_or(window.len(), |at| at + 1);
            let (part, rest) = bytes.split_at(taken);
            bytes = rest;
            let time = partial.since.unwrap_or(now);
            if newline.is_some() {
                encode(&mut text, &[&partial.bytes, part], stream, time);
                partial.bytes = Vec::new();
                partial.since = None;
            } else {
                partial.bytes.extend_from_slice(part);
                if partial.bytes.len() == PART_LIMIT {
                    encode(&mut text, &[&partial.bytes], stream, time);
                    partial.bytes.clear();
                    partial.since = Some(time);
                }
            }
            if text.len() >= PART_LIMIT {
                append(&self.file, &text);
                text.clear();
            }
        }
        append(&self.file, &text);
    }

    /// Writes what is left of a stream that has ended.
    pub fn end(&mut self, stream: Stream, now: Time) {
        let partial = std::mem::take(&mut self.partial[stream as usize]);
        if !partial.bytes.is_empty() {
            let mut text = Vec::new();
            encode(&mut text, &[&partial.bytes], stream, partial.since.unwrap_or(now));
            append(&self.file, &text);
        }
    }
}

/// Appends whole lines; takes back what a full disk let in of them.
fn append(file: &OwnedFd, mut text: &[u8]) {
    let mut written = 0;
    while !text.is_empty() {
        match rustix::io::write(file, text) {
            Ok(length) => {
                written += length as u64;
                text = &text[length..];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                let take_back = || -> io::Result<()> {
                    let length = rustix::fs::fstat(file)?.st_size as u64;
                    Ok(rustix::fs::ftruncate(file, length.saturating_sub(written))?)
                };
                // If even that fails, the reader passes over the torn line.
                let _ = take_back();
                return;
            }
        }
    }
}

/// Adds a line of the file, with its text in Docker's escapes.
fn encode(out: &mut Vec<u8>, parts: &[&[u8]], stream: Stream, time: Time) {
    out.extend_from_slice(b"{\"log\":\"");
    let joined;
    let bytes = match parts {
        [only] => only,
        [[], second] => second,
        _ => {
            joined = parts.concat();
            &joined[..]
        }
    };
    for chunk in bytes.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.to_string().as_bytes());
    out.extend_from_slice(b"\"}\n");
}

fn escape(out: &mut Vec<u8>, text: &str) {
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let escaped: &[u8] = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            '<' => b"\\u003c",
            '>' => b"\\u003e",
            '&' => b"\\u0026",
            '\u{2028}' => b"\\u2028",
            '\u{2029}' => b"\\u2029",
            '\0'..='\x1f' => {
                out.extend_from_slice(&text.as_bytes()[plain..at]);
                out.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes());
                plain = at + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        out.extend_from_slice(escaped);
        plain = at + character.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// The lines that a log writes for these pieces of standard output.
    fn written(pieces: &[&[u8]]) -> Vec<serde_json::Value> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::new(file.reopen().unwrap().into());
        for piece in pieces {
            log.take(Stream::Stdout, piece, Time(1));
        }
        log.end(Stream::Stdout, Time(2));
        let text = std::fs::read_to_string(file.path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn texts(pieces: &[&[u8]]) -> Vec<String> {
        written(pieces).iter().map(|line| line["log"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(texts(&[b"one\ntw", b"o\n\nthr", b"ee"]), ["one\n", "two\n", "\n", "three"]);
        assert_eq!(texts(&[]), [""; 0]);
    }

    #[test]
    fn every_character_survives() {
        let text = "quote \" back \\ tab \t bell \x07 < > & \u{2028} ünï 🐝\n";
        assert_eq!(texts(&[text.as_bytes()]), [text]);
        assert_eq!(texts(&[b"bad \xff\xfe byte\n"]), ["bad \u{fffd}\u{fffd} byte\n"]);
    }

    #[test]
    fn a_long_line_comes_in_parts_of_one_time() {
        let long = vec![b'x'; PART_LIMIT * 2 + 10];
        let lines = written(&[&long[..100], &long[100..], b"\nnext\n"]);
        let lengths: Vec<usize> = lines.iter().map(|line| line["log"].as_str().unwrap().len()).collect();
        assert_eq!(lengths, [PART_LIMIT, PART_LIMIT, 11, 5]);
        assert_eq!(lines[0]["time"], "1970-01-01T00:00:00.000000001Z");
        assert_eq!(lines[0]["stream"], "stdout");
    }

    #[test]
    fn a_full_disk_loses_lines_but_tears_none() {
        // 64 KiB of memory, mounted nowhere.
        let options = [("size", "64k")];
        let disk =
            crate::container::filesystem("tmpfs", &options, rustix::mount::MountAttrFlags::empty()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::APPEND;
        let open = || rustix::fs::openat(&disk, "log", flags, rustix::fs::Mode::RWXU).unwrap();
        let ballast = rustix::fs::openat(&disk, "ballast", flags, rustix::fs::Mode::RWXU).unwrap();
        rustix::io::write(&ballast, &[0; 40 << 10]).unwrap();
        let mut log = Log::new(open());
        for number in 0..100 {
            log.take(Stream::Stdout, format!("{number} {}\n", "x".repeat(1000)).as_bytes(), Time(1));
        }
        rustix::fs::ftruncate(&ballast, 0).unwrap();
        log.take(Stream::Stdout, b"room again\n", Time(1));
        let mut text = vec![0; 1 << 20];
        let length = rustix::io::pread(open(), &mut text[..], 0).unwrap();
        let lines: Vec<serde_json::Value> = text[..length]
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert!(lines.len() > 10 && lines.len() < 100, "{}", lines.len());
        assert_eq!(lines.last().unwrap()["log"], "room again\n");
    }
}
