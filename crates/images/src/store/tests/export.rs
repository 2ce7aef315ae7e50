//! Archives that are written.

use super::{reference, unused, with_image};
use crate::testing::{TestStore, docker_archive, simple_layer};
use crate::{Above, NewImage, Store};

fn saved(store: &Store, names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.export(names).unwrap().write(&mut bytes).unwrap();
    bytes
}

/// What an archive brings: ids and names.
fn brought(bytes: &[u8]) -> Vec<(String, Vec<String>)> {
    let store = TestStore::new();
    store.load(bytes).unwrap();
    store.check();
    let mut images: Vec<_> =
        store.store.list().unwrap().into_iter().map(|image| (image.id.to_string(), image.tags)).collect();
    images.sort();
    images
}

fn tags(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn images_are_saved_with_the_names_that_were_asked_for() {
    let (store, id) = with_image(&["x:1", "x:2", "y"]);
    let other = store.load(&docker_archive(&["x:3"], &[simple_layer("low")])).unwrap()[0].id;
    let (id, other) = (id.to_string(), other.to_string());
    let both = |names: &[&str], others: &[&str]| {
        let mut both = vec![(id.clone(), tags(names)), (other.clone(), tags(others))];
        both.sort();
        both
    };
    let found = |names: &[&str]| brought(&saved(&store.store, names));
    assert_eq!(found(&["x:1"]), [(id.clone(), tags(&["x:1"]))]);
    assert_eq!(found(&["x"]), both(&["x:1", "x:2"], &["x:3"]), "all of a repository");
    assert_eq!(found(&["y", "x:3", "x:2", "x:2"]), both(&["x:2", "y:latest"], &["x:3"]));
    assert_eq!(found(&[&id]), [(id.clone(), tags(&[]))]);
    assert_eq!(found(&[&id["sha256:".len()..][..8], "x:3"]), both(&[], &["x:3"]));
    let missing = store.store.export(&["x:1", "x:9"]).err().unwrap();
    assert_eq!(missing.to_string(), "No such image: x:9");
    assert!(saved(&store.store, &["x"]) == saved(&store.store, &["x"]), "the same every time");
    store.check();
}

#[test]
fn what_was_made_here_is_saved_too_and_outlives_its_name() {
    let (store, base) = with_image(&["base"]);
    let draft = store.store.draft(Some(base)).unwrap();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file =
        rustix::fs::openat(draft.root(), "new", flags, rustix::fs::Mode::from_raw_mode(0o640)).unwrap();
    rustix::io::write(file, b"12345").unwrap();
    let new = NewImage { parent: Some(base), ..NewImage::default() };
    let made = store.store.make_image(&new, Above::Draft(draft)).unwrap();
    store.store.tag(&made.to_string(), &reference("made")).unwrap();
    let export = store.store.export(&["made"]).unwrap();
    assert_eq!(export.images().collect::<Vec<_>>(), [made]);
    store.store.remove("made", false, &unused).unwrap();
    let mut bytes = Vec::new();
    export.write(&mut bytes).unwrap();
    assert_eq!(brought(&bytes), [(made.to_string(), tags(&["made:latest"]))]);
    drop(export);
    store.check();
}

#[test]
fn an_archive_with_a_layer_that_changed_breaks_off() {
    let (store, id) = with_image(&["x"]);
    let layer = store.store.layer_paths(&id).unwrap()[0].join("high");
    std::fs::write(&layer, b"HIGH").unwrap();
    let export = store.store.export(&["x"]).unwrap();
    assert!(export.write(&mut Vec::new()).is_err());
}
