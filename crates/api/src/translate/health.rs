//! Health checks and what their probes say.

use std::time::Duration;

use bollard_stubs::models;
use models::HealthStatusEnum as StatusName;
use skep_engine::containers::health::{Probe, test};
use skep_types::health::{Health, HealthCheck, HealthStatus, HealthTest};

use super::nanoseconds;
use crate::error::ApiError;

/// Reads a health check, and refuses what makes no sense in moby's words (daemon/container.go).
pub fn from_model(model: models::HealthConfig) -> Result<HealthCheck, ApiError> {
    let models::HealthConfig { test: words, interval, timeout, retries, start_period, start_interval } =
        model;
    let time = |field: &str, nanoseconds: Option<i64>| {
        let time = Duration::from_nanos(u64::try_from(nanoseconds.unwrap_or_default()).unwrap_or(1));
        if !time.is_zero() && time < HealthCheck::SHORTEST {
            return Err(ApiError::invalid(format!("{field} in Healthcheck cannot be less than 1ms")));
        }
        Ok(time)
    };
    let words = words.unwrap_or_default();
    let kind = words.first().cloned().unwrap_or_default();
    let unknown = || ApiError::invalid(format!("Unknown healthcheck type {kind:?} (expected 'CMD')"));
    Ok(HealthCheck {
        test: test(words).ok_or_else(unknown)?,
        interval: time("Interval", interval)?,
        timeout: time("Timeout", timeout)?,
        start_period: time("StartPeriod", start_period)?,
        start_interval: time("StartInterval", start_interval)?,
        retries: u32::try_from(retries.unwrap_or_default())
            .map_err(|_| ApiError::invalid("Retries in Healthcheck cannot be negative"))?,
    })
}

/// A health check as it was asked for.
pub fn to_model(check: &HealthCheck) -> models::HealthConfig {
    let time = |time: Duration| (!time.is_zero()).then(|| nanoseconds(time));
    let words = |kind: &str, words: &[String]| {
        let kind = std::iter::once(kind.to_owned());
        Some(kind.chain(words.iter().cloned()).collect())
    };
    models::HealthConfig {
        test: match &check.test {
            HealthTest::Inherit => None,
            HealthTest::None => words("NONE", &[]),
            HealthTest::Command(command) => words("CMD", command),
            HealthTest::Shell(line) => words("CMD-SHELL", std::slice::from_ref(line)),
        },
        interval: time(check.interval),
        timeout: time(check.timeout),
        retries: (check.retries != 0).then_some(i64::from(check.retries)),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
    }
}

/// A container's health as `docker inspect` shows it.
pub fn state(health: Health, probes: &[Probe]) -> models::Health {
    let result = |probe: &Probe| models::HealthcheckResult {
        start: Some(probe.start.to_string()),
        end: Some(probe.end.to_string()),
        exit_code: Some(i64::from(probe.exit_code)),
        output: Some(probe.output.clone()),
    };
    models::Health {
        status: Some(match health.status {
            HealthStatus::Starting => StatusName::STARTING,
            HealthStatus::Healthy => StatusName::HEALTHY,
            HealthStatus::Unhealthy => StatusName::UNHEALTHY,
        }),
        failing_streak: Some(i64::from(health.failing_streak)),
        log: Some(probes.iter().map(result).collect()),
    }
}

/// What `docker ps` adds to a running container's status.
pub fn remark(health: Health) -> &'static str {
    match health.status {
        HealthStatus::Starting => " (health: starting)",
        HealthStatus::Healthy => " (healthy)",
        HealthStatus::Unhealthy => " (unhealthy)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<HealthCheck, ApiError> {
        from_model(serde_json::from_str(json).expect("the test's JSON is sound"))
    }

    #[test]
    fn checks_are_read_and_shown_as_they_were_given() {
        let json = r#"{"Test":["CMD-SHELL","true"],"Interval":1000000000,"Retries":2}"#;
        let check = read(json).expect("it makes sense");
        assert_eq!(check.test, HealthTest::Shell("true".to_owned()));
        assert_eq!(serde_json::to_string(&to_model(&check)).expect("a model is JSON"), json);
        assert_eq!(read("{}").expect("it inherits"), HealthCheck::default());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let error = |json: &str| read(json).expect_err("it makes no sense").to_string();
        assert!(error(r#"{"Interval":1}"#).contains("Interval in Healthcheck cannot be less than 1ms"));
        assert!(error(r#"{"Timeout":-1}"#).contains("Timeout in Healthcheck cannot be less than 1ms"));
        assert!(error(r#"{"Retries":-1}"#).contains("Retries in Healthcheck cannot be negative"));
        assert!(error(r#"{"Test":["RUN"]}"#).contains("Unknown healthcheck type \"RUN\""));
    }
}
