//! `docker build`: Docker's classic builder.
//!
//! A build is a thread that goes through the instructions. Each makes an image on top of the one before, which the
//! next build finds again if nothing that the instruction depends on has changed. Files are copied in a draft of the
//! image store, commands run in containers of this engine; nothing is ever mounted on the host.
//!
//! Unlike Docker's, instructions that only change the configuration make no containers. Why it is so: ADR 21.

mod args;
mod change;
mod commit;
mod containers;
mod context;
mod copy;
mod download;
mod options;
mod run;
mod sources;
mod tree;

use std::io::Read;
use std::sync::Arc;

use skep_dockerfile::{Dockerfile, Instruction, Lex, parse, parse_trigger};
use skep_images::{Above, Digest, Hold, Image, ImageConfig, ImageId, NewImage, Reference};
use tokio::sync::mpsc;

use crate::clock::now;
use crate::error::chain;
use crate::images::{ParseReferenceError, Pull, from_find};
use crate::{Engine, Error, ErrorKind, Result, blocking};
use args::Args;
use change::Memory;
pub use change::apply_changes;
pub use commit::CommitOptions;
pub(crate) use containers::Building;
use context::Context;
pub use options::{BuildMessage, BuildOptions};

/// Builds that go on at the same time; each holds a thread. Others wait.
pub(crate) const BUILD_LIMIT: usize = 16;
/// Steps of a pull on their way to the client.
const STEP_QUEUE: usize = 16;
/// Folder of what clients sent, below the data root.
pub(crate) const FOLDER: &str = "builds";
/// What PATH is in an image that does not say. Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Engine {
    /// Builds an image from an archive of files with a Dockerfile among them. All that there is to tell goes to `messages`, the last
    /// being [`BuildMessage::Built`] or [`BuildMessage::Failed`]; when nobody listens any more, the build ends.
    pub async fn build(
        &self,
        mut input: impl Read + Send + 'static,
        options: BuildOptions,
        messages: mpsc::Sender<BuildMessage>,
    ) {
        let _place = self.shared.builds.acquire().await.expect("it is never closed");
        let tags = options.tags.clone();
        let folder = self.shared.config.data_root.join(FOLDER).join(self.draw_id());
        let (engine, told) = (self.clone(), messages.clone());
        // Until what was built has its names.
        let hold = Arc::new(self.shared.images.hold());
        let held = Arc::clone(&hold);
        let received = {
            let _room = self.shared.uploads.acquire().await.expect("it is never closed");
            blocking(move || Context::receive(&mut input, folder)).await
        };
        let context = received.unwrap_or_else(Err);
        let built = match context {
            Ok(context) => {
                let work = move || Builder::new(engine, options, context, told, held).build();
                blocking(work).await.unwrap_or_else(|error| Err(error.into()))
            }
            Err(error) => Err(error.into()),
        };
        let last = match self.name_built(built, &tags, &messages).await {
            Ok(id) => BuildMessage::Built(id),
            Err(Failure { error, code }) => BuildMessage::Failed { error, code },
        };
        // Whoever left does not want to know.
        let _ = messages.send(last).await;
    }

    /// Gives what was built its names.
    async fn name_built(
        &self,
        built: Result<ImageId, Failure>,
        tags: &[Reference],
        messages: &mpsc::Sender<BuildMessage>,
    ) -> Result<ImageId, Failure> {
        let id = built?;
        let say = async |text: String| messages.send(BuildMessage::Text(text)).await.map_err(|_| cancelled());
        say(format!("Successfully built {}\n", id.short())).await?;
        for tag in tags {
            self.tag_image(&id.to_string(), tag.clone()).await?;
            say(format!("Successfully tagged {}\n", tag.familiar())).await?;
        }
        Ok(id)
    }
}

/// Why a build ended.
#[derive(Debug)]
struct Failure {
    error: Error,
    code: Option<i32>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, code: None }
    }
}

/// A build under way.
struct Builder {
    engine: Engine,
    options: BuildOptions,
    context: Context,
    messages: mpsc::Sender<BuildMessage>,
    runtime: tokio::runtime::Handle,
    lex: Lex,
    /// Stages that ended: their names and images.
    stages: Vec<(String, Option<ImageId>)>,
    /// All that the build stands on and made so far.
    hold: Arc<Hold>,
}

