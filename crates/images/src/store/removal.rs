//! Docker's rules for `docker rmi`, and what `docker image prune` takes.

use std::collections::{BTreeMap, BTreeSet};

use super::Shared;
use crate::error::RemoveError;
use crate::state::{Layer, Record, State, chain_ids};
use crate::{DiffId, Digest, ImageId, InUse, Prune, Reference, Removed, Target};

/// Who needs an image, other images aside.
pub(super) struct Users<'a> {
    /// The containers.
    pub(super) containers: &'a dyn Fn(&ImageId) -> Option<InUse>,
    /// Images that somebody works with; see [`super::Hold`].
    pub(super) held: &'a BTreeMap<ImageId, usize>,
}

impl Users<'_> {
    fn need(&self, id: ImageId) -> bool {
        self.held.contains_key(&id) || (self.containers)(&id).is_some()
    }
}

/// A step of a removal.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Untagged(Reference, ImageId),
    Deleted(ImageId),
}

/// Takes `name`, which means the image `id`, out of the state, and the image too where that is meant.
pub(super) fn plan(
    state: &mut State,
    id: ImageId,
    name: &str,
    force: bool,
    users: &Users<'_>,
) -> Result<Vec<Step>, RemoveError> {
    if is_id_prefix(id, name) {
        plan_by_id(state, id, force, users)
    } else {
        plan_by_reference(state, id, name, force, users)
    }
}

/// As Docker: a reference counts as an id where it could be a prefix of that image's.
fn is_id_prefix(id: ImageId, name: &str) -> bool {
    id.to_string().starts_with(name) || id.0.hex().starts_with(name)
}

fn plan_by_reference(
    state: &mut State,
    id: ImageId,
    name: &str,
    force: bool,
    users: &Users<'_>,
) -> Result<Vec<Step>, RemoveError> {
    if !force
        && is_single(&state.references_to(id))
        && let Some(InUse { container, .. }) = (users.containers)(&id)
    {
        return Err(RemoveError::ReferenceInUse { name: name.to_owned(), container, id });
    }
    let reference: Reference = name.parse().map_err(crate::FindError::from)?;
    let mut removed = vec![untag(state, &reference, id)];
    let mut left = state.references_to(id);
    let same_repository = |other: &Reference| other.repository() == reference.repository();
    // With a repository's last tag go its digests.
    if reference.tag().is_some() && !left.iter().any(|other| other.tag().is_some() && same_repository(other))
    {
        left.retain(|other| {
            let goes = other.digest().is_some() && same_repository(other);
            if goes {
                removed.push(untag(state, other, id));
            }
            !goes
        });
    }
    if !left.is_empty() {
        return Ok(removed);
    }
    // A container may still need the image, and forcing took but its name: then it stays, nameless.
    let needed = (users.containers)(&id).is_some_and(|user| user.running || !force)
        || users.held.contains_key(&id)
        || state.has_children(id);
    if !needed {
        removed.extend(delete(state, id, users));
    }
    Ok(removed)
}

fn plan_by_id(
    state: &mut State,
    id: ImageId,
    force: bool,
    users: &Users<'_>,
) -> Result<Vec<Step>, RemoveError> {
    if state.has_children(id) {
        return Err(RemoveError::Children { id });
    }
    if users.held.contains_key(&id) {
        return Err(RemoveError::Held { id });
    }
    match (users.containers)(&id) {
        Some(InUse { container, running: true }) => return Err(RemoveError::Running { id, container }),
        // As Docker: many names are told before a stopped container is.
        _ if !force && !is_single(&state.references_to(id)) => {
            return Err(RemoveError::ManyReferences { id });
        }
        Some(InUse { container, running: false }) if !force => {
            return Err(RemoveError::Stopped { id, container });
        }
        _ => {}
    }
    let mut removed: Vec<Step> =
        state.references_to(id).iter().map(|reference| untag(state, reference, id)).collect();
    removed.extend(delete(state, id, users));
    Ok(removed)
}

fn untag(state: &mut State, reference: &Reference, id: ImageId) -> Step {
    state.references.remove(reference);
    Step::Untagged(reference.clone(), id)
}

