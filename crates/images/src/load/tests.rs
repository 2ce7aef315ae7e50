use serde_json::{Value, json};

use crate::config::architecture;
use crate::error::ArchiveError;
use crate::testing::{
    Layer, Oci, TestStore, archive, config_of, docker_archive, gzip, piped, simple_layer, with, zstd,
};
use crate::{Digest, LoadError};

/// How a blob is stored.
type Encode<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

fn refusal(store: &TestStore, archive: &[u8]) -> ArchiveError {
    let refused = match store.load(archive) {
        Err(LoadError::Archive(error)) => error,
        other => panic!("expected a refusal of the archive, got {other:?}"),
    };
    assert!(store.store.list().unwrap().is_empty(), "nothing of it is visible");
    store.check();
    refused
}

fn read_top(store: &TestStore, name: &str, path: &str) -> String {
    let image = store.store.find(name).unwrap();
    let paths = store.store.layer_paths(&image.id).unwrap();
    std::fs::read_to_string(paths[0].join(path)).unwrap()
}

#[test]
fn docker_archives_load_whatever_their_compression() {
    let layers = [simple_layer("low"), simple_layer("high")];
    let plain = docker_archive(&["x:1", "y/z:2"], &layers);
    for bytes in [plain.clone(), gzip(&plain), zstd(&plain), piped("bzip2", &plain), piped("xz", &plain)] {
        let store = TestStore::new();
        let loaded = store.load(&bytes).unwrap();
        assert_eq!(loaded[0].lines(), ["Loaded image: x:1", "Loaded image: y/z:2"]);
        let image = store.store.find("y/z:2").unwrap();
        assert_eq!(image.id.0, Digest::of(&config_of(&layers, json!({}))));
        assert_eq!(image.tags, ["x:1", "y/z:2"]);
        assert_eq!(image.size, 7);
        assert_eq!(image.history.iter().map(|step| step.size).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(image.config.cmd, Some(vec!["true".to_owned()]));
        assert_eq!(read_top(&store, "x:1", "high"), "high");
        store.check();
    }
}

#[test]
fn oci_archives_load_whatever_the_compression_of_their_layers() {
    let layers = [simple_layer("low"), simple_layer("high")];
    let two_frames = |bytes: &[u8]| {
        let (first, second) = bytes.split_at(700);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        [zstd(first), skippable.to_vec(), zstd(second)].concat()
    };
    let two_members = |bytes: &[u8]| {
        let (first, second) = bytes.split_at(700);
        [gzip(first), gzip(second)].concat()
    };
    let encodings: [Encode<'_>; 5] = [&<[u8]>::to_vec, &gzip, &zstd, &two_frames, &two_members];
    for encode in encodings {
        let store = TestStore::new();
        let mut oci = Oci::default();
        let manifest = oci.image(&layers, encode);
        let named =
            with(manifest, "annotations", json!({ "io.containerd.image.name": "docker.io/library/x:1" }));
        let loaded = store.load(&oci.finish(&[named])).unwrap();
        assert_eq!(loaded[0].lines(), ["Loaded image: x:1"]);
        assert_eq!(read_top(&store, "x:1", "high"), "high");
        store.check();
    }
}

#[test]
fn an_archive_without_names_tells_the_id() {
    let store = TestStore::new();
    let mut oci = Oci::default();
    let manifest = oci.image(&[simple_layer("a")], <[u8]>::to_vec);
    let tagged = with(manifest, "annotations", json!({ "org.opencontainers.image.ref.name": "latest" }));
    let loaded = store.load(&oci.finish(&[tagged])).unwrap();
    assert_eq!(loaded[0].lines(), [format!("Loaded image ID: {}", loaded[0].id)]);
    assert!(store.store.find(&loaded[0].id.short()).unwrap().tags.is_empty());
}

#[test]
fn of_many_platforms_this_machine_s_is_taken() {
    let store = TestStore::new();
    let mut oci = Oci::default();
    let platform = |manifest: Value, os: &str, architecture: &str, variant: &str| {
        with(manifest, "platform", json!({ "os": os, "architecture": architecture, "variant": variant }))
    };
    let mine = oci.image(&[simple_layer("mine")], gzip);
    let newer = oci.image(&[simple_layer("newer")], gzip);
    let other = oci.image(&[simple_layer("other")], gzip);
    let attestation = oci.blob(b"{}");
    // Its content need not be in the archive.
    let absent = json!({ "digest": Digest::of(b"absent").to_string(), "size": 6 });
    let index = oci.index(&[
        platform(other, "linux", "s390z", ""),
        platform(absent, "windows", architecture(), ""),
        platform(newer, "linux", architecture(), "v9"),
        platform(mine, "linux", architecture(), ""),
        platform(attestation, "unknown", "unknown", ""),
    ]);
    let named = with(index, "annotations", json!({ "org.opencontainers.image.ref.name": "x:1" }));
    store.load(&oci.finish(&[named])).unwrap();
    assert_eq!(read_top(&store, "x:1", "mine"), "mine");
    store.check();

    let store = TestStore::new();
    let mut oci = Oci::default();
    let other = oci.image(&[simple_layer("other")], gzip);
    let index = oci.index(&[platform(other, "linux", "s390z", "")]);
    let refused = refusal(&store, &oci.finish(&[index]));
    assert_eq!(
        refused.to_string(),
        format!("no matching manifest for linux/{} in the archive", architecture())
    );
}

#[test]
fn loading_again_changes_nothing_but_names() {
    let store = TestStore::new();
    let layers = [simple_layer("low"), simple_layer("high")];
    let old = store.load(&docker_archive(&["x:1"], &layers)).unwrap()[0].id;
    store.load(&docker_archive(&["x:2"], &layers)).unwrap();
    assert_eq!(store.store.find("x:1").unwrap().tags, ["x:1", "x:2"]);
    // Another image on the same layer takes the name.
    let loaded = store.load(&docker_archive(&["x:2"], &layers[..1])).unwrap();
    let message = format!("The image x:2 already exists, renaming the old one with ID {old} to empty string");
    assert_eq!(loaded[0].lines(), [message, "Loaded image: x:2".to_owned()]);
    assert_eq!(store.store.usage().layers, 2);
    store.check();
    let store = store.reopen();
    assert!(store.store.repairs().is_empty());
    assert_eq!(store.store.list().unwrap().len(), 2);
    store.check();
}

#[test]
fn an_uncompressed_blob_that_is_here_is_not_unpacked_again() {
    let store = TestStore::new();
    let layers = [simple_layer("low"), simple_layer("high")];
    for name in ["x:1", "x:2"] {
        let mut oci = Oci::default();
        let manifest = oci.image(&layers[..if name == "x:1" { 1 } else { 2 }], <[u8]>::to_vec);
        let named = with(manifest, "annotations", json!({ "io.containerd.image.name": name }));
        store.load(&oci.finish(&[named])).unwrap();
    }
    let image = store.store.find("x:2").unwrap();
    assert_eq!(image.size, 7);
    assert_eq!(store.store.usage().size, 7);
    store.check();
}

#[test]
fn links_between_layers_of_old_archives_are_followed() {
    let store = TestStore::new();
    let layer = simple_layer("a");
    let config = config_of(&[layer.clone(), layer.clone()], json!({}));
    let manifest =
        json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["one/layer.tar", "two/layer.tar"] }]);
    let bytes = Layer::new()
        .file("one/layer.tar", &layer)
        .symlink("two/layer.tar", "../one/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", &serde_json::to_vec(&manifest).unwrap())
        .bytes();
    let id = store.load(&bytes).unwrap()[0].id;
    assert_eq!(store.store.layer_paths(&id).unwrap().len(), 1, "overlayfs takes a folder once");
    assert_eq!(store.store.find(&id.to_string()).unwrap().layers.len(), 2);
    store.check();
}

