//! The order in which nodes are taken: by the preferences first, then the least loaded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use skep_types::NodeId;

/// A node's place among the nodes that nothing is preferred of; the lowest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Recent failures of the service's tasks there, where there were many.
    pub failures: u64,
    /// The service's tasks there.
    pub of_service: u64,
    /// All tasks there.
    pub tasks: u64,
    /// What is free there: see [`super::candidates`].
    pub free: Reverse<i64>,
    /// What is left to tell them apart.
    pub node: NodeId,
}

/// Nodes by what preferences ask for: a tree of one level for each preference, its branches the values of the label.
#[derive(Debug)]
pub(crate) enum Tree {
    /// Nodes that no preference tells apart.
    Leaf(BinaryHeap<Reverse<Rank>>),
    /// Nodes by one label's value. What has the fewest of the service's tasks comes first, then what has the better
    /// node.
    Fork { order: BinaryHeap<Reverse<(u64, Rank, usize)>>, branches: Vec<Tree> },
}

/// A tree in the making.
#[derive(Debug, Default)]
pub(crate) struct Saplings<'n> {
    tasks: u64,
    leaf: Vec<Reverse<Rank>>,
    branches: BTreeMap<&'n str, Saplings<'n>>,
}

impl<'n> Saplings<'n> {
    /// Adds a node below what it has of each label. Its tasks count also where it takes none (`rank` is `None`), as
    /// in SwarmKit.
    pub fn add(&mut self, values: impl Iterator<Item = &'n str>, of_service: u64, rank: Option<Rank>) {
        let mut here = self;
        here.tasks += of_service;
        for value in values {
            here = here.branches.entry(value).or_default();
            here.tasks += of_service;
        }
        here.leaf.extend(rank.map(Reverse));
    }

    pub fn grow(self) -> Tree {
        if self.branches.is_empty() {
            // A heap is made of all at once in less time than one by one.
            return Tree::Leaf(BinaryHeap::from(self.leaf));
        }
        let (mut order, mut branches) = (BinaryHeap::new(), Vec::new());
        for below in self.branches.into_values() {
            let tasks = below.tasks;
            let branch = below.grow();
            if let Some(best) = branch.best() {
                order.push(Reverse((tasks, best, branches.len())));
                branches.push(branch);
            }
        }
        Tree::Fork { order, branches }
    }
}

impl Tree {
    /// The rank of the node that is taken next.
    fn best(&self) -> Option<Rank> {
        match self {
            Tree::Leaf(ranks) => ranks.peek().map(|Reverse(rank)| *rank),
            Tree::Fork { order, .. } => order.peek().map(|Reverse((_, best, _))| *best),
        }
    }

    /// Takes the best node. `place` puts a task there and gives the node's rank after that; none if it is full.
    ///
    /// SwarmKit divides a number of tasks among the branches at each level; one after the other to the branch that
    /// has the fewest comes to the same.
    pub fn take(&mut self, place: &mut impl FnMut(NodeId) -> Option<Rank>) -> Option<NodeId> {
        match self {
            Tree::Leaf(ranks) => {
                let Reverse(Rank { node, .. }) = ranks.pop()?;
                ranks.extend(place(node).map(Reverse));
                Some(node)
            }
            Tree::Fork { order, branches } => {
                let Reverse((tasks, _, number)) = order.pop()?;
                let branch = branches.get_mut(number)?;
                let node = branch.take(place)?;
                order.extend(branch.best().map(|best| Reverse((tasks + 1, best, number))));
                Some(node)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rank(node: u128, of_service: u64) -> Rank {
        Rank { failures: 0, of_service, tasks: of_service, free: Reverse(0), node: NodeId(node) }
    }

    proptest! {
        /// However the nodes and their tasks lie, what was placed leaves branches that have room as even as can be.
        #[test]
        fn branches_with_room_end_even(
            nodes in prop::collection::vec((0u8..3, 0u8..3, 0u64..4, 0u64..5), 1..12),
            count in 0usize..30,
        ) {
            let names = ["a", "b", "c"];
            let mut saplings = Saplings::default();
            let mut tasks: BTreeMap<u128, u64> = BTreeMap::new();
            let of = |number: u128| nodes[usize::try_from(number).expect("small")];
            for (number, (one, two, has, room)) in (0u128..).zip(nodes.iter().copied()) {
                let values = [names[usize::from(one)], names[usize::from(two)]];
                saplings.add(values.into_iter(), has, (room > 0).then(|| rank(number, has)));
                tasks.insert(number, has);
            }
            let mut tree = saplings.grow();
            for _ in 0..count {
                let mut place = |node: NodeId| {
                    let now = tasks.get_mut(&node.0).expect("a node that was added");
                    *now += 1;
                    let (_, _, had, room) = of(node.0);
                    (*now < had + room).then(|| rank(node.0, *now))
                };
                if tree.take(&mut place).is_none() {
                    break;
                }
            }
            let sum = |one: u8, two: Option<u8>| {
                let inside = |number: &u128| of(*number).0 == one && two.is_none_or(|two| of(*number).1 == two);
                let all = tasks.iter().filter(|(number, _)| inside(number));
                let had = (0u128..).take(nodes.len()).filter(inside).map(|number| of(number).2).sum::<u64>();
                let has_room = all.clone().any(|(number, now)| *now < of(*number).2 + of(*number).3);
                let now: u64 = all.map(|(_, now)| now).sum();
                (now, now > had, has_room)
            };
            // Nobody got one while another that had fewer, by more than one, had room.
            let mut levels: Vec<Vec<(u64, bool, bool)>> = vec![(0..3).map(|one| sum(one, None)).collect()];
            levels.extend((0..3).map(|one| (0..3).map(|two| sum(one, Some(two))).collect()));
            for level in levels {
                let least = level.iter().filter(|(_, _, room)| *room).map(|(now, _, _)| *now).min();
                let most = level.iter().filter(|(_, got, _)| *got).map(|(now, _, _)| *now).max();
                if let (Some(least), Some(most)) = (least, most) {
                    prop_assert!(most <= least + 1, "{most} > {least} + 1");
                }
            }
        }
    }
}
