mod build;
mod crash;
mod disk;
mod export;
mod model;
mod registries;
mod stacked;

use std::process::Command;

use crate::testing::{Layer, Oci, TestStore, docker_archive, gzip, simple_layer};
use crate::{
    FindError, ImageConfig, ImageId, Import, ImportError, InUse, OpenError, Reference, Removed, Store,
    TagError,
};

/// Runs one ignored test of this binary as a process of its own, through `wrapper`.
fn child(wrapper: &[&str], test: &str, variables: &[(&str, &str)]) -> Command {
    let executable = std::env::current_exe().unwrap();
    let (program, arguments) = match wrapper {
        [program, arguments @ ..] => (program.into(), [arguments, &[executable.to_str().unwrap()]].concat()),
        [] => (executable.clone(), Vec::new()),
    };
    let mut command = Command::new(program);
    command.args(arguments).args(["--ignored", "--exact", test, "--test-threads=1", "--nocapture"]);
    command.envs(variables.iter().copied());
    command
}

fn unused(_: &ImageId) -> Option<InUse> {
    None
}

fn used(running: bool) -> impl Fn(&ImageId) -> Option<InUse> {
    move |_| Some(InUse { container: "0123456789ab".to_owned(), running })
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A store with one image of two layers.
fn with_image(tags: &[&str]) -> (TestStore, ImageId) {
    let store = TestStore::new();
    let loaded = store.load(&docker_archive(tags, &[simple_layer("low"), simple_layer("high")])).unwrap();
    (store, loaded[0].id)
}

fn untagged(name: &str, image: ImageId) -> Removed {
    Removed::Untagged { name: name.to_owned(), image }
}

#[test]
fn images_are_found_by_any_of_their_names() {
    let (TestStore { store, folder: _folder }, id) = with_image(&["x:1", "host:5000/y"]);
    let hex = id.0.hex();
    let prefix = format!("sha256:{}", &hex[..5]);
    for name in
        ["x:1", "library/x:1", "docker.io/x:1", "host:5000/y", "host:5000/y:latest", &hex, &hex[..1], &prefix]
    {
        assert_eq!(store.find(name).unwrap().id, id, "{name}");
        assert_eq!(store.resolve(name).unwrap(), id, "{name}");
    }
    let absent = format!("sha256:{}", "0".repeat(64));
    for (name, message) in [
        ("x", "No such image: x:latest"),
        ("nothing", "No such image: nothing:latest"),
        (&absent, &format!("No such image: {absent}")),
        ("X", "invalid reference format: repository name (library/X) must be lowercase"),
        ("a b", "invalid reference format"),
        ("", "invalid reference format"),
    ] {
        assert_eq!(store.find(name).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_prefix_of_two_ids_is_ambiguous() {
    let store = TestStore::new();
    // Of seventeen ids two start alike.
    for number in 0..17 {
        store.load(&docker_archive(&[], &[simple_layer(&number.to_string())])).unwrap();
    }
    let ambiguous = (0..16)
        .filter(|digit| matches!(store.store.find(&format!("{digit:x}")), Err(FindError::Ambiguous(_))));
    assert!(ambiguous.count() > 0);
}

#[test]
fn tags_move() {
    let (store, id) = with_image(&["x:1"]);
    let other = store.load(&docker_archive(&["y"], &[simple_layer("y")])).unwrap()[0].id;
    store.store.tag("y", &reference("x:1")).unwrap();
    assert_eq!(store.store.resolve("x:1").unwrap(), other);
    assert_eq!(store.store.find(&id.to_string()).unwrap().tags, [""; 0]);
    let missing = store.store.tag("nothing", &reference("z")).unwrap_err();
    assert_eq!(missing.to_string(), "No such image: nothing:latest");
    let digest = reference(&format!("x@{id}"));
    assert!(matches!(store.store.tag("y", &digest), Err(TagError::DigestReference)));
    let store = store.reopen();
    assert_eq!(store.store.resolve("x:1").unwrap(), other);
    store.check();
}

#[test]
fn the_last_name_takes_the_image_with_it() {
    let (store, id) = with_image(&["x:1", "x:2"]);
    assert_eq!(store.store.remove("x:1", false, &unused).unwrap(), [untagged("x:1", id)]);
    let removed = store.store.remove("x:2", false, &unused).unwrap();
    assert_eq!(removed[..2], [untagged("x:2", id), Removed::Deleted(id)]);
    assert_eq!(removed.len(), 4, "and both layers");
    assert!(store.store.list().unwrap().is_empty());
    assert_eq!(store.store.usage(), crate::Usage::default());
    store.check();
}

#[test]
fn layers_that_another_image_has_stay() {
    let (store, _) = with_image(&["x"]);
    let low = simple_layer("low");
    let other = store.load(&docker_archive(&["y"], std::slice::from_ref(&low))).unwrap()[0].id;
    let removed = store.store.remove("x", false, &unused).unwrap();
    assert_eq!(removed.len(), 3, "name, image and upper layer: {removed:?}");
    assert!(store.store.layer_paths(&other).unwrap()[0].join("low").exists());
    store.check();
}

#[test]
fn conflicts_are_docker_s() {
    let (store, id) = with_image(&["x:1"]);
    let (hex, short) = (id.0.hex(), id.short());
    let remove = |name: &str, force, running| store.store.remove(name, force, &used(running));
    let message = |name: &str, force, running| {
        let refused = remove(name, force, running).unwrap_err();
        assert!(refused.is_conflict());
        refused.to_string()
    };
    let by_name = format!(
        "conflict: unable to remove repository reference \"x:1\" (must force) - container 0123456789ab is using its referenced image {short}"
    );
    let stopped = format!(
        "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
    );
    let running = format!(
        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
    );
    assert_eq!(message("x:1", false, true), by_name);
    assert_eq!(message("x:1", false, false), by_name);
    assert_eq!(message(&hex, false, false), stopped);
    assert_eq!(message(&hex, false, true), running);
    assert_eq!(message(&hex, true, true), running);
    store.store.tag("x:1", &reference("y")).unwrap();
    let many = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    );
    assert_eq!(message(&hex, false, false), many);

    // One of several names goes, whoever uses the image.
    assert_eq!(remove("y", false, true).unwrap(), [untagged("y:latest", id)]);
    // The last one goes by force, and the image stays with its container.
    assert_eq!(remove("x:1", true, true).unwrap(), [untagged("x:1", id)]);
    assert_eq!(message(&hex, false, false), stopped);
    assert!(remove(&hex, true, false).unwrap().contains(&Removed::Deleted(id)));
    store.check();
}

#[test]
fn by_force_an_id_takes_all_names() {
    let (store, id) = with_image(&["x:1", "y"]);
    let removed = store.store.remove(&id.short(), true, &unused).unwrap();
    assert_eq!(removed[..3], [untagged("x:1", id), untagged("y:latest", id), Removed::Deleted(id)]);
    let gone = store.store.remove("x:1", true, &unused).unwrap_err();
    assert_eq!(gone.to_string(), "No such image: x:1");
    assert!(!gone.is_conflict());
    store.check();
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let store = TestStore::new();
    let bytes = gzip(&Layer::new().folder("etc").file("etc/hostname", b"x").bytes());
    let import = Import {
        reference: Some(reference("imported:1")),
        message: "Imported from -".to_owned(),
        created: "2024-01-02T03:04:05Z".parse().unwrap(),
        config: ImageConfig { cmd: Some(vec!["sh".to_owned()]), ..ImageConfig::default() },
        ..Import::default()
    };
    let id = store.store.import(&mut bytes.as_slice(), import.clone()).unwrap();
    let image = store.store.find("imported:1").unwrap();
    assert_eq!((image.id, image.size, image.comment.as_str()), (id, 1, "Imported from -"));
    assert_eq!((image.created, &image.config), (Some(import.created), &import.config));
    assert!(store.store.layer_paths(&id).unwrap()[0].join("etc/hostname").exists());

    let refused = store.store.import(&mut &bytes[..40], import.clone());
    assert!(matches!(refused, Err(ImportError::Archive(_))), "{refused:?}");
    let by_digest = Import { reference: Some(reference(&format!("x@{id}"))), ..import };
    let refused = store.store.import(&mut bytes.as_slice(), by_digest);
    assert!(matches!(refused, Err(ImportError::DigestReference)));
    store.check();
}

#[test]
fn an_image_without_layers_has_a_folder_to_mount() {
    let store = TestStore::new();
    let id = store.load(&docker_archive(&["empty"], &[])).unwrap()[0].id;
    let paths = store.store.layer_paths(&id).unwrap();
    assert!(paths[0].is_dir() && paths.len() == 1);
    store.check();
}

#[test]
fn layers_that_take_attributes_from_below_are_not_shared_between_stacks() {
    let store = TestStore::new();
    let base = |mode: u32| {
        Layer::new().entry(tar::EntryType::Directory, "tmp", "", b"", |header| header.set_mode(mode)).bytes()
    };
    let upper = Layer::new().file("tmp/x", b"").bytes();
    for (name, mode) in [("sticky", 0o1777), ("plain", 0o755)] {
        store.load(&docker_archive(&[name], &[base(mode), upper.clone()])).unwrap();
    }
    for (name, mode) in [("sticky", 0o1777), ("plain", 0o755)] {
        use std::os::unix::fs::PermissionsExt;
        let id = store.store.resolve(name).unwrap();
        let top = store.store.layer_paths(&id).unwrap()[0].join("tmp");
        assert_eq!(std::fs::metadata(top).unwrap().permissions().mode() & 0o7777, mode, "{name}");
    }
    store.check();
}

#[test]
fn such_a_layer_in_two_images_of_one_archive_is_there_for_both() {
    let upper = Layer::new().file("tmp/x", b"").bytes();
    let mut oci = Oci::default();
    let manifests = ["a", "b"].map(|base| oci.image(&[simple_layer(base), upper.clone()], <[u8]>::to_vec));
    let store = TestStore::new();
    let loaded = store.load(&oci.finish(&manifests)).unwrap();
    assert_eq!(loaded.len(), 2);
    store.check();
    let store = store.reopen();
    assert!(store.store.repairs().is_empty(), "{:?}", store.store.repairs());
    store.check();
}

#[test]
fn a_store_is_opened_once() {
    let TestStore { store, folder } = TestStore::new();
    let root = folder.path().join("images");
    assert!(matches!(Store::open(&root), Err(OpenError::Locked(_))));
    drop(store);
    Store::open(&root).unwrap();
}

#[test]
fn damage_is_told_and_the_rest_goes_on() {
    let (store, id) = with_image(&["x"]);
    let other = store.load(&docker_archive(&["y"], &[simple_layer("y")])).unwrap()[0].id;
    std::fs::write(store.root().join("configs").join(id.0.hex()), "{}").unwrap();
    let store = store.reopen();
    let told = store.store.repairs();
    assert!(told.len() == 2 && told[0].contains(&id.to_string()) && told[1].contains("x:latest"), "{told:?}");
    assert_eq!(store.store.list().unwrap().len(), 1);
    assert_eq!(store.store.resolve("y").unwrap(), other);
    store.check();

    let TestStore { store, folder } = store;
    drop(store);
    let root = folder.path().join("images");
    std::fs::write(root.join("store.json"), "{\"format\": 99}").unwrap();
    assert!(matches!(Store::open(&root), Err(OpenError::Format { found: 99, .. })));
    std::fs::write(root.join("store.json"), "{\"form").unwrap();
    assert!(matches!(Store::open(&root), Err(OpenError::Store(_))));
    assert_eq!(std::fs::read_dir(root.join("layers")).unwrap().count(), 1, "nothing is removed on a guess");
}

#[test]
fn loads_and_removals_at_once_leave_a_sound_store() {
    let store = TestStore::new();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("x:{}", (worker + round) % 3);
                    let layers = [simple_layer("shared"), simple_layer(&name)];
                    store.load(&docker_archive(&[&name], &layers)).unwrap();
                    // Another worker may have been faster.
                    let _ = store.store.remove(&name, true, &unused);
                }
            });
        }
    });
    store.check();
}
