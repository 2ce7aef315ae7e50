//! Images that are made here.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{reference, unused, used, with_image};
use crate::testing::TestStore;
use crate::{Above, Digest, ImageConfig, ImageId, NewImage, RemoveError, Removed};

fn step(parent: Option<ImageId>, name: &str) -> NewImage {
    NewImage {
        parent,
        created_by: name.to_owned(),
        config: ImageConfig { user: name.to_owned(), ..ImageConfig::default() },
        step: Some(Digest::of(name.as_bytes())),
        ..NewImage::default()
    }
}

fn write(root: BorrowedFd<'_>, name: &str, content: &[u8]) {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
    let file = rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(file, content).unwrap();
}

fn build(store: &TestStore, parent: Option<ImageId>, name: &str) -> ImageId {
    let draft = store.store.draft(parent).unwrap();
    write(draft.root(), name, b"content");
    store.store.make_image(&step(parent, name), Above::Draft(draft)).unwrap()
}

#[test]
fn what_is_written_to_a_draft_becomes_a_layer() {
    let (store, base) = with_image(&["base"]);
    let draft = store.store.draft(Some(base)).unwrap();
    write(draft.root(), "new", b"12345");
    rustix::fs::unlinkat(draft.root(), "low", AtFlags::empty()).unwrap();
    let made = store.store.make_image(&step(Some(base), "one"), Above::Draft(draft)).unwrap();
    let image = store.store.find(&made.to_string()).unwrap();
    let below = store.store.find("base").unwrap();
    assert_eq!(image.layers[..2], below.layers);
    assert_eq!((image.layers.len(), image.parent), (3, Some(base)));
    assert_eq!(image.size, below.size + 5);
    let last = image.history.last().unwrap();
    assert_eq!((last.created_by.as_str(), last.empty_layer, last.size), ("one", false, 5));
    assert_eq!(image.config.user, "one");
    let draft = store.store.draft(Some(made)).unwrap();
    assert!(rustix::fs::statat(draft.root(), "new", AtFlags::empty()).is_ok());
    assert!(rustix::fs::statat(draft.root(), "low", AtFlags::empty()).is_err());
    drop(draft);
    let mut archive = Vec::new();
    let layer = store.store.layer_archive(&made, 2).unwrap();
    std::io::Read::read_to_end(&mut { layer }, &mut archive).unwrap();
    assert_eq!(Digest::of(&archive), image.layers[2].0, "it can be pushed");
    let store = store.reopen();
    assert_eq!(store.store.find(&made.to_string()).unwrap(), image);
    store.check();
}

#[test]
fn nothing_written_is_no_layer() {
    let (store, base) = with_image(&["base"]);
    let draft = store.store.draft(Some(base)).unwrap();
    let made = store.store.make_image(&step(Some(base), "one"), Above::Draft(draft)).unwrap();
    let image = store.store.find(&made.to_string()).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert!(image.history.last().unwrap().empty_layer);
    let scratch = build(&store, None, "first");
    assert_eq!(store.store.find(&scratch.to_string()).unwrap().layers.len(), 1);
    store.check();
}

#[test]
fn a_folder_of_a_container_is_taken_or_copied() {
    let (store, base) = with_image(&["base"]);
    let folder = store.folder.path().join("upper");
    let make = |above: &dyn Fn(&Path) -> Above<'static>| {
        let _ = std::fs::create_dir(&folder);
        std::fs::write(folder.join("x"), "x").unwrap();
        store.store.make_image(&step(Some(base), "x"), above(&folder)).unwrap()
    };
    let copied = make(&|folder| Above::Copied(folder.to_owned(), Box::new(|_| Ok(()))));
    assert!(folder.join("x").exists());
    let taken = make(&|folder| Above::Taken(folder.to_owned()));
    assert_eq!(copied, taken);
    store.check();
}

#[test]
fn steps_are_found_again_until_they_are_removed() {
    let (store, base) = with_image(&["base"]);
    let one = build(&store, Some(base), "one");
    let two = build(&store, Some(one), "two");
    let key = |name: &str| Digest::of(name.as_bytes());
    assert_eq!(store.store.cached(Some(base), key("one")), Some(one));
    assert_eq!(store.store.cached(Some(one), key("two")), Some(two));
    assert_eq!(store.store.cached(Some(base), key("two")), None);
    assert_eq!(store.store.cached(None, key("one")), None);
    store.store.tag(&two.to_string(), &reference("made")).unwrap();
    let refused = store.store.remove(&one.to_string(), true, &unused).unwrap_err();
    assert!(matches!(refused, RemoveError::Children { .. }), "{refused}");
    // The base is named, what is between goes.
    let removed = store.store.remove("made", false, &unused).unwrap();
    let deleted = |id: ImageId| Removed::Deleted(id.to_string());
    assert!(removed.contains(&deleted(two)) && removed.contains(&deleted(one)));
    assert!(store.store.find("base").is_ok());
    assert_eq!(store.store.cached(Some(base), key("one")), None);
    store.check();
}

#[test]
fn a_base_that_was_built_upon_loses_but_its_name() {
    let (store, base) = with_image(&["base"]);
    let one = build(&store, Some(base), "one");
    assert_eq!(store.store.remove("base", false, &unused).unwrap().len(), 1);
    assert!(store.store.find(&base.to_string()).is_ok());
    store.store.remove(&one.to_string(), false, &unused).unwrap();
    assert!(store.store.list().unwrap().is_empty());
    store.check();
}

#[test]
fn pruning_takes_what_nobody_named_or_needs() {
    let (store, base) = with_image(&["base"]);
    let one = build(&store, Some(base), "one");
    let two = build(&store, Some(one), "two");
    let three = build(&store, Some(base), "three");
    store.store.tag(&three.to_string(), &reference("made")).unwrap();
    assert_eq!(store.store.prune_steps(&used(false)).unwrap(), (Vec::new(), 0));
    let (removed, bytes) = store.store.prune_steps(&unused).unwrap();
    assert_eq!(removed, [two, one].map(|id| Removed::Deleted(id.to_string())));
    assert_eq!(bytes, 14);
    assert!(store.store.find("made").is_ok() && store.store.find("base").is_ok());
    store.check();
}

#[test]
fn layers_outlive_their_image_while_a_draft_reads_them() {
    let (store, base) = with_image(&["base"]);
    let draft = store.store.draft(Some(base)).unwrap();
    store.store.remove("base", false, &unused).unwrap();
    assert!(rustix::fs::statat(draft.root(), "low", AtFlags::empty()).is_ok());
    let refused = store.store.make_image(&step(Some(base), "one"), Above::Draft(draft)).unwrap_err();
    assert_eq!(refused.to_string(), format!("No such image: {base}"));
    store.check();
}