/// A stage under way.
struct Stage {
    image: Option<ImageId>,
    config: ImageConfig,
    memory: Memory,
    args: Args,
    /// Whether there is more to find in the cache: not after the first step that was not there.
    caching: bool,
}

impl Stage {
    /// The command that the history has for what runs nothing.
    fn nop(&self, comment: &str) -> Vec<String> {
        change::shell(&self.config).into_iter().chain([comment.to_owned()]).collect()
    }
}

impl Builder {
    fn new(
        engine: Engine,
        options: BuildOptions,
        context: Context,
        messages: mpsc::Sender<BuildMessage>,
        hold: Arc<Hold>,
    ) -> Builder {
        let runtime = tokio::runtime::Handle::current();
        let lex = Lex::new('\\');
        Builder { engine, options, context, messages, runtime, lex, stages: Vec::new(), hold }
    }

    fn build(mut self) -> Result<ImageId, Failure> {
        let text = self.context.take_dockerfile(&self.options.dockerfile)?;
        let mut file = parse(&text).map_err(|error| Error::invalid(error.to_string()))?;
        self.lex = Lex::new(file.escape);
        self.cut(&mut file)?;
        if !file.warnings.is_empty() {
            self.send(BuildMessage::Stderr(file.warnings.join("\n") + "\n"))?;
        }
        let mut args = Args::new(std::mem::take(&mut self.options.args));
        let total = file.meta.len() + file.stages.iter().map(|stage| 1 + stage.steps.len()).sum::<usize>();
        let mut counter = 1..;
        let mut number = || counter.next().unwrap_or_default();
        for mut arg in file.meta {
            self.say(format!("Step {}/{total} : ARG {}\n", number(), arg.text()))?;
            let env = args.meta_values();
            if let Some(value) = &mut arg.default {
                *value = self.word(value, &env)?;
            }
            args.declare_meta(&arg.name, arg.default);
        }
        let mut last = None;
        for planned in file.stages {
            let is_taken =
                !planned.name.is_empty() && self.stages.iter().any(|(name, _)| *name == planned.name);
            if is_taken {
                return Err(Error::invalid(format!("{} is already a build stage", planned.name)).into());
            }
            self.say(format!("Step {}/{total} : {}\n", number(), planned.source))?;
            let mut stage = self.begin(&planned, &args)?;
            self.say(format!(" ---> {}\n", short(stage.image)))?;
            for step in planned.steps {
                self.say(format!("Step {}/{total} : {}\n", number(), step.source))?;
                self.dispatch(&mut stage, step.instruction)?;
                self.say(format!(" ---> {}\n", short(stage.image)))?;
            }
            if let Some(id) = stage.image {
                self.send(BuildMessage::Image(id))?;
            }
            args.merge(&stage.args);
            last = stage.image;
            self.stages.push((planned.name, stage.image));
        }
        let unused = args.unused();
        if !unused.is_empty() {
            let unused = unused.join(" ");
            self.say(format!("[Warning] One or more build-args [{unused}] were not consumed\n"))?;
        }
        last.ok_or_else(|| Error::internal("No image was generated. Is your Dockerfile empty?").into())
    }

    /// Leaves out what comes after the target, and adds the labels that were asked for.
    fn cut(&self, file: &mut Dockerfile) -> Result<()> {
        let target = &self.options.target;
        if !target.is_empty() {
            let named = file.stages.iter().position(|stage| stage.name.eq_ignore_ascii_case(target));
            let numbered = || target.parse().ok().filter(|index| *index < file.stages.len());
            let index: usize = named.or_else(numbered).ok_or_else(|| {
                Error::invalid(format!("failed to reach build target {target} in Dockerfile"))
            })?;
            file.stages.truncate(index + 1);
        }
        if let Some(stage) = file.stages.last_mut() {
            stage.steps.extend(self.options.labels.iter().map(|(name, value)| skep_dockerfile::Step {
                source: format!("LABEL {name}={value}"),
                instruction: Instruction::Label(vec![(name.clone(), value.clone())], true),
            }));
        }
        Ok(())
    }

