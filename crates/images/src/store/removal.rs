//! Docker's rules for `docker rmi`.

use crate::error::RemoveError;
use crate::state::{Record, State, chain_ids};
use crate::{DiffId, ImageId, InUse, Reference, Removed, Target};

/// Takes `name`, which means the image `id`, out of the state, and the image too where that is meant.
pub(super) fn plan(
    state: &mut State,
    id: ImageId,
    name: &str,
    force: bool,
    in_use: &dyn Fn(&ImageId) -> Option<InUse>,
) -> Result<Vec<Removed>, RemoveError> {
    if is_id_prefix(id, name) {
        plan_by_id(state, id, force, in_use)
    } else {
        plan_by_reference(state, id, name, force, in_use)
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
    in_use: &dyn Fn(&ImageId) -> Option<InUse>,
) -> Result<Vec<Removed>, RemoveError> {
    if !force
        && is_single(&state.references_to(id))
        && let Some(InUse { container, .. }) = in_use(&id)
    {
        return Err(RemoveError::ReferenceInUse { name: name.to_owned(), container, id });
    }
    let reference: Reference = name.parse().map_err(crate::FindError::from)?;
    let mut removed = vec![untag(state, &reference)];
    let mut left = state.references_to(id);
    let same_repository = |other: &Reference| other.repository() == reference.repository();
    // With a repository's last tag go its digests.
    if reference.tag().is_some() && !left.iter().any(|other| other.tag().is_some() && same_repository(other))
    {
        left.retain(|other| {
            let goes = other.digest().is_some() && same_repository(other);
            if goes {
                removed.push(untag(state, other));
            }
            !goes
        });
    }
    if !left.is_empty() {
        return Ok(removed);
    }
    // A container may still need the image, and forcing took but its name: then it stays, nameless.
    let needed = in_use(&id).is_some_and(|user| user.running || !force) || state.has_children(id);
    if !needed {
        removed.extend(delete(state, id, in_use));
    }
    Ok(removed)
}

fn plan_by_id(
    state: &mut State,
    id: ImageId,
    force: bool,
    in_use: &dyn Fn(&ImageId) -> Option<InUse>,
) -> Result<Vec<Removed>, RemoveError> {
    if state.has_children(id) {
        return Err(RemoveError::Children { id });
    }
    match in_use(&id) {
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
    let mut removed: Vec<Removed> =
        state.references_to(id).iter().map(|reference| untag(state, reference)).collect();
    removed.extend(delete(state, id, in_use));
    Ok(removed)
}

fn untag(state: &mut State, reference: &Reference) -> Removed {
    state.references.remove(reference);
    Removed::Untagged(reference.familiar())
}

/// Deletes an image, and those that it was made from as far as nobody named or needs them.
fn delete(state: &mut State, id: ImageId, in_use: &dyn Fn(&ImageId) -> Option<InUse>) -> Vec<Removed> {
    let (mut removed, mut next) = (Vec::new(), Some(id));
    while let Some(record) = next.and_then(|id| state.images.remove(&id)) {
        removed.extend(next.map(|id| Removed::Deleted(id.to_string())));
        next = record.parent.filter(|parent| {
            state.references_to(*parent).is_empty()
                && !state.has_children(*parent)
                && in_use(parent).is_none()
        });
    }
    removed
}

/// Deletes what builds made that nobody named, needs, or built upon.
pub(super) fn prune_steps(state: &mut State, in_use: &dyn Fn(&ImageId) -> Option<InUse>) -> Vec<Removed> {
    let parents: std::collections::BTreeSet<ImageId> =
        state.images.values().filter_map(|record| record.parent).collect();
    let ends = state.images.iter().filter(|(id, record)| record.step.is_some() && !parents.contains(id));
    let ends: Vec<ImageId> = ends.map(|(id, _)| *id).collect();
    let mut removed = Vec::new();
    for id in ends {
        if state.references_to(id).is_empty() && in_use(&id).is_none() {
            removed.extend(delete(state, id, in_use));
        }
    }
    removed
}

/// Whether the references are one, or one tag and digests of its repository.
fn is_single(references: &[Reference]) -> bool {
    let Some(first) = references.first() else { return true };
    let tags = references.iter().filter(|reference| matches!(reference.target(), Target::Tag(_))).count();
    let one_repository = references.iter().all(|reference| reference.repository() == first.repository());
    references.len() == 1 || (tags <= 1 && one_repository)
}

/// The layers of the image `id` that a removal took from the disk, topmost first, by Docker's names.
pub(super) fn removed_layers(before: &State, after: &State, id: ImageId) -> Vec<Removed> {
    let gone: Option<&Record> = before.images.get(&id).filter(|_| !after.images.contains_key(&id));
    let layers = gone.map(|record| record.layers.as_slice()).unwrap_or_default();
    let kept = after.folders();
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    let chain = chain_ids(&diff_ids).into_iter().zip(layers).rev();
    chain
        .filter(|(_, layer)| !kept.contains(layer.folder.as_str()))
        .map(|(chain_id, _)| Removed::Deleted(chain_id.to_string()))
        .collect()
}
