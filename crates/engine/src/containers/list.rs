//! `docker ps`.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_images::Image;

use super::filter::{Filter, PortRange};
use super::network_mode;
use super::registry::Container;
use crate::options::ContainerFilter;
use crate::view::{ContainerSummary, Status};
use crate::{Engine, Result, blocking};

impl Engine {
    /// The containers that a filter lets through, youngest first.
    ///
    /// # Errors
    /// 404 when `before` or `since` name no container; 400 for a port that is none.
    pub async fn list(&self, filter: &ContainerFilter) -> Result<Vec<ContainerSummary>> {
        let (engine, asked) = (self.clone(), filter.clone());
        blocking(move || engine.list_blocking(&asked)).await?
    }

    fn list_blocking(&self, asked: &ContainerFilter) -> Result<Vec<ContainerSummary>> {
        let images = self.images_by_id();
        let filter = self.look_up(asked, &images)?;
        let mut containers = self.shared.containers.all();
        containers.sort_by_key(|container| std::cmp::Reverse((container.record.created, container.id())));
        let shown = containers
            .into_iter()
            .map(|container| (self.summary(&container, &images), container))
            .filter(|(summary, _)| filter.admits(summary))
            .take(asked.limit.unwrap_or(usize::MAX));
        Ok(shown
            .map(|(summary, container)| {
                let size = asked.size.then(|| self.measure(&container));
                // As Docker: filters see what a container exposes, users only what it has while it runs.
                let runs = summary.state.status == Status::Running;
                let ports = if runs { summary.ports } else { Vec::new() };
                ContainerSummary { size, ports, ..summary }
            })
            .collect())
    }

    fn images_by_id(&self) -> BTreeMap<String, Image> {
        // A store that cannot be read shows itself where images are listed; containers can be listed without.
        let images = self.shared.images.list().unwrap_or_default();
        images.into_iter().map(|image| (image.id.to_string(), image)).collect()
    }

    fn look_up<'a>(
        &self,
        asked: &'a ContainerFilter,
        images: &BTreeMap<String, Image>,
    ) -> Result<Filter<'a>> {
        let ranges = |filter: &str, texts: &[String]| -> Result<Vec<PortRange>> {
            texts.iter().map(|text| PortRange::parse(filter, text)).collect()
        };
        let created = |name: &Option<String>| -> Result<Option<skep_types::Time>> {
            name.as_ref().map(|name| Ok(self.find(name)?.record.created)).transpose()
        };
        Ok(Filter {
            asked,
            ancestors: self.ancestors(&asked.ancestor, images),
            before: created(&asked.before)?,
            since: created(&asked.since)?,
            publish: ranges("publish", &asked.publish)?,
            expose: ranges("expose", &asked.expose)?,
        })
    }

    /// The ids of the named images and of those that are built on them. A name of nothing is no error in Docker: it
    /// has no descendants.
    fn ancestors(&self, names: &[String], images: &BTreeMap<String, Image>) -> Vec<String> {
        let named: Vec<Image> = names.iter().filter_map(|name| self.shared.images.find(name).ok()).collect();
        let descends = |image: &Image| {
            named.iter().any(|ancestor| {
                image.id == ancestor.id
                    || !ancestor.layers.is_empty() && image.layers.starts_with(&ancestor.layers)
            })
        };
        images.values().filter(|image| descends(image)).map(|image| image.id.to_string()).collect()
    }

    fn summary(&self, container: &Arc<Container>, images: &BTreeMap<String, Image>) -> ContainerSummary {
        let record = &container.record;
        let image_id = record.image_id.to_string();
        ContainerSummary {
            id: record.id,
            name: record.name.clone(),
            image: shown_image(&record.config.image, &image_id, images),
            command: command(&record.arguments()),
            created: record.created,
            ports: self.ports(container),
            labels: record.config.labels.clone(),
            state: container.state.borrow().view(),
            mounts: self.mount_views(container),
            network_mode: network_mode(container),
            networks: self.places(container),
            size: None,
            image_id,
        }
    }
}

/// The image as it was typed, unless that name now stands for another image: then the container's own id.
fn shown_image(typed: &str, id: &str, images: &BTreeMap<String, Image>) -> String {
    let Ok(reference) = typed.parse::<skep_images::Reference>() else { return typed.to_owned() };
    let name = reference.familiar();
    let holder = images.values().find(|image| image.tags.contains(&name) || image.digests.contains(&name));
    let is_id = id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(typed)) || id.starts_with(typed);
    match holder {
        Some(holder) if holder.id.to_string() == id => typed.to_owned(),
        _ if is_id => typed.to_owned(),
        _ => id.to_owned(),
    }
}

/// Program and arguments in one line, as Docker shows them: those with spaces in single quotes.
fn command(words: &[String]) -> String {
    let shown = |(index, word): (usize, &String)| {
        if index > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() }
    };
    words.iter().enumerate().map(shown).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_in_one_line() {
        let words = ["sh", "-c", "sleep 1", "x"].map(str::to_owned);
        assert_eq!(command(&words), "sh -c 'sleep 1' x");
        assert_eq!(command(&[]), "");
    }
}