    /// FROM.
    fn begin(&self, planned: &skep_dockerfile::Stage, args: &Args) -> Result<Stage, Failure> {
        let env = args.meta_values();
        let name = self.word(&planned.base, &env)?;
        if name.is_empty() {
            return Err(Error::invalid(format!("base name ({}) should not be blank", planned.base)).into());
        }
        let platform = match planned.platform.as_str() {
            "" => self.options.platform.clone(),
            platform => self.word(platform, &env)?,
        };
        let known = self.stages.iter().find(|(stage, _)| !stage.is_empty() && *stage == name);
        let image = match known {
            Some((_, image)) => image.map(|id| self.find(&id.to_string())).transpose()?,
            None if name == "scratch" => None,
            None => Some(self.base(&name, &platform)?),
        };
        let mut stage = Stage {
            image: image.as_ref().map(|image| image.id),
            config: image.map(|image| image.config).unwrap_or_default(),
            memory: Memory::default(),
            args: args.of_stage(),
            caching: !self.options.no_cache,
        };
        if !stage.config.env.iter().any(|entry| entry.starts_with("PATH=")) {
            change::set_variable(&mut stage.config.env, "PATH", DEFAULT_PATH);
        }
        let triggers = std::mem::take(&mut stage.config.on_build);
        if !triggers.is_empty() {
            let plural = if triggers.len() == 1 { "" } else { "s" };
            self.say(format!("# Executing {} build trigger{plural}\n", triggers.len()))?;
        }
        for trigger in triggers {
            let step = parse_trigger(&trigger).map_err(|error| Error::invalid(error.to_string()))?;
            self.dispatch(&mut stage, step.instruction)?;
        }
        Ok(stage)
    }

    /// The image that a FROM or a COPY names.
    fn base(&self, name: &str, platform: &str) -> Result<Image> {
        let found = if self.options.pull { None } else { self.find(name).map(Some).or_else(missing)? };
        let image = match found {
            Some(image) => image,
            None => {
                self.pull(name)?;
                self.find(name)?
            }
        };
        if !self.hold.add(image.id) {
            return Err(Error::not_found(format!("No such image: {name}")));
        }
        let architecture = platform.split('/').nth(1).unwrap_or_default();
        if !architecture.is_empty() && architecture != image.architecture {
            return Err(Error::not_found(format!(
                "image with reference {name} was found but does not match the specified platform: wanted {platform}, actual: {}/{}",
                image.os, image.architecture
            )));
        }
        Ok(image)
    }

    /// Brings an image from its registry.
    fn pull(&self, name: &str) -> Result<()> {
        let reference: Reference =
            name.parse().map_err(|error: ParseReferenceError| Error::invalid(error.to_string()))?;
        let credentials = self.options.credentials.get(reference.registry()).cloned();
        let platform = self.options.pull_platform.clone();
        let (sender, mut steps) = mpsc::channel(STEP_QUEUE);
        let pulled = async {
            let pull =
                self.engine.pull_image(Pull { reference, all_tags: false, platform, credentials }, sender);
            let told = async {
                while let Some(step) = steps.recv().await {
                    if self.messages.send(BuildMessage::Pulling(step)).await.is_err() {
                        // The pull ends when nobody hears of it any more.
                        steps.close();
                    }
                }
            };
            tokio::join!(pull, told).0
        };
        self.runtime.block_on(pulled).map(drop)
    }

    fn find(&self, name: &str) -> Result<Image> {
        self.engine.shared.images.find(name).map_err(from_find)
    }

    /// The image of `COPY --from`: a stage by number or name, or any image.
    fn copy_source(&self, from: &str) -> Result<Option<ImageId>> {
        let refuse = |why: &str| Error::invalid(format!("invalid from flag value {from}: {why}"));
        if let Ok(index) = from.parse::<usize>() {
            return match self.stages.get(index) {
                Some((_, image)) => Ok(*image),
                None if index == self.stages.len() => Err(refuse("refers to current build block")),
                None => Err(refuse("index out of bounds")),
            };
        }
        let lower = from.to_ascii_lowercase();
        if let Some((_, image)) = self.stages.iter().find(|(name, _)| !name.is_empty() && *name == lower) {
            return Ok(*image);
        }
        let image = self.base(from, &self.options.platform);
        image
            .map(|image| Some(image.id))
            .map_err(|error| Error { message: refuse(&error.message).message, ..error })
    }

