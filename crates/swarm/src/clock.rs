//! The time that brains are told: it goes on whatever becomes of the system's clock, and follows that slowly.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use skep_types::Time;

/// A clock that is so far ahead was never right (a machine without a battery, before it asked for the time): its
/// time is taken over at once.
const LEAP: Duration = Duration::from_secs(24 * 3600);

/// Gives times that never fall nor jump when somebody sets the system's clock: delays end after at least half and
/// at most twice their time, while the times that users see come right again.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    latest: Mutex<Option<(Time, Instant)>>,
}

impl Clock {
    /// The time now.
    pub(crate) fn now(&self) -> Time {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, now) = (SystemTime::now().into(), Instant::now());
        let time =
            latest.map_or(wall, |(last, read)| advance(last, now.saturating_duration_since(read), wall));
        *latest = Some((time, now));
        time
    }
}

/// The time so long after `last`, at half to double speed until it meets the wall's.
fn advance(last: Time, passed: Duration, wall: Time) -> Time {
    let right = last + passed;
    if wall.since(right) > LEAP {
        return wall;
    }
    // What differs less is the wall clock itself being put right, little by little.
    wall.clamp(last + passed / 2, last + passed * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const NOON: Time = Time(1_700_000_000_000_000_000);

    #[test]
    fn a_clock_that_is_right_is_followed() {
        assert_eq!(advance(NOON, SECOND, NOON + SECOND), NOON + SECOND);
        let slewed = NOON + Duration::from_millis(999);
        assert_eq!(advance(NOON, SECOND, slewed), slewed);
    }

    #[test]
    fn time_goes_on_when_the_clock_is_set_back_and_comes_right_again() {
        let (mut time, mut wall) = (NOON, NOON - HOUR);
        let mut hours = 0;
        while time > wall {
            let before = time;
            wall = wall + HOUR;
            time = advance(time, HOUR, wall);
            hours += 1;
            assert!(time >= before + HOUR / 2);
        }
        assert_eq!((time, hours), (wall, 2));
    }

    #[test]
    fn delays_end_early_by_no_more_than_half_when_the_clock_is_set_ahead() {
        assert_eq!(advance(NOON, SECOND, NOON + HOUR), NOON + SECOND * 2);
        assert_eq!(advance(NOON, HOUR, NOON + HOUR * 2), NOON + HOUR * 2);
    }

    #[test]
    fn a_clock_that_was_never_set_is_forgotten() {
        assert_eq!(advance(Time(0), SECOND, NOON), NOON);
    }

    #[test]
    fn times_rise() {
        let clock = Clock::default();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