/// Deletes an image, and those that it was made from as far as nobody named or needs them.
fn delete(state: &mut State, id: ImageId, users: &Users<'_>) -> Vec<Step> {
    let (mut removed, mut next) = (Vec::new(), Some(id));
    while let Some(record) = next.and_then(|id| state.images.remove(&id)) {
        removed.extend(next.map(Step::Deleted));
        next = record.parent.filter(|parent| {
            state.references_to(*parent).is_empty() && !state.has_children(*parent) && !users.need(*parent)
        });
    }
    removed
}

/// Deletes those of `candidates` that `which` means and nobody needs. What another image was made from stays with that; with
/// the last such image goes what has no name.
pub(super) fn prune(
    state: &mut State,
    candidates: &BTreeSet<ImageId>,
    which: Prune,
    users: &Users<'_>,
) -> Vec<Step> {
    let mut children: BTreeMap<ImageId, usize> = BTreeMap::new();
    for parent in state.images.values().filter_map(|record| record.parent) {
        *children.entry(parent).or_default() += 1;
    }
    let mut names: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
    for (reference, id) in &state.references {
        names.entry(*id).or_default().push(reference.clone());
    }
    let is_meant = |record: &Record| which != Prune::Steps || record.step.is_some();
    let meant = candidates.iter().filter(|id| state.images.get(id).is_some_and(is_meant));
    let mut left: Vec<ImageId> = meant.copied().collect();
    let mut steps = Vec::new();
    while let Some(id) = left.pop() {
        let own = names.get(&id).map(Vec::as_slice).unwrap_or_default();
        let fits = match which {
            Prune::Dangling => own.iter().all(|name| name.tag().is_none()),
            Prune::Unused => true,
            Prune::Steps => own.is_empty(),
        };
        // One with children comes again with the last of them.
        if !fits || children.get(&id).is_some_and(|count| *count > 0) || users.need(id) {
            continue;
        }
        steps.extend(own.iter().map(|reference| untag(state, reference, id)));
        let Some(record) = state.images.remove(&id) else { continue };
        steps.push(Step::Deleted(id));
        if let Some((parent, count)) = record.parent.and_then(|id| Some((id, children.get_mut(&id)?))) {
            *count -= 1;
            if *count == 0 && (candidates.contains(&parent) || !names.contains_key(&parent)) {
                left.push(parent);
            }
        }
    }
    steps
}

/// Whether the references are one, or one tag and digests of its repository.
fn is_single(references: &[Reference]) -> bool {
    let Some(first) = references.first() else { return true };
    let tags = references.iter().filter(|reference| matches!(reference.target(), Target::Tag(_))).count();
    let one_repository = references.iter().all(|reference| reference.repository() == first.repository());
    references.len() == 1 || (tags <= 1 && one_repository)
}

/// What a removal does, in Docker's words, and the bytes of files that go from the disk. A layer goes with the last image
/// that has it, unless something counts on it for the moment. `shared` is as before the removal.
pub(super) fn tell(shared: &Shared, steps: Vec<Step>) -> (Vec<Removed>, u64) {
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for record in shared.state.images.values() {
        for folder in distinct(record) {
            *users.entry(folder).or_default() += 1;
        }
    }
    let (mut told, mut bytes) = (Vec::with_capacity(steps.len()), 0u64);
    for step in steps {
        let id = match step {
            Step::Untagged(reference, image) => {
                told.push(Removed::Untagged { name: reference.familiar(), image });
                continue;
            }
            Step::Deleted(id) => id,
        };
        told.push(Removed::Deleted(id));
        let Some(record) = shared.state.images.get(&id) else { continue };
        let mut gone = BTreeSet::new();
        for folder in distinct(record) {
            let count = users.entry(folder).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 && !shared.pins.contains_key(folder) {
                gone.insert(folder);
            }
        }
        for (chain_id, layer) in chain(&record.layers) {
            if gone.remove(layer.folder.as_str()) {
                told.push(Removed::Layer(chain_id));
                bytes = bytes.saturating_add(layer.size);
            }
        }
    }
    (told, bytes)
}

/// The folders of an image's layers, each once.
fn distinct(record: &Record) -> BTreeSet<&str> {
    record.layers.iter().map(|layer| layer.folder.as_str()).collect()
}

/// Layers with Docker's names for them, topmost first.
fn chain(layers: &[Layer]) -> impl Iterator<Item = (Digest, &Layer)> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    chain_ids(&diff_ids).into_iter().zip(layers).rev()
}
