//! Which machines hear each other.

use std::collections::BTreeSet;

/// Directed connections that are cut, by the machines' numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    cut: BTreeSet<(usize, usize)>,
}

impl Links {
    /// Whether what `from` says arrives at `to`.
    pub fn carries(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// Whether they can talk.
    pub fn both(&self, one: usize, other: usize) -> bool {
        self.carries(one, other) && self.carries(other, one)
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.cut.insert((from, to));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }
}
