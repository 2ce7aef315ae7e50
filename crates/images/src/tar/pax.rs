//! What PAX headers and GNU long names say about the entry after them.

use crate::error::ArchiveError;
use crate::tar::header::Header;

const MALFORMED: ArchiveError = ArchiveError::Header("malformed PAX record");
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Collected from the headers before an entry.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extensions {
    /// Reads the records of a PAX header: `<length> <key>=<value>\n` each.
    pub(super) fn read_pax(&mut self, mut records: &[u8]) -> Result<(), ArchiveError> {
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let length: usize = decimal(&records[..space])?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(MALFORMED);
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            self.take(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            if name.contains(&0) {
                return Err(MALFORMED);
            }
            self.xattrs.retain(|(known, _)| known != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if key.starts_with(b"GNU.sparse.") {
            return Err(ArchiveError::Unsupported("sparse files in PAX form"));
        }
        // An empty value leaves what the plain header says. As Go.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(without_nul(value)?),
            b"linkpath" => self.link = Some(without_nul(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn apply(self, header: &mut Header) -> Result<(), ArchiveError> {
        let entry = &mut header.entry;
        if let Some(path) = self.path {
            entry.path = path;
        }
        if let Some(link) = self.link {
            entry.link = link;
        }
        entry.size = self.size.unwrap_or(entry.size);
        entry.uid = self.uid.unwrap_or(entry.uid);
        entry.gid = self.gid.unwrap_or(entry.gid);
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        entry.xattrs = self.xattrs;
        // The largest one means "unchanged" to the kernel.
        if entry.uid == u32::MAX || entry.gid == u32::MAX {
            return Err(ArchiveError::Header("owner out of range"));
        }
        Ok(())
    }
}

fn without_nul(value: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    if value.contains(&0) { Err(MALFORMED) } else { Ok(value.to_vec()) }
}

fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Result<T, ArchiveError> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(MALFORMED)
}

/// Seconds with a fraction of any length; what is finer than a nanosecond is dropped.
fn time(value: &[u8]) -> Result<(i64, u32), ArchiveError> {
    let (value, negative) = value.strip_prefix(b"-").map_or((value, false), |value| (value, true));
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds: i64 = decimal(parts.next().unwrap_or_default())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    let nanos = (0..9)
        .fold(0, |nanos, index| nanos * 10 + fraction.get(index).map_or(0, |digit| u32::from(digit - b'0')));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}