#[test]
fn wrong_digests_are_refused() {
    let store = TestStore::new();
    let layer = simple_layer("a");

    // A layer that is not the configuration's.
    let config = config_of(&[simple_layer("b")], json!({}));
    let manifest = json!([{ "Config": "c.json", "Layers": ["l.tar"] }]);
    let files = [
        ("l.tar".to_owned(), layer.clone()),
        ("c.json".to_owned(), config),
        ("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()),
    ];
    assert!(
        matches!(refusal(&store, &archive(&files)), ArchiveError::Digest { name, .. } if name == "l.tar")
    );

    // Each blob of an OCI layout in turn, changed behind its name.
    for index in 0..3 {
        let mut oci = Oci::default();
        let manifest = oci.image(std::slice::from_ref(&layer), gzip);
        let blob = &mut oci.files[index].1;
        *blob = if blob[0] == 0x1f { gzip(&simple_layer("c")) } else { [blob.as_slice(), b" "].concat() };
        let refused = refusal(&store, &oci.finish(&[manifest]));
        assert!(matches!(refused, ArchiveError::Digest { .. }), "{refused}");
    }

    // A size that is not the descriptor's.
    let mut oci = Oci::default();
    let manifest = oci.image(&[layer], gzip);
    let refused = refusal(&store, &oci.finish(&[with(manifest, "size", json!(1))]));
    assert!(matches!(refused, ArchiveError::Size { .. }), "{refused}");
}

#[test]
fn archives_that_are_none_are_refused() {
    let store = TestStore::new();
    let manifest = |text: &str| archive(&[("manifest.json".to_owned(), text.as_bytes().to_vec())]);
    let deep = format!("[{{\"Other\": {}{}}}]", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!("[{}]", " ".repeat(9 << 20));
    for (bytes, message) in [
        (Vec::new(), "unexpected EOF"),
        (b"hello".to_vec(), "unexpected EOF"),
        (vec![b'x'; 4096], "invalid tar header"),
        (simple_layer("a"), "not an image archive"),
        (manifest(""), "invalid \"manifest.json\""),
        (manifest("{}"), "invalid \"manifest.json\""),
        (manifest("[{\"Config\": 1}]"), "invalid \"manifest.json\""),
        (manifest("[{\"Config\": \"c\"}]"), "the archive lacks \"c\""),
        (manifest("[{\"Config\": \"../c\"}]"), "invalid path"),
        (manifest("[{\"Config\": \"manifest.json\"}]"), "invalid image configuration"),
        (manifest(&deep), "missing field `Config`"),
        (manifest(&huge), "more than 8388608 bytes in a document"),
        (b"BZh91AY&SY".to_vec(), ""),
        (b"\xfd7zXZ\0".to_vec(), ""),
    ] {
        let refused = refusal(&store, &bytes).to_string();
        assert!(refused.contains(message), "{refused:?} should contain {message:?}");
    }
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_ends() {
    let store = TestStore::new();
    let layers = [simple_layer("low"), simple_layer("high")];
    let plain = docker_archive(&["x:1"], &layers);
    let end_of_data = plain.len() - 1024;
    for bytes in [plain.clone(), gzip(&plain), zstd(&plain), piped("bzip2", &plain), piped("xz", &plain)] {
        for end in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            if bytes.len() == plain.len() && end > end_of_data {
                continue;
            }
            let refused = store.load(&bytes[..end]);
            assert!(refused.is_err(), "{end} bytes of {}", bytes.len());
            assert!(store.store.list().unwrap().is_empty());
        }
    }
    store.check();
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let store = TestStore::new();
    let layer = simple_layer("a");
    for (extra, message) in [
        (json!({ "os": "windows" }), "cannot load windows image on linux"),
        (json!({ "rootfs": { "type": "layers", "diff_ids": [] } }), "it has 0 layers; the manifest has 1"),
        (json!({ "rootfs": { "type": "other" } }), "root file system of type"),
        (json!({ "config": { "Env": 1 } }), "invalid type"),
    ] {
        let config = config_of(std::slice::from_ref(&layer), extra);
        let manifest = json!([{ "Config": "c.json", "Layers": ["l.tar"] }]);
        let files = [
            ("l.tar".to_owned(), layer.clone()),
            ("c.json".to_owned(), config),
            ("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()),
        ];
        let refused = refusal(&store, &archive(&files)).to_string();
        assert!(refused.contains(message), "{refused:?} should contain {message:?}");
    }
}

#[test]
fn what_is_held_in_memory_is_bounded() {
    let store = TestStore::new();
    let document = vec![b' '; 7 << 20];
    let files: Vec<_> = (0..5).map(|number| (format!("{number}.json"), document.clone())).collect();
    let refused = refusal(&store, &archive(&files)).to_string();
    assert!(refused.contains("bytes of documents and names"), "{refused}");
}

#[test]
fn deep_json_is_refused() {
    let store = TestStore::new();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let config = format!("{{\"rootfs\": {{\"type\": \"layers\"}}, \"config\": {{\"Healthcheck\": {deep}}}}}");
    let files = [
        ("c.json".to_owned(), config.into_bytes()),
        ("manifest.json".to_owned(), b"[{\"Config\": \"c.json\"}]".to_vec()),
    ];
    let refused = refusal(&store, &archive(&files)).to_string();
    assert!(refused.contains("recursion limit"), "{refused}");
}

#[test]
fn what_no_image_needs_may_be_broken() {
    let store = TestStore::new();
    let mut oci = Oci::default();
    let manifest = oci.image(&[simple_layer("a")], <[u8]>::to_vec);
    oci.blob(&gzip(b"not a tar archive"));
    oci.blob(&[&[0x1f, 0x8b, 0x08][..], &[7; 5000]].concat());
    oci.blob(&simple_layer("../../x"));
    store.load(&oci.finish(&[manifest])).unwrap();
    store.check();
}
