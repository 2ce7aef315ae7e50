//! Health checks: a program run in the container again and again, and what its exit codes come to.
//!
//! As moby's `daemon/health.go`. Unlike there, what was known outlives the daemon: a healthy container stays healthy
//! over an upgrade until a probe says otherwise.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use skep_types::Time;
use skep_types::container::ExecConfig;
use skep_types::health::{Health, HealthCheck, HealthStatus, HealthTest};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::record::State;
use super::registry::Container;
use crate::clock::now;
use crate::options::ExecStart;
use crate::view::Status;
use crate::{Engine, Error, Result};

/// Results that are kept for inspection. Docker's.
const KEPT: usize = 5;
/// Bytes of a probe's output that are kept. Docker's.
const OUTPUT_LIMIT: usize = 4096;
/// Exit code of a probe that took too long or could not be run. Docker's.
const NO_RESULT: i32 = -1;
/// Bytes of the head of a frame: stream, three zeros, length.
const FRAME_HEAD: usize = 8;

/// What one probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// Its exit code; -1 when there is none.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

/// The last probes of a container, the oldest first.
pub(crate) type Probes = VecDeque<Probe>;

/// An image's health check, as Docker writes it down. Times are nanoseconds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Written {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

/// What an image says about health; `None` when it says nothing, or nothing that makes sense.
pub(crate) fn of_image(check: Option<&serde_json::Value>) -> Option<HealthCheck> {
    let written: Written = serde_json::from_value(check?.clone()).ok()?;
    let time = |nanoseconds: i64| Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
    Some(HealthCheck {
        test: test(written.test.unwrap_or_default())?,
        interval: time(written.interval),
        timeout: time(written.timeout),
        start_period: time(written.start_period),
        start_interval: time(written.start_interval),
        retries: u32::try_from(written.retries).unwrap_or_default(),
    })
}

/// Reads Docker's words for what is run: `CMD`, `CMD-SHELL` or `NONE` first.
pub fn test(words: Vec<String>) -> Option<HealthTest> {
    let mut words = words.into_iter();
    match words.next().as_deref() {
        None => Some(HealthTest::Inherit),
        Some("NONE") => Some(HealthTest::None),
        Some("CMD") => Some(HealthTest::Command(words.collect())),
        Some("CMD-SHELL") => Some(HealthTest::Shell(words.collect::<Vec<_>>().join(" "))),
        Some(_) => None,
    }
}

impl Container {
    fn probes(&self) -> MutexGuard<'_, Probes> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last probes, the oldest first.
    pub(crate) fn last_probes(&self) -> Vec<Probe> {
        self.probes().iter().cloned().collect()
    }
}

