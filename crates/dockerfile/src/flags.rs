//! `--name=value` between an instruction's word and its arguments.

use crate::error::Fault;

/// What only BuildKit carries out.
const BUILDKIT: [&str; 9] =
    ["mount", "network", "security", "link", "parents", "exclude", "keep-git-dir", "checksum", "device"];

/// The values of the flags in `known`, in its order.
pub(crate) fn read<const N: usize>(
    flags: &[String],
    known: [&'static str; N],
) -> Result<[Option<String>; N], Fault> {
    let mut values = [const { None }; N];
    for flag in flags {
        let text = flag.trim_start_matches('-');
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let Some(index) = known.iter().position(|known| *known == name) else {
            let is_buildkit = BUILDKIT.contains(&name);
            let name = name.to_owned();
            return Err(if is_buildkit { Fault::BuildKit(name) } else { Fault::UnknownFlag(name) });
        };
        if values[index].is_some() {
            return Err(Fault::DuplicateFlag(name.to_owned()));
        }
        values[index] = Some(value.ok_or_else(|| Fault::FlagWithoutValue(name.to_owned()))?.to_owned());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_known_or_refused() {
        let read = |flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            read(&flags, ["from", "chown"])
        };
        assert_eq!(read(&["--chown=a"]), Ok([None, Some("a".to_owned())]));
        assert_eq!(read(&["--from"]), Err(Fault::FlagWithoutValue("from".to_owned())));
        assert_eq!(read(&["--from=a", "--from=b"]), Err(Fault::DuplicateFlag("from".to_owned())));
        assert_eq!(read(&["--x=a"]), Err(Fault::UnknownFlag("x".to_owned())));
        assert_eq!(read(&["--link"]), Err(Fault::BuildKit("link".to_owned())));
    }
}
