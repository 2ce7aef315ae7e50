//! Images that are made here.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{reference, unused, used, with_image};
use crate::testing::{TestStore, docker_archive, simple_layer};
use crate::{Above, Digest, ImageConfig, ImageId, InUse, NewImage, Prune, RemoveError, Removed};

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
    let order = removed.iter().filter(|step| matches!(step, Removed::Deleted(_)));
    assert_eq!(order.cloned().collect::<Vec<_>>(), [two, one].map(Removed::Deleted));
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

/// All images of a store.
fn all(store: &TestStore) -> BTreeSet<ImageId> {
    store.store.list().unwrap().iter().map(|image| image.id).collect()
}

/// The images that pruning takes.
fn pruned(
    store: &TestStore,
    candidates: &BTreeSet<ImageId>,
    which: Prune,
    in_use: &dyn Fn(&ImageId) -> Option<InUse>,
) -> BTreeSet<ImageId> {
    let before = store.store.usage().size;
    let (removed, bytes) = store.store.prune(candidates, which, in_use).unwrap();
    assert_eq!(bytes, before - store.store.usage().size);
    store.check();
    let image = |step: Removed| match step {
        Removed::Deleted(id) => Some(id),
        Removed::Untagged { .. } | Removed::Layer(_) => None,
    };
    removed.into_iter().filter_map(image).collect()
}

#[test]
fn the_cache_of_builds_is_pruned() {
    let (store, base) = with_image(&["base"]);
    let one = build(&store, Some(base), "one");
    let two = build(&store, Some(one), "two");
    let three = build(&store, Some(base), "three");
    store.store.tag(&three.to_string(), &reference("made")).unwrap();
    assert_eq!(pruned(&store, &all(&store), Prune::Steps, &used(false)), BTreeSet::new());
    assert_eq!(pruned(&store, &[base, three].into(), Prune::Steps, &unused), BTreeSet::new());
    assert_eq!(pruned(&store, &all(&store), Prune::Steps, &unused), [one, two].into());
    assert!(store.store.find("made").is_ok() && store.store.find("base").is_ok());
}

#[test]
fn pruning_spares_what_is_named_used_held_or_built_upon() {
    let (store, base) = with_image(&["base"]);
    let one = build(&store, Some(base), "one");
    let two = build(&store, Some(one), "two");
    let other = store.load(&docker_archive(&["other", "again"], &[simple_layer("low")])).unwrap()[0].id;
    let nameless = store.load(&docker_archive(&[], &[simple_layer("lost")])).unwrap()[0].id;
    assert_eq!(pruned(&store, &[base, other].into(), Prune::Dangling, &unused), BTreeSet::new());
    // What a container uses keeps all that it was made from, and its names.
    let user = |id: &ImageId| (*id == two || *id == other).then(|| used(false)(id)).flatten();
    assert_eq!(pruned(&store, &all(&store), Prune::Unused, &user), [nameless].into());
    assert_eq!(store.store.find("other").unwrap().tags.len(), 2);
    let hold = store.store.hold();
    assert!(hold.add(two) && hold.add(other) && !hold.add(nameless));
    assert_eq!(pruned(&store, &all(&store), Prune::Unused, &unused), BTreeSet::new());
    let refused = store.store.remove(&two.to_string(), true, &unused).unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
    assert_eq!(store.store.remove("again", false, &unused).unwrap().len(), 1);
    drop(hold);
    // With the last image on it goes a step; what has a name only if it is meant.
    assert_eq!(pruned(&store, &[two].into(), Prune::Dangling, &unused), [one, two].into());
    assert_eq!(pruned(&store, &all(&store), Prune::Unused, &unused), [base, other].into());
    assert_eq!(store.store.usage(), crate::Usage::default());
}

#[test]
fn what_a_build_just_made_is_held() {
    let (store, base) = with_image(&["base"]);
    let hold = store.store.hold();
    let made = hold.make_image(&step(Some(base), "one"), Above::Nothing).unwrap();
    assert_eq!(pruned(&store, &all(&store), Prune::Unused, &unused), BTreeSet::new());
    assert_eq!(hold.cached(Some(base), Digest::of(b"one")), Some(made));
    drop(hold);
    assert_eq!(pruned(&store, &all(&store), Prune::Unused, &unused), [base, made].into());
}

#[test]
fn shared_layers_are_told_apart_from_unique_ones() {
    let (store, base) = with_image(&["base"]);
    let made = build(&store, Some(base), "one");
    let other =
        store.load(&docker_archive(&["other"], &[simple_layer("low"), simple_layer("mine")])).unwrap()[0].id;
    // Both layers of the base are the step's too; "low" is everybody's.
    assert_eq!(store.store.shared_sizes(&[base, made, other]), [7, 7, 3]);
    assert_eq!(store.store.shared_sizes(&[base, other]), [3, 3]);
    assert_eq!(store.store.shared_sizes(&[made]), [0]);
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
