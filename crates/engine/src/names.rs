//! Names: which ones containers and volumes may have, and drawn ones.

use skep_types::Ids;

use crate::{Error, Result};

/// Docker's pattern for names of containers and volumes, as its messages quote it.
const ALLOWED: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";

/// How often a drawn name may be taken before a number is added to it.
const PLAIN_DRAWS: usize = 8;
/// How often a numbered name may be taken before the drawing is given up.
const NUMBERED_DRAWS: usize = 64;

const ADJECTIVES: [&str; 48] = [
    "amber", "ample", "bold", "brisk", "candid", "civil", "crisp", "deft", "early", "fair", "fleet", "fond",
    "frank", "glad", "golden", "handy", "hardy", "honest", "humble", "just", "keen", "kind", "lively",
    "loyal", "lucid", "mellow", "merry", "mild", "neat", "nimble", "patient", "plain", "prompt", "proud",
    "quiet", "rapid", "ready", "robust", "sound", "steady", "sunny", "tidy", "tireless", "vivid", "warm",
    "willing", "wise", "zealous",
];

/// People who studied or kept bees, or whose work this programme stands on.
const SURNAMES: [&str; 48] = [
    "aristotle",
    "butler",
    "codd",
    "columella",
    "dadant",
    "demuth",
    "doolittle",
    "dzierzon",
    "farrar",
    "floyd",
    "frisch",
    "gould",
    "gray",
    "haydak",
    "heinrich",
    "hive",
    "hoare",
    "hruschka",
    "huber",
    "janscha",
    "karnaugh",
    "kerr",
    "lampson",
    "langstroth",
    "laveran",
    "lindauer",
    "lindgren",
    "liskov",
    "maeterlinck",
    "maraldi",
    "mead",
    "mehring",
    "miller",
    "naur",
    "otis",
    "park",
    "prokopovych",
    "quinby",
    "reaumur",
    "root",
    "schirach",
    "seeley",
    "snelgrove",
    "swammerdam",
    "varro",
    "warre",
    "wheeler",
    "wilson",
];

/// Whether Docker would take `name` for a container or a volume: at least two characters.
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The container name in `text`, which may carry Docker's leading slash.
///
/// # Errors
/// 400, in Docker's words.
pub fn container_name(text: &str) -> Result<&str> {
    let name = text.strip_prefix('/').unwrap_or(text);
    if is_valid(name) {
        return Ok(name);
    }
    Err(Error::invalid(format!("Invalid container name ({text}), only {ALLOWED} are allowed")))
}

/// Checks the name of a volume.
///
/// # Errors
/// 400, in Docker's words.
pub fn check_volume_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        let reason = "volume name is too short, names should be at least two alphanumeric characters";
        return Err(Error::invalid(format!("create {name}: {reason}")));
    }
    if is_valid(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: {name:?} includes invalid characters for a local volume name, only {ALLOWED:?} are allowed. \
         If you intended to pass a host directory, use absolute path"
    )))
}

/// Draws a name that `is_free`; `None` when luck ran out.
pub fn draw(ids: &mut Ids, is_free: impl Fn(&str) -> bool) -> Option<String> {
    (0..PLAIN_DRAWS + NUMBERED_DRAWS)
        .map(|draw| {
            let number = ids.next_u64();
            let pick = |words: &[&'static str], shift: u32| words[(number >> shift) as usize % words.len()];
            let name = format!("{}_{}", pick(&ADJECTIVES, 0), pick(&SURNAMES, 24));
            if draw < PLAIN_DRAWS { name } else { format!("{name}{}", (number >> 48) % 1000) }
        })
        .find(|name| is_free(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        for name in ["ab", "a-b", "0_", "web.1.x", "A.b-c_d"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "a", "_ab", "-ab", ".ab", "a b", "a/b", "aé"] {
            assert!(!is_valid(name), "{name}");
        }
        assert_eq!(container_name("/web"), Ok("web"));
        assert_eq!(
            container_name("we b").map_err(|error| error.message),
            Err("Invalid container name (we b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed".to_owned())
        );
    }

    #[test]
    fn words_are_distinct_and_make_valid_names() {
        for words in [ADJECTIVES, SURNAMES] {
            assert!(words.is_sorted_by(|left, right| left < right));
            assert!(words.iter().all(|word| is_valid(word)));
        }
    }

    #[test]
    fn drawing_avoids_what_is_taken() {
        let mut ids = Ids::new(1);
        let name = draw(&mut ids, |name| name.ends_with(|last: char| last.is_ascii_digit()));
        assert!(name.is_some_and(|name| is_valid(&name)));
        assert_eq!(draw(&mut ids, |_| false), None);
    }
}
