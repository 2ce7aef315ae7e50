//! Templates in a service's environment, host name and mounts, expanded for each task on its node: SwarmKit's, in the
//! part of Go's template language that needs no variables.
//!
//! There are fields (`.Service.Name`), texts, numbers, `index`, `join`, `print`, `println`, `printf`, `len`, `eq`, `ne`,
//! `and`, `or`, `not`, pipes, brackets, `if` with `else`, trimming and comments. Anything else is refused by its name.

mod evaluate;
mod parse;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::mount::{Mount, MountSource};
use crate::service::ServiceContainer;

/// The most bytes that the texts of one container may become.
const EXPANDED_LIMIT: usize = 4 << 20;

/// What templates can ask for. SwarmKit's `template.Context`.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// `.Service.ID`
    pub service_id: &'a str,
    /// `.Service.Name`
    pub service_name: &'a str,
    /// `.Service.Labels`
    pub service_labels: &'a BTreeMap<String, String>,
    /// `.Node.ID`
    pub node_id: &'a str,
    /// `.Node.Hostname`
    pub node_hostname: &'a str,
    /// `.Node.Platform.Architecture`
    pub node_architecture: &'a str,
    /// `.Node.Platform.OS`
    pub node_os: &'a str,
    /// `.Task.ID`
    pub task_id: &'a str,
    /// `.Task.Name`
    pub task_name: &'a str,
    /// `.Task.Slot`: of a task without one, its node's id.
    pub task_slot: &'a str,
}

/// Why a text cannot be expanded. In SwarmKit's words as far as they are not Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

fn failed<T>(why: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(why.into()))
}

impl TemplateError {
    fn within(self, what: &str) -> TemplateError {
        TemplateError(format!("{what}: {}", self.0))
    }
}

/// Whether a text is to be expanded.
pub fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// Expands one text.
pub fn expand(text: &str, context: &Context<'_>) -> Result<String, TemplateError> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    let parsed = parse::parse(text).map_err(|error| error.within("template"))?;
    evaluate::evaluate(&parsed, context, EXPANDED_LIMIT).map_err(|error| error.within("template"))
}

impl ServiceContainer {
    /// Whether any of its texts is to be expanded for each task.
    pub fn has_templates(&self) -> bool {
        let mount = |mount: &Mount| {
            let source = match &mount.source {
                MountSource::Bind { path, .. } => is_template(&path.to_string_lossy()),
                MountSource::Volume { name, labels, .. } => {
                    is_template(name) || labels.values().any(|value| is_template(value))
                }
                MountSource::Tmpfs { .. } => false,
            };
            source || is_template(&mount.target.to_string_lossy())
        };
        is_template(&self.hostname)
            || self.env.iter().any(|entry| is_template(entry))
            || self.mounts.iter().any(mount)
    }

    /// The container of one task: its templates expanded. As SwarmKit's `ExpandContainerSpec`.
    ///
    /// # Errors
    /// Names the text at fault.
    pub fn expanded(&self, context: &Context<'_>) -> Result<ServiceContainer, TemplateError> {
        let mut container = self.clone();
        if !self.has_templates() {
            return Ok(container);
        }
        let mut budget = Budget { context, left: EXPANDED_LIMIT };
        for entry in &mut container.env {
            if let Some((name, value)) = entry.split_once('=') {
                let value = budget.expand(value).map_err(|error| {
                    error.within(&format!("expanding env failed: expanding env {entry:?}"))
                })?;
                *entry = format!("{name}={value}");
            }
        }
        for mount in &mut container.mounts {
            budget.mount(mount).map_err(|error| error.within("expanding mounts failed"))?;
        }
        container.hostname =
            budget.expand(&self.hostname).map_err(|error| error.within("expanding hostname failed"))?;
        Ok(container)
    }
}

/// Expands texts until they are too many.
struct Budget<'a> {
    context: &'a Context<'a>,
    left: usize,
}

impl Budget<'_> {
    fn expand(&mut self, text: &str) -> Result<String, TemplateError> {
        let expanded = expand(text, self.context)?;
        match self.left.checked_sub(expanded.len()) {
            Some(left) => self.left = left,
            None => return failed(format!("the container's texts become more than {EXPANDED_LIMIT} bytes")),
        }
        Ok(expanded)
    }

    fn path(&mut self, path: &mut PathBuf, what: &str) -> Result<(), TemplateError> {
        // What is not text is no template.
        if let Some(text) = path.to_str() {
            let expanded = self.expand(text);
            let within = |error: TemplateError| error.within(&format!("expanding mount {what} {text:?}"));
            *path = expanded.map_err(within)?.into();
        }
        Ok(())
    }

    fn mount(&mut self, mount: &mut Mount) -> Result<(), TemplateError> {
        match &mut mount.source {
            MountSource::Bind { path, .. } => self.path(path, "source")?,
            MountSource::Volume { name, labels, .. } => {
                let within = |error: TemplateError| error.within(&format!("expanding mount source {name:?}"));
                *name = self.expand(name).map_err(within)?;
                for value in labels.values_mut() {
                    *value = self.expand(value).map_err(|error| error.within("expanding volume labels"))?;
                }
            }
            MountSource::Tmpfs { .. } => {}
        }
        self.path(&mut mount.target, "target")
    }
}

#[cfg(test)]
mod tests;