impl Engine {
    /// Probes a container that runs, until it does not or the engine shuts down. One without a check is left alone.
    pub(crate) fn probe_while_running(&self, container: &Arc<Container>) {
        let Some(check) = container.record.config.health.as_ref().and_then(HealthCheck::in_force) else {
            return;
        };
        let (engine, container) = (self.clone(), Arc::clone(container));
        let closing = self.shared.tasks.closing();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = engine.probe_on(&container, &check) => {}
                () = closing => {}
            }
        });
    }

    async fn probe_on(&self, container: &Arc<Container>, check: &HealthCheck) {
        let run = container.state.borrow().started_at;
        let ends = |state: &State| state.status != Status::Running || state.started_at != run;
        let mut states = container.state.subscribe();
        let started = run.unwrap_or_else(now);
        loop {
            let health = container.state.borrow().health.unwrap_or(Health::STARTING);
            let pause = health.pause(now().since(started), check);
            if tokio::time::timeout(pause, states.wait_for(ends)).await.is_ok() {
                return;
            }
            let begun = now();
            let probe = self.probe(container, check, begun).await;
            let success = probe.exit_code == 0;
            let mut moved = false;
            container.state.send_if_modified(|state| {
                // What a probe of an earlier life says, or one that the end cut off, counts for nothing.
                if ends(state) {
                    return false;
                }
                let before = state.health.unwrap_or(Health::STARTING);
                let after = before.after(success, begun.since(started), check);
                state.health = Some(after);
                let mut probes = container.probes();
                probes.push_back(probe.clone());
                let beyond = probes.len().saturating_sub(KEPT);
                probes.drain(..beyond);
                drop(probes);
                moved = before.status != after.status;
                if moved {
                    self.container_event(container, format!("health_status: {}", after.status.name()));
                }
                before != after
            });
            if moved {
                self.save_state(container).await;
            }
        }
    }

    async fn probe(&self, container: &Arc<Container>, check: &HealthCheck, start: Time) -> Probe {
        let (exit_code, output) = match self.run_probe(container, check).await {
            Ok(result) => result,
            Err(error) => (NO_RESULT, error.message),
        };
        Probe { start, end: now(), exit_code, output }
    }

    async fn run_probe(&self, container: &Arc<Container>, check: &HealthCheck) -> Result<(i32, String)> {
        let name = container.id().to_string();
        let cmd = match &check.test {
            HealthTest::Command(words) => words.clone(),
            HealthTest::Shell(line) => {
                let mut words = self.shell_of(container);
                words.push(line.clone());
                words
            }
            HealthTest::Inherit | HealthTest::None => Vec::new(),
        };
        let config = ExecConfig { cmd, attach_stdout: true, attach_stderr: true, ..ExecConfig::default() };
        let id = self.exec_create(&name, config).await?;
        let stream = self.exec_start(&id, ExecStart::default()).await?;
        let mut output = Vec::new();
        let reading = async {
            match stream {
                Some(stream) => read_frames(stream, &mut output).await,
                None => Ok(()),
            }
        };
        let Ok(read) = tokio::time::timeout(check.timeout, reading).await else {
            self.kill_exec(&id).await;
            let limit = check.timeout;
            return Ok((NO_RESULT, format!("Health check exceeded timeout ({limit:?}): {}", text(&output))));
        };
        read.map_err(|error| Error::failed("reading the output of a health check", &error))?;
        let code = self.exec_inspect(&id).await?.exit_code.unwrap_or(NO_RESULT);
        Ok((code, text(&output)))
    }

    /// The shell that lines are for: the image's, or Docker's default.
    fn shell_of(&self, container: &Container) -> Vec<String> {
        let image = self.shared.images.find(&container.record.image_id.to_string());
        let shell = image.ok().and_then(|image| image.config.shell).filter(|shell| !shell.is_empty());
        shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    /// Returns once a container is healthy, has no check or does not run: true; or is unhealthy: false.
    ///
    /// # Errors
    /// 404.
    pub async fn await_healthy(&self, name: &str) -> Result<bool> {
        let container = self.find(name)?;
        let decided = |state: &State| {
            state.status != Status::Running
                || state.health.is_none_or(|health| health.status != HealthStatus::Starting)
        };
        let mut states = container.state.subscribe();
        let state = states.wait_for(decided).await;
        let unhealthy =
            |state: &State| state.health.is_some_and(|health| health.status == HealthStatus::Unhealthy);
        // Without its sender the container is gone.
        Ok(!state.is_ok_and(|state| state.status == Status::Running && unhealthy(&state)))
    }

    /// Returns once a container that runs is unhealthy; never for one that does not become it.
    ///
    /// # Errors
    /// 404.
    pub async fn await_unhealthy(&self, name: &str) -> Result<()> {
        let container = self.find(name)?;
        let unhealthy = |state: &State| {
            state.status == Status::Running
                && state.health.is_some_and(|health| health.status == HealthStatus::Unhealthy)
        };
        let mut states = container.state.subscribe();
        if states.wait_for(unhealthy).await.is_err() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// Reads Docker's frames to their end; keeps the beginning of what is in them.
async fn read_frames(mut stream: UnixStream, output: &mut Vec<u8>) -> std::io::Result<()> {
    let mut head = [0; FRAME_HEAD];
    let mut content = vec![0; OUTPUT_LIMIT];
    loop {
        match stream.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let [.., a, b, c, d] = head;
        let mut left = u32::from_be_bytes([a, b, c, d]) as usize;
        while left > 0 {
            let part = left.min(content.len());
            stream.read_exact(&mut content[..part]).await?;
            left -= part;
            let room = OUTPUT_LIMIT - output.len().min(OUTPUT_LIMIT);
            output.extend(&content[..part.min(room)]);
        }
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_image_s_check_is_read() {
        let check = serde_json::json!({"Test": ["CMD-SHELL", "curl localhost"], "Interval": 1_000_000_000, "Retries": 2});
        let read = of_image(Some(&check)).unwrap();
        assert_eq!(read.test, HealthTest::Shell("curl localhost".to_owned()));
        assert_eq!((read.interval, read.retries), (Duration::from_secs(1), 2));
        assert_eq!(of_image(Some(&serde_json::json!({"Test": ["HELLO"]}))), None);
        assert_eq!(of_image(None), None);
    }

    #[tokio::test]
    async fn the_beginning_of_the_output_is_kept() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let writing = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            for _ in 0..3 {
                ours.write_all(&[1, 0, 0, 0, 0, 0, 0x10, 0]).await.unwrap();
                ours.write_all(&[b'x'; 0x1000]).await.unwrap();
            }
        });
        let mut output = Vec::new();
        read_frames(theirs, &mut output).await.unwrap();
        writing.await.unwrap();
        assert_eq!(output.len(), OUTPUT_LIMIT);
    }
}
