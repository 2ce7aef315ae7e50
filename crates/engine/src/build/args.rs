//! Build arguments: what `--build-arg` gives, as far as the Dockerfile asks for it (moby's `buildargs.go`).

use std::collections::{BTreeMap, BTreeSet};

/// Arguments that need not be declared.
const BUILT_IN: [&str; 10] = [
    "ALL_PROXY",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The arguments of one stage, or of what comes before the first.
#[derive(Clone, Debug, Default)]
pub(super) struct Args {
    given: BTreeMap<String, Option<String>>,
    /// Declared in this stage, with their defaults.
    declared: BTreeMap<String, Option<String>>,
    /// Declared before the first FROM.
    meta: BTreeMap<String, Option<String>>,
    /// Declared anywhere.
    referenced: BTreeSet<String>,
}

impl Args {
    pub(super) fn new(given: BTreeMap<String, Option<String>>) -> Args {
        Args { given, ..Args::default() }
    }

    /// `ARG` before the first FROM.
    pub(super) fn declare_meta(&mut self, name: &str, default: Option<String>) {
        self.referenced.insert(name.to_owned());
        self.meta.insert(name.to_owned(), default);
    }

    /// `ARG` in a stage.
    pub(super) fn declare(&mut self, name: &str, default: Option<String>) {
        self.referenced.insert(name.to_owned());
        self.declared.insert(name.to_owned(), default);
    }

    /// What a stage begins with: nothing is declared.
    pub(super) fn of_stage(&self) -> Args {
        Args { declared: BTreeMap::new(), ..self.clone() }
    }

    /// Takes note of what a stage asked for.
    pub(super) fn merge(&mut self, stage: &Args) {
        self.referenced.extend(stage.referenced.iter().cloned());
    }

    /// Values for FROM.
    pub(super) fn meta_values(&self) -> Vec<String> {
        values(&self.meta, |name| self.value(name, &self.meta))
    }

    /// Values for a stage's instructions, but those that the environment has.
    pub(super) fn values(&self, environment: &[String]) -> Vec<String> {
        let mut names = self.declared.clone();
        for name in BUILT_IN {
            names.entry(name.to_owned()).or_default();
        }
        let has =
            |entry: &String, name: &str| entry.split_once('=').map_or(entry.as_str(), |(key, _)| key) == name;
        names.retain(|name, _| !environment.iter().any(|entry| has(entry, name)));
        values(&names, |name| self.value(name, &self.declared))
    }

    /// Those of `values` that count for the cache: a proxy that nobody declared does not.
    pub(super) fn of_cache<'a>(&self, values: &'a [String]) -> Vec<&'a str> {
        let counts = |entry: &&str| {
            let name = entry.split_once('=').map_or(*entry, |(name, _)| name);
            self.declared.contains_key(name) || !BUILT_IN.contains(&name)
        };
        values.iter().map(String::as_str).filter(counts).collect()
    }

    /// What was given and nobody asked for.
    pub(super) fn unused(&self) -> Vec<&str> {
        let unused = |name: &&str| !self.referenced.contains(*name) && !BUILT_IN.contains(name);
        self.given.keys().map(String::as_str).filter(unused).collect()
    }

    fn value(&self, name: &str, declared: &BTreeMap<String, Option<String>>) -> Option<String> {
        if let Some(given) = self.given.get(name) {
            return given.clone();
        }
        let default = declared.get(name).cloned().flatten();
        default.or_else(|| self.meta.get(name).cloned().flatten())
    }
}

fn values(names: &BTreeMap<String, Option<String>>, value: impl Fn(&str) -> Option<String>) -> Vec<String> {
    names.keys().filter_map(|name| value(name).map(|value| format!("{name}={value}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn arguments_count_where_they_are_declared() {
        let given = [("A", text("given")), ("http_proxy", text("p")), ("Z", text("z"))];
        let mut args = Args::new(given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        args.declare_meta("V", text("1"));
        args.declare_meta("A", text("meta"));
        assert_eq!(args.meta_values(), ["A=given", "V=1"]);
        let mut stage = args.of_stage();
        assert_eq!(stage.values(&[]), ["http_proxy=p"]);
        stage.declare("V", None);
        stage.declare("A", text("default"));
        stage.declare("N", None);
        stage.declare("D", text("d"));
        assert_eq!(stage.values(&["D=env".to_owned()]), ["A=given", "V=1", "http_proxy=p"]);
        assert_eq!(stage.of_cache(&stage.values(&[])), ["A=given", "D=d", "V=1"]);
        args.merge(&stage);
        assert_eq!(args.unused(), ["Z"]);
    }
}
