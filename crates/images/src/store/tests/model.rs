//! Random operations against a model of what Docker does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{reference, unused};
use crate::ImageId;
use crate::testing::{TestStore, docker_archive, simple_layer};

#[derive(Clone, Debug)]
enum Step {
    Load { image: usize, tags: Vec<usize> },
    Tag { from: usize, to: usize },
    RemoveTag(usize),
    RemoveId { image: usize, force: bool },
    Reopen,
}

const TAGS: [&str; 5] = ["a:1", "a:2", "b:latest", "c/d:1", "host:1/e:latest"];
/// Layers of each image.
const IMAGES: [&[&str]; 4] = [&["p"], &["p", "q"], &["q", "p"], &["p", "q", "r"]];

fn step() -> impl Strategy<Value = Step> {
    let tag = 0..TAGS.len();
    let image = 0..IMAGES.len();
    prop_oneof![
        3 => (image.clone(), prop::collection::vec(tag.clone(), 0..3)).prop_map(|(image, tags)| Step::Load { image, tags }),
        2 => (tag.clone(), tag.clone()).prop_map(|(from, to)| Step::Tag { from, to }),
        2 => tag.prop_map(Step::RemoveTag),
        2 => (image, any::<bool>()).prop_map(|(image, force)| Step::RemoveId { image, force }),
        1 => Just(Step::Reopen),
    ]
}

/// What should be there.
#[derive(Default)]
struct Model {
    images: Vec<ImageId>,
    tags: BTreeMap<&'static str, ImageId>,
}

impl Model {
    fn tags_of(&self, id: ImageId) -> Vec<String> {
        self.tags.iter().filter(|(_, known)| **known == id).map(|(tag, _)| (*tag).to_owned()).collect()
    }

    fn remove(&mut self, id: ImageId) {
        self.images.retain(|known| *known != id);
        self.tags.retain(|_, known| *known != id);
    }
}

fn perform(store: TestStore, model: &mut Model, ids: &mut [Option<ImageId>], step: Step) -> TestStore {
    match step {
        Step::Load { image, tags } => {
            let layers: Vec<Vec<u8>> = IMAGES[image].iter().map(|name| simple_layer(name)).collect();
            let names: Vec<&'static str> = tags.iter().map(|tag| TAGS[*tag]).collect();
            let id = store.load(&docker_archive(&names, &layers)).unwrap()[0].id;
            ids[image] = Some(id);
            model.remove_id_only(id);
            model.images.push(id);
            model.tags.extend(names.into_iter().map(|name| (name, id)));
        }
        Step::Tag { from, to } => {
            let tagged = store.store.tag(TAGS[from], &reference(TAGS[to]));
            assert_eq!(tagged.is_ok(), model.tags.contains_key(TAGS[from]));
            if let Some(id) = model.tags.get(TAGS[from]).copied() {
                model.tags.insert(TAGS[to], id);
            }
        }
        Step::RemoveTag(tag) => {
            let removed = store.store.remove(TAGS[tag], false, &unused);
            assert_eq!(removed.is_ok(), model.tags.contains_key(TAGS[tag]));
            if let Some(id) = model.tags.remove(TAGS[tag])
                && model.tags_of(id).is_empty()
            {
                model.remove(id);
            }
        }
        Step::RemoveId { image, force } => {
            let Some(id) = ids[image] else { return store };
            let removed = store.store.remove(&id.to_string(), force, &unused);
            let expected = model.images.contains(&id) && (force || model.tags_of(id).len() <= 1);
            assert_eq!(removed.is_ok(), expected);
            if expected {
                model.remove(id);
            }
        }
        Step::Reopen => return store.reopen(),
    }
    store
}

impl Model {
    fn remove_id_only(&mut self, id: ImageId) {
        self.images.retain(|known| *known != id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..20)) {
        let mut store = TestStore::new();
        let mut model = Model::default();
        let mut ids = [None; IMAGES.len()];
        for step in steps {
            store = perform(store, &mut model, &mut ids, step);
            store.check();
            let images = store.store.list().unwrap();
            prop_assert_eq!(images.len(), model.images.len());
            for image in images {
                prop_assert!(model.images.contains(&image.id));
                prop_assert_eq!(image.tags, model.tags_of(image.id));
            }
        }
    }
}
