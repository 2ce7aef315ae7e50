//! `RUN`: a command in a container, whose writes become a layer.

use std::path::Path;

use skep_dockerfile::Run;
use skep_images::Above;
use skep_types::ContainerId;
use skep_types::container::{ContainerConfig, LogDriver};
use skep_types::health::{HealthCheck, HealthTest};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::commit::remove_mount_points;
use super::{BuildMessage, Builder, Failure, Stage, cancelled, change};
use crate::options::{AttachOptions, RemoveOptions, WaitCondition};
use crate::{Error, Result};

/// Largest piece of output that is handed on at once, in bytes.
const PIECE: usize = 32 * 1024;

impl Builder {
    pub(super) fn run(&self, stage: &mut Stage, run: &Run) -> Result<(), Failure> {
        let Some(image) = stage.image else {
            return Err(Error::invalid("Please provide a source image with `from` prior to run").into());
        };
        let command = words(run, &change::shell(&stage.config))?;
        let args = stage.args.values(&stage.config.env);
        let saved = match stage.args.of_cache(&args) {
            _ if args.is_empty() => command.clone(),
            // As moby: no command can begin with a bar.
            counting => std::iter::once(format!("|{}", counting.len()))
                .chain(counting.into_iter().map(str::to_owned))
                .chain(command.iter().cloned())
                .collect(),
        };
        if self.is_cached(stage, &saved)? {
            return Ok(());
        }
        let mut host = self.options.host.clone();
        host.log = LogDriver::None;
        let config = ContainerConfig {
            image: image.to_string(),
            cmd: Some(command.clone()),
            entrypoint: Some(vec![String::new()]),
            env: stage.config.env.iter().cloned().chain(args).collect(),
            working_dir: stage.config.working_dir.clone(),
            user: stage.config.user.clone(),
            health: Some(HealthCheck { test: HealthTest::None, ..HealthCheck::default() }),
            host,
            ..ContainerConfig::default()
        };
        let created = self.runtime.block_on(self.engine.create(None, config))?;
        self.engine.shared.building.begin(created.id);
        let ran = self.carry_out(stage, created.id, &command, &saved, created.warnings);
        self.engine.shared.building.end(created.id);
        let is_over = self.messages.is_closed();
        let stays = self.options.keep_containers || (ran.is_err() && !is_over);
        if !stays || self.options.force_remove {
            let options = RemoveOptions { force: true, volumes: true };
            let id = created.id.to_string();
            if let Err(error) = self.runtime.block_on(self.engine.remove(&id, options)) {
                tracing::warn!("cannot remove container {id} of a build: {error}");
            }
            if ran.is_ok() {
                self.say(format!(" ---> Removed intermediate container {}\n", created.id.short()))?;
            }
        }
        ran
    }

    fn carry_out(
        &self,
        stage: &mut Stage,
        id: ContainerId,
        command: &[String],
        saved: &[String],
        warnings: Vec<String>,
    ) -> Result<(), Failure> {
        for warning in warnings {
            self.say(format!(" ---> [Warning] {warning}\n"))?;
        }
        self.say(format!(" ---> Running in {}\n", id.short()))?;
        let code = self.runtime.block_on(self.execute(&id.to_string()))?;
        if code != 0 {
            let command = command.join(" ");
            let message = format!("The command '{command}' returned a non-zero code: {code}");
            return Err(Failure { error: Error::internal(message), code: Some(code) });
        }
        let container = self.engine.find(&id.to_string())?;
        // Nobody may start it again while its files are taken.
        let _life = self.runtime.block_on(container.life.lock());
        let failed = |error: &dyn std::error::Error| Error::failed("reading the files of an image", error);
        let below = self.engine.shared.images.draft(stage.image).map_err(|error| failed(&error))?;
        let (upper, tidy) = (container.home.upper(), |path: &Path| remove_mount_points(&below, path));
        if self.options.keep_containers {
            return self.commit_step(stage, saved, Above::Copied(upper, Box::new(tidy)));
        }
        tidy(&upper).map_err(|error| failed(&error))?;
        self.commit_step(stage, saved, Above::Taken(upper))
    }