    fn dispatch(&self, stage: &mut Stage, mut instruction: Instruction) -> Result<(), Failure> {
        if self.messages.is_closed() {
            return Err(cancelled());
        }
        let mut env = stage.config.env.clone();
        env.extend(stage.args.values(&stage.config.env));
        change::expand(&mut instruction, &self.lex, &env)?;
        match &instruction {
            Instruction::Copy(copy) => return self.copy(stage, "COPY", copy),
            Instruction::Add(copy) => return self.copy(stage, "ADD", copy),
            Instruction::Run(run) => return self.run(stage, run),
            Instruction::Arg(args) => {
                for arg in args {
                    stage.args.declare(&arg.name, arg.default.clone());
                }
                let text = args.iter().map(skep_dockerfile::Arg::text).collect::<Vec<_>>().join(" ");
                return self.nop(stage, &format!("ARG {text}"));
            }
            _ => {}
        }
        let comment = change::apply(&mut stage.config, &mut stage.memory, &instruction)?;
        let comment = comment.expect("what does more was dealt with above");
        if let Some(note) = stage.memory.note.take() {
            self.say(note)?;
        }
        match instruction {
            Instruction::Workdir(_) => self.workdir(stage, &comment),
            _ => self.nop(stage, &comment),
        }
    }

    /// A step that only changes the configuration.
    fn nop(&self, stage: &mut Stage, comment: &str) -> Result<(), Failure> {
        // Two words in moby, so that the history has two spaces.
        let command = stage.nop(&format!("#(nop)  {comment}"));
        if self.is_cached(stage, &command)? {
            return Ok(());
        }
        self.commit_step(stage, &command, Above::Nothing)
    }

    /// Whether the cache has this step; then the stage goes on from there.
    fn is_cached(&self, stage: &mut Stage, command: &[String]) -> Result<bool, Failure> {
        let found = stage.caching.then(|| self.hold.cached(stage.image, key(stage, command)));
        match found.flatten() {
            Some(id) => {
                stage.image = Some(id);
                self.say(" ---> Using cache\n".to_owned())?;
                Ok(true)
            }
            None => {
                stage.caching = false;
                Ok(false)
            }
        }
    }

    fn commit_step(&self, stage: &mut Stage, command: &[String], above: Above<'_>) -> Result<(), Failure> {
        let new = NewImage {
            parent: stage.image,
            config: stage.config.clone(),
            created: now(),
            created_by: command.join(" "),
            author: stage.memory.author.clone(),
            comment: String::new(),
            step: Some(key(stage, command)),
        };
        let made = self.hold.make_image(&new, above);
        stage.image = Some(made.map_err(|error| Error::internal(chain(&error)))?);
        Ok(())
    }

    fn word(&self, word: &str, env: &[String]) -> Result<String> {
        self.lex.word(word, env).map_err(|error| Error::invalid(error.to_string()))
    }

    fn say(&self, text: String) -> Result<(), Failure> {
        self.send(BuildMessage::Text(text))
    }

    fn send(&self, message: BuildMessage) -> Result<(), Failure> {
        self.messages.blocking_send(message).map_err(|_| cancelled())
    }
}

/// What a step depends on, its image aside: all that its containers start with, and what is done.
fn key(stage: &Stage, command: &[String]) -> Digest {
    let parts = (&stage.config, command, &stage.memory.author);
    Digest::of(&serde_json::to_vec(&parts).expect("lists and maps with text for keys are valid JSON"))
}

/// An image that is not here may be had elsewhere.
fn missing(error: Error) -> Result<Option<Image>> {
    if error.kind == ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

fn cancelled() -> Failure {
    Error::internal("Build cancelled").into()
}

fn short(image: Option<ImageId>) -> String {
    image.map(|id| id.short()).unwrap_or_default()
}
