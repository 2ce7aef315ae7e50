//! Generic resources, read, given out and told.

use super::*;

fn parse(terms: &[&str]) -> GenericResources {
    GenericResources::parse(terms.iter().copied()).unwrap_or_else(|error| panic!("{terms:?}: {error}"))
}

fn check(has: &[&str], used: &[&str], wanted: &[(&str, u64)], expected: &str) {
    let wanted = wanted.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    let mut held = GenericUse::default();
    held.add(&parse(used));
    let given = parse(has).claim(&held, &wanted);
    let told = given.map(|given| given.env().collect::<Vec<_>>().join(" "));
    assert_eq!(told.as_deref().unwrap_or("too little"), expected);
}

#[test]
fn what_is_free_is_given_and_told_by_the_environment() {
    let has = ["gpu=a", "gpu=b", "gpu=c", "Apple=5"];
    check(&has, &[], &[("gpu", 2), ("Apple", 3)], "DOCKER_RESOURCE_APPLE=3 DOCKER_RESOURCE_GPU=a,b");
    check(
        &has,
        &["gpu=b", "Apple=4"],
        &[("gpu", 2), ("Apple", 1)],
        "DOCKER_RESOURCE_APPLE=1 DOCKER_RESOURCE_GPU=a,c",
    );
    check(&has, &["gpu=b"], &[("gpu", 3)], "too little");
    check(&has, &["Apple=5"], &[("Apple", 1)], "too little");
    check(&has, &[], &[("apple", 1)], "too little");
    check(&has, &[], &[("pear", 0)], "");
}

#[test]
fn what_was_named_once_and_is_counted_now_still_counts() {
    let mut used = GenericUse::default();
    let (named, counted) = (parse(&["gpu=a", "gpu=b"]), parse(&["gpu=2"]));
    used.add(&named);
    used.add(&counted);
    assert_eq!(parse(&["gpu=4"]).claim(&used, &[("gpu".to_owned(), 1)].into()), None);
    assert!(used.fits(&parse(&["gpu=4"])) && !used.fits(&parse(&["gpu=3"])));
    used.remove(&named);
    assert!(used.fits(&parse(&["gpu=2"])) && !used.is_empty());
    used.remove(&counted);
    assert!(used.is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_in_swarmkit_s_words() {
    let refused = |terms: &[&str], expected: &str| {
        let error = GenericResources::parse(terms.iter().copied()).expect_err("refused");
        assert_eq!(error.to_string(), expected);
    };
    refused(
        &["gpu"],
        "could not parse GenericResource: incorrect term gpu, missing '=' or malformed expression",
    );
    refused(
        &["gpu=a=b"],
        "could not parse GenericResource: incorrect term gpu=a=b, missing '=' or malformed expression",
    );
    refused(&["gpu=-1"], "could not parse GenericResource: cannot ask for negative resource gpu");
    refused(&["gpu=a", "gpu=1"], "could not parse GenericResource: malformed expression 'gpu=[a 1]'");
    refused(&["gpu=1", "gpu=2"], "could not parse GenericResource: malformed expression 'gpu=[1 2]'");
}