    /// Runs the container to its end, and hands its output on; its exit code.
    async fn execute(&self, id: &str) -> Result<i32, Failure> {
        let options = AttachOptions { stdout: true, stderr: true, stream: true, ..AttachOptions::default() };
        let (_, stream) = self.engine.attach(id, options).await?;
        self.engine.start(id).await?;
        let wait = self.engine.wait(id, WaitCondition::NotRunning).await?;
        let through = async {
            self.hand_on(stream).await;
            wait.await
        };
        tokio::select! {
            ended = through => Ok(ended.code),
            () = self.messages.closed() => Err(cancelled()),
            () = self.engine.shared.tasks.closing() => Err(Error::internal("the daemon was shut down").into()),
        }
    }

    /// Until the container closes its output.
    async fn hand_on(&self, mut stream: UnixStream) {
        let mut partial = [Vec::new(), Vec::new()];
        let mut header = [0; 8];
        while stream.read_exact(&mut header).await.is_ok() {
            let is_stderr = header[0] == 2;
            let mut left = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            while left > 0 {
                let mut piece = vec![0; left.min(PIECE)];
                if stream.read_exact(&mut piece).await.is_err() {
                    return;
                }
                left -= piece.len();
                let text = whole_characters(&mut partial[usize::from(is_stderr)], &piece);
                let message = if is_stderr { BuildMessage::Stderr(text) } else { BuildMessage::Text(text) };
                // A client that left is noticed by whoever waits beside this.
                let _ = self.messages.send(message).await;
            }
        }
    }
}

/// What is executed: a command as it stands, or a here document for the shell.
fn words(run: &Run, shell: &[String]) -> Result<Vec<String>> {
    let Some(first) = run.heredocs.first() else { return Ok(run.command.resolve(shell)) };
    let line = run.command.words.first().map(String::as_str).unwrap_or_default();
    let bare = line.trim_start_matches("<<").trim_start_matches('-').replace(['"', '\''], "");
    let is_script = run.heredocs.len() == 1 && line.starts_with("<<") && bare == first.name;
    let text = if is_script {
        if first.content.starts_with("#!") {
            return Err(Error::unsupported(
                "RUN with a here document that names an interpreter (#!) is not built yet: COPY the script, then run it",
            ));
        }
        first.content.clone()
    } else {
        let documents = run.heredocs.iter().map(|it| format!("{}{}\n", it.content, it.name));
        format!("{line}\n{}", documents.collect::<String>())
    };
    Ok(shell.iter().cloned().chain([text]).collect())
}

/// The text so far, a character that is cut in two held back.
fn whole_characters(partial: &mut Vec<u8>, piece: &[u8]) -> String {
    partial.extend_from_slice(piece);
    let end = match std::str::from_utf8(partial) {
        Ok(_) => partial.len(),
        // At most three bytes can be the start of a character.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => partial.len(),
    };
    let text = String::from_utf8_lossy(&partial[..end]).into_owned();
    partial.drain(..end);
    text
}

#[cfg(test)]
mod tests {
    use skep_dockerfile::Instruction;

    use super::*;

    fn run(line: &str) -> Result<Vec<String>> {
        let mut file = skep_dockerfile::parse(&format!("FROM x\n{line}\n")).expect("a good file");
        match file.stages.remove(0).steps.remove(0).instruction {
            Instruction::Run(run) => words(&run, &["sh".to_owned(), "-c".to_owned()]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn here_documents_are_for_the_shell() {
        assert_eq!(run("RUN a b").expect("good"), ["sh", "-c", "a b"]);
        assert_eq!(run("RUN [\"a\"]").expect("good"), ["a"]);
        assert_eq!(run("RUN <<\"E\"\na\nb\nE").expect("good"), ["sh", "-c", "a\nb\n"]);
        assert_eq!(run("RUN cat <<E >x\na\nE").expect("good"), ["sh", "-c", "cat <<E >x\na\nE\n"]);
        assert!(run("RUN <<E\n#!/bin/sh\nE").is_err());
    }

    #[test]
    fn characters_come_whole() {
        let mut partial = Vec::new();
        assert_eq!(whole_characters(&mut partial, b"a\xc3"), "a");
        assert_eq!(whole_characters(&mut partial, b"\xa9b"), "\u{e9}b");
        assert_eq!(whole_characters(&mut partial, b"\xff"), "\u{fffd}");
    }
}
