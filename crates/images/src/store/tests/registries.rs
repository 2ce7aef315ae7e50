//! Layers that come one by one, and layers that are archives again.

use std::io::Read;

use rustix::fs::{Mode, OFlags};
use tar::EntryType;

use super::{reference, unused, with_image};
use crate::testing::{Layer, TestStore, config_of, docker_archive, gzip, simple_layer};
use crate::{Above, ArchiveError, Blob, DiffId, Digest, Image, Intake, LoadError, NewImage, NewLayer};

/// All that is peculiar about archives: what a recipe must not lose.
fn odd_layer() -> Vec<u8> {
    let mut bytes = Layer::new()
        .folder("d/")
        .file("./d/file", &vec![b'x'; 100_000])
        .file("empty", b"")
        .symlink("link", "d")
        .file("link/through", b"reached by a link")
        .hard_link("hard", "d/file")
        .file(".wh.gone", b"a whiteout is empty as a rule")
        .entry(EntryType::Fifo, "pipe", "", b"", |_| {})
        .pax(&[("comment", b"some words"), ("path", "d/ü".as_bytes())])
        .file("replaced", b"with a long name")
        .file("implicit/folder/file", b"?")
        .bytes();
    bytes.extend_from_slice(&[0; 4096]);
    bytes.extend_from_slice(b"what follows the end is not nothing");
    bytes
}

fn rebuilt(store: &TestStore, image: &Image, index: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.store.layer_archive(&image.id, index).unwrap().read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn an_archive_is_had_again_byte_for_byte() {
    let store = TestStore::new();
    let layers = [odd_layer(), simple_layer("second")];
    let id = store.load(&docker_archive(&["x"], &layers)).unwrap()[0].id;
    let image = store.store.find(&id.to_string()).unwrap();
    for (index, layer) in layers.iter().enumerate() {
        assert!(rebuilt(&store, &image, index).unwrap() == *layer, "layer {index}");
    }
    let mut gzipped = Vec::new();
    store.store.layer_archive(&id, 0).unwrap().compressed().read_to_end(&mut gzipped).unwrap();
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(gzipped.as_slice()).read_to_end(&mut plain).unwrap();
    assert!(plain == layers[0]);
    store.check();
    let store = store.reopen();
    assert!(rebuilt(&store, &image, 0).unwrap() == layers[0], "it survives");
    store.store.remove("x", false, &unused).unwrap();
    store.check();
}

#[test]
fn an_archive_that_cannot_be_had_again_is_noticed() {
    let store = TestStore::new();
    let twice = Layer::new().file("f", b"first").file("f", b"other").bytes();
    let id = store.load(&docker_archive(&["x"], &[twice])).unwrap()[0].id;
    let image = store.store.find(&id.to_string()).unwrap();
    let error = rebuilt(&store, &image, 0).unwrap_err().to_string();
    assert!(error.contains("cannot be had again"), "{error}");
}

#[test]
fn an_archive_of_what_was_made_here_has_its_digest() {
    let (store, base) = with_image(&["base"]);
    let draft = store.store.draft(Some(base)).unwrap();
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(draft.root(), "new", flags, Mode::from_raw_mode(0o640)).unwrap();
    rustix::io::write(file, b"made here").unwrap();
    let new = NewImage { parent: Some(base), ..NewImage::default() };
    let id = store.store.make_image(&new, Above::Draft(draft)).unwrap();
    let image = store.store.find(&id.to_string()).unwrap();
    let bytes = rebuilt(&store, &image, 2).unwrap();
    assert_eq!(DiffId(Digest::of(&bytes)), image.layers[2]);
}

fn announce(layer: &[u8], blob: &[u8]) -> NewLayer {
    NewLayer { diff_id: DiffId(Digest::of(layer)), blob: Digest::of(blob), size: blob.len() as u64 }
}

fn receive(intake: &Intake, layer: &NewLayer, mut blob: &[u8]) -> Result<(), LoadError> {
    intake.receive(layer, &mut blob, &mut |_| {})
}

#[test]
fn an_image_is_visible_once_all_of_it_came() {
    let store = TestStore::new();
    let layers = [simple_layer("low"), odd_layer()];
    let config = config_of(&layers, serde_json::json!({}));
    let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let intake = store.store.intake().unwrap();
    for (layer, blob) in layers.iter().zip(&blobs).rev() {
        let announced = announce(layer, blob);
        assert!(!intake.has(&announced));
        receive(&intake, &announced, blob).unwrap();
    }
    assert_eq!(store.store.list().unwrap().len(), 0);
    let names = vec![reference("x:1"), reference(&format!("x@{}", Digest::of(b"manifest")))];
    let found = Blob {
        digest: Digest::of(&blobs[0]),
        size: blobs[0].len() as u64,
        media_type: "gzip".to_owned(),
        repository: "docker.io/library/x".to_owned(),
    };
    let id =
        intake.commit(config.clone(), names, vec![(DiffId(Digest::of(&layers[0])), found.clone())]).unwrap();
    assert_eq!(id.0, Digest::of(&config));
    let image = store.store.find("x:1").unwrap();
    assert_eq!((image.id, image.digests.len()), (id, 1));
    assert!(rebuilt(&store, &image, 1).unwrap() == layers[1]);
    assert_eq!(store.store.blobs(DiffId(Digest::of(&layers[0]))), [found]);
    store.check();
    store.store.remove(&id.to_string(), true, &unused).unwrap();
    assert_eq!(store.store.blobs(DiffId(Digest::of(&layers[0]))), []);
    store.check();
}

#[test]
fn a_layer_that_came_serves_others_before_its_image_is_whole() {
    let store = TestStore::new();
    let layer = simple_layer("shared");
    let announced = announce(&layer, &layer);
    let first = store.store.intake().unwrap();
    receive(&first, &announced, &layer).unwrap();
    let second = store.store.intake().unwrap();
    assert!(second.has(&announced));
    drop(first);
    let config = config_of(std::slice::from_ref(&layer), serde_json::json!({}));
    let id = second.commit(config, vec![reference("x")], Vec::new()).unwrap();
    let image = store.store.find(&id.to_string()).unwrap();
    assert!(rebuilt(&store, &image, 0).unwrap() == layer);
    store.check();
}

#[test]
fn what_is_not_as_announced_leaves_nothing() {
    let store = TestStore::new();
    let layer = simple_layer("x");
    let blob = gzip(&layer);
    let good = announce(&layer, &blob);
    let endless = std::iter::repeat_n(blob.clone(), 3).flatten().collect::<Vec<u8>>();
    let other = Digest::of(b"other");
    let intake = store.store.intake().unwrap();
    for (announced, sent) in [
        (NewLayer { blob: other, ..good }, blob.as_slice()),
        (NewLayer { diff_id: DiffId(other), ..good }, &blob),
        (NewLayer { size: good.size - 1, ..good }, &blob),
        (NewLayer { size: good.size + 1, ..good }, &blob),
        (good, &endless),
        (good, &blob[..blob.len() - 9]),
        (good, b""),
    ] {
        let error = receive(&intake, &announced, sent).unwrap_err();
        assert!(matches!(error, LoadError::Archive(_)), "{error}");
        assert!(!intake.has(&announced));
    }
    receive(&intake, &good, &blob).unwrap();
    let config = config_of(&[simple_layer("missing")], serde_json::json!({}));
    let error = intake.commit(config, vec![reference("x")], Vec::new()).unwrap_err();
    assert!(matches!(error, LoadError::Archive(ArchiveError::Missing(_))), "{error}");
    store.check();
}
