//! How a container's health is probed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A health check as it was asked for. Zero inherits from the image, and in the end from [`HealthCheck`]'s defaults,
/// which are Docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is run.
    pub test: HealthTest,
    /// From one probe to the next.
    pub interval: Duration,
    /// The longest that a probe may take.
    pub timeout: Duration,
    /// Time after the start in which failures do not count, until the first success.
    pub start_period: Duration,
    /// From one probe to the next within the start period.
    pub start_interval: Duration,
    /// Failures in a row that make a container unhealthy.
    pub retries: u32,
}

/// What a health check runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// What the image says.
    #[default]
    Inherit,
    /// Nothing, whatever the image says.
    None,
    /// A program with its arguments.
    Command(Vec<String>),
    /// A line for the container's shell.
    Shell(String),
}

impl HealthCheck {
    /// Docker's interval and time limit.
    pub const INTERVAL: Duration = Duration::from_secs(30);
    /// Docker's interval within the start period.
    pub const START_INTERVAL: Duration = Duration::from_secs(5);
    /// Docker's number of failures.
    pub const RETRIES: u32 = 3;
    /// The shortest time that Docker takes where one is given.
    pub const SHORTEST: Duration = Duration::from_millis(1);

    /// What an image says is filled in where this one says nothing, as moby's `merge`.
    #[must_use]
    pub fn inheriting(mut self, image: Option<&HealthCheck>) -> HealthCheck {
        let Some(image) = image else { return self };
        if self.test == HealthTest::Inherit {
            self.test = image.test.clone();
        }
        let fill = |own: &mut Duration, inherited: Duration| {
            if own.is_zero() {
                *own = inherited;
            }
        };
        fill(&mut self.interval, image.interval);
        fill(&mut self.timeout, image.timeout);
        fill(&mut self.start_period, image.start_period);
        fill(&mut self.start_interval, image.start_interval);
        if self.retries == 0 {
            self.retries = image.retries;
        }
        self
    }

    /// With Docker's defaults where nobody said anything; `None` when nothing is probed.
    pub fn in_force(&self) -> Option<HealthCheck> {
        let or = |own: Duration, default: Duration| if own.is_zero() { default } else { own };
        match self.test {
            HealthTest::Inherit | HealthTest::None => None,
            HealthTest::Command(_) | HealthTest::Shell(_) => Some(HealthCheck {
                test: self.test.clone(),
                interval: or(self.interval, HealthCheck::INTERVAL),
                timeout: or(self.timeout, HealthCheck::INTERVAL),
                start_period: self.start_period,
                start_interval: or(self.start_interval, HealthCheck::START_INTERVAL),
                retries: if self.retries == 0 { HealthCheck::RETRIES } else { self.retries },
            }),
        }
    }
}

/// What the probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No probe succeeded yet.
    Starting,
    /// The last ones did.
    Healthy,
    /// Too many in a row did not.
    Unhealthy,
}

impl HealthStatus {
    /// The name at the API.
    pub fn name(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// What the probes of one run of a container have said until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What they come to.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
}

impl Health {
    /// Before the first probe.
    pub const STARTING: Health = Health { status: HealthStatus::Starting, failing_streak: 0 };

    /// After one more probe, begun `age` after the container's start. As moby's `handleProbeResult`.
    #[must_use]
    pub fn after(self, success: bool, age: Duration, check: &HealthCheck) -> Health {
        if success {
            return Health { status: HealthStatus::Healthy, failing_streak: 0 };
        }
        if self.status == HealthStatus::Starting && age < check.start_period {
            return self;
        }
        let failing_streak = self.failing_streak.saturating_add(1);
        let status = if failing_streak >= check.retries { HealthStatus::Unhealthy } else { self.status };
        Health { status, failing_streak }
    }

    /// How long to wait for the next probe, `age` after the container's start.
    pub fn pause(self, age: Duration, check: &HealthCheck) -> Duration {
        let begins = self.status == HealthStatus::Starting && age < check.start_period;
        if begins { check.start_interval } else { check.interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn check() -> HealthCheck {
        let test = HealthTest::Shell("true".to_owned());
        HealthCheck { test, retries: 2, ..HealthCheck::default() }
    }

    #[test]
    fn an_image_fills_in_what_nobody_said() {
        let image = HealthCheck { interval: SECOND, start_period: SECOND, ..check() };
        let own = HealthCheck { interval: SECOND * 2, ..HealthCheck::default() };
        let wanted = HealthCheck { interval: SECOND * 2, ..image.clone() };
        assert_eq!(own.inheriting(Some(&image)), wanted);
        let off = HealthCheck { test: HealthTest::None, ..HealthCheck::default() };
        assert_eq!(off.inheriting(Some(&image)).in_force(), None);
        let in_force = check().in_force().expect("it asks for something");
        assert_eq!((in_force.interval, in_force.timeout), (SECOND * 30, SECOND * 30));
        assert_eq!((in_force.retries, in_force.start_interval), (2, SECOND * 5));
    }

    #[test]
    fn so_many_failures_in_a_row_are_unhealthy() {
        let check = check();
        let fail = |health: Health| health.after(false, SECOND, &check);
        let once = fail(Health::STARTING);
        assert_eq!(once, Health { status: HealthStatus::Starting, failing_streak: 1 });
        assert_eq!(fail(once), Health { status: HealthStatus::Unhealthy, failing_streak: 2 });
        let healthy = fail(once).after(true, SECOND, &check);
        assert_eq!(healthy, Health { status: HealthStatus::Healthy, failing_streak: 0 });
        assert_eq!(fail(healthy), Health { status: HealthStatus::Healthy, failing_streak: 1 });
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_until_a_success() {
        let check = HealthCheck { start_period: SECOND * 10, ..check() }.in_force().expect("it is one");
        let early = Health::STARTING.after(false, SECOND, &check);
        assert_eq!(early, Health::STARTING);
        assert_eq!(early.pause(SECOND, &check), SECOND * 5);
        let healthy = early.after(true, SECOND * 2, &check);
        assert_eq!(healthy.after(false, SECOND * 3, &check).failing_streak, 1);
        assert_eq!(healthy.pause(SECOND * 3, &check), SECOND * 30);
        assert_eq!(Health::STARTING.after(false, SECOND * 10, &check).failing_streak, 1);
    }
}
