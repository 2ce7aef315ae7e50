//! A set of numbers that mostly follow each other: a service's slots. It takes as much memory as it has gaps.

use std::collections::BTreeMap;

/// The set, as ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The last number of each range, by its first.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl Numbers {
    /// How many numbers there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The numbers from `first` that are not in the set, in order. It has none below.
    pub fn free(&self, first: u64) -> impl Iterator<Item = u64> {
        let starts = std::iter::once(first).chain(self.ranges.values().map(|last| last.saturating_add(1)));
        let ends = self.ranges.keys().copied().chain(std::iter::once(u64::MAX));
        starts.zip(ends).flat_map(|(start, end)| start..end)
    }

    /// Adds a number.
    pub fn insert(&mut self, number: u64) {
        let before = self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            return;
        }
        self.len += 1;
        // The range that ends just before goes on; the one that begins just after is joined to it.
        let first = before.filter(|(_, last)| last + 1 == number).map_or(number, |(first, _)| first);
        let after = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(first, after.unwrap_or(number));
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u64) {
        let range = self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last));
        let Some((first, last)) = range.filter(|(_, last)| *last >= number) else { return };
        self.len -= 1;
        self.ranges.remove(&first);
        if first < number {
            self.ranges.insert(first, number - 1);
        }
        if number < last {
            self.ranges.insert(number + 1, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 1u64..20), 0..60)) {
            let (mut numbers, mut model) = (Numbers::default(), BTreeSet::new());
            for (adds, number) in steps {
                if adds {
                    numbers.insert(number);
                    model.insert(number);
                } else {
                    numbers.remove(number);
                    model.remove(&number);
                }
                prop_assert!(numbers.iter().eq(model.iter().copied()));
                prop_assert_eq!(numbers.len(), model.len() as u64);
                prop_assert_eq!(numbers.is_empty(), model.is_empty());
                let free = numbers.free(1).take(20);
                prop_assert!(free.eq((1..).filter(|number| !model.contains(number)).take(20)));
                // One way to write each set.
                let mut again = Numbers::default();
                model.iter().for_each(|number| again.insert(*number));
                prop_assert_eq!(&again, &numbers);
            }
        }
    }
}
