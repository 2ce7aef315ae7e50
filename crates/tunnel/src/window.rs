//! Which packet counters a session has seen, so that no packet is taken twice. As RFC 6479 has it: a ring of blocks, of
//! which whole ones are forgotten at a time.

const BLOCK_BITS: u64 = u64::BITS as u64;
/// Blocks in the ring, a power of two. One of them is always in part ahead of the newest counter.
const BLOCKS: u64 = 128;
/// How far behind the newest a packet may be and still be taken, in packets. A way that reorders further than this
/// loses packets.
pub(crate) const WINDOW: u64 = (BLOCKS - 1) * BLOCK_BITS;

/// The counters that were taken.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// One more than the highest counter that was taken.
    next: u64,
    blocks: [u64; BLOCKS as usize],
}

impl Default for Window {
    fn default() -> Window {
        Window { next: 0, blocks: [0; BLOCKS as usize] }
    }
}

impl Window {
    /// A window that takes nothing below `next`.
    pub(crate) fn beginning_at(next: u64) -> Window {
        Window { next, blocks: [u64::MAX; BLOCKS as usize] }.clear_ahead()
    }

    /// One more than the highest counter that was taken.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Whether a counter is new enough and has not been taken.
    pub(crate) fn admits(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter != u64::MAX;
        }
        self.next - counter <= WINDOW && self.blocks[place(counter)] & bit(counter) == 0
    }

    /// Takes a counter that [`Window::admits`], once its packet has proven genuine.
    pub(crate) fn take(&mut self, counter: u64) {
        if counter >= self.next {
            // The block that `next` lies in has been cleared ahead of it, unless `next` begins a block.
            let first = self.next.div_ceil(BLOCK_BITS);
            let last = counter / BLOCK_BITS;
            for block in (first..=last).rev().take(BLOCKS as usize) {
                self.blocks[(block % BLOCKS) as usize] = 0;
            }
            self.next = counter + 1;
        }
        self.blocks[place(counter)] |= bit(counter);
    }

    /// Forgets what the block of `next` says of counters that have not come yet.
    fn clear_ahead(mut self) -> Window {
        let seen = self.next % BLOCK_BITS;
        if seen != 0 {
            self.blocks[place(self.next)] = (1 << seen) - 1;
        }
        self
    }
}

fn place(counter: u64) -> usize {
    (counter / BLOCK_BITS % BLOCKS) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn offer(window: &mut Window, counter: u64) -> bool {
        let admitted = window.admits(counter);
        if admitted {
            window.take(counter);
        }
        admitted
    }

    #[test]
    fn each_counter_is_taken_once_and_the_too_old_never() {
        let mut window = Window::default();
        assert!(offer(&mut window, 0));
        assert!(!offer(&mut window, 0));
        assert!(offer(&mut window, WINDOW));
        assert!(offer(&mut window, 1));
        assert!(!offer(&mut window, 0), "taken");
        assert!(offer(&mut window, 2 * WINDOW));
        assert!(!offer(&mut window, WINDOW), "taken");
        assert!(!offer(&mut window, WINDOW - 1), "too old");
        assert!(offer(&mut window, WINDOW + 1));
        assert!(offer(&mut window, u64::MAX - 1));
        assert!(!offer(&mut window, u64::MAX));
    }

    #[test]
    fn it_agrees_with_a_set_over_a_long_disordered_run() {
        let (mut window, mut taken, mut highest) = (Window::default(), BTreeSet::new(), 0u64);
        let mut state = 7u64;
        for step in 0..200_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let jump = (state >> 33) % if step % 1000 == 0 { 20_000 } else { 90 };
            let counter = match state >> 62 {
                0 => highest.saturating_sub((state >> 40) % (2 * WINDOW)),
                _ => highest + jump,
            };
            let admitted = counter + WINDOW > highest && !taken.contains(&counter);
            assert_eq!(offer(&mut window, counter), admitted, "{counter} after {highest}");
            if admitted {
                taken.insert(counter);
                highest = highest.max(counter);
            }
        }
    }

    #[test]
    fn one_that_begins_later_takes_nothing_from_before() {
        for next in [0, 1, 63, 64, 65, 10_000] {
            let mut window = Window::beginning_at(next);
            assert!((next.saturating_sub(20_000)..next).all(|counter| !window.admits(counter)), "{next}");
            for counter in next..next + 200 {
                assert!(offer(&mut window, counter) && !offer(&mut window, counter), "{counter} from {next}");
            }
        }
    }
}
