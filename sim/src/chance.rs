//! The seed's randomness.

use std::time::Duration;

use skep_types::Ids;

/// A sequence of choices.
#[derive(Clone, Debug)]
pub(crate) struct Chance(Ids);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(Ids::new(u128::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    /// Whether something that happens in `permille` of a thousand cases happens.
    pub fn happens(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A time between the two, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(1000 * from + self.below(1000 * (to - from) + 1))
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }
}
