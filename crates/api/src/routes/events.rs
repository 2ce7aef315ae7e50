//! `/events`.

use futures_util::stream;
use hyper::StatusCode;
use skep_engine::events::EventStream;
use skep_engine::options::EventQuery;
use skep_swarm::EventSubscription;
use skep_types::Time;
use skep_types::events::{Event, EventKind};
use tokio::sync::broadcast::error::RecvError;

use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::{Filters, time_parameter};
use crate::http::{Answer, streamed, with_type};
use crate::translate::system;

/// The filters that Docker knows; those on objects that do not exist yet let nothing through.
const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Events of this machine and of the swarm, one JSON value a line, as they come.
pub fn follow(context: &Context, call: &Call) -> Answer {
    let filters = Filters::parse(&call.query, &FILTERS)?;
    let (since, until) = (time_parameter(&call.query, "since")?, time_parameter(&call.query, "until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    let mut swarm = context.swarm.events(since);
    swarm.past.reverse();
    let merged = Merged {
        engine: Some(context.engine.events(EventQuery { since, until })),
        waiting: None,
        swarm: Some(swarm),
        until,
    };
    let parts = stream::unfold((merged, filters), |(mut merged, filters)| async move {
        loop {
            let event = merged.next().await?;
            if matches(&event, &filters) {
                return Some((system::event(&event), (merged, filters)));
            }
        }
    });
    Ok(with_type(StatusCode::OK, "application/json", streamed(parts)))
}

/// Two sources in one order.
struct Merged {
    engine: Option<EventStream>,
    /// An event of the engine's that was read while an older one of the swarm's went first.
    waiting: Option<Event>,
    /// Past events, the newest first, and those to come.
    swarm: Option<EventSubscription>,
    until: Option<Time>,
}

impl Merged {
    /// The next event of either; `None` when both have ended or `until` has passed.
    async fn next(&mut self) -> Option<Event> {
        // The past first, in order of time.
        if let Some(swarm) = &mut self.swarm
            && let Some(oldest) = swarm.past.last()
        {
            if self.waiting.is_none()
                && let Some(engine) = &mut self.engine
            {
                // Only what is there already: the past waits for nothing.
                self.waiting = futures_util::FutureExt::now_or_never(engine.next()).flatten();
            }
            match self.waiting.take_if(|event| event.time <= oldest.time) {
                Some(event) => return Some(event),
                None => return swarm.past.pop(),
            }
        }
        if let Some(event) = self.waiting.take() {
            return Some(event);
        }
        self.next_live().await
    }

    async fn next_live(&mut self) -> Option<Event> {
        // The engine's stream knows `until` itself, and its end is the end of all.
        let engine = self.engine.as_mut()?;
        loop {
            let Some(swarm) = &mut self.swarm else { return engine.next().await };
            tokio::select! {
                event = engine.next() => return event,
                received = swarm.future.recv() => match received {
                    Ok(event) if self.until.is_some_and(|until| event.time > until) => {}
                    Ok(event) => return Some(event),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!("a client that follows events is too slow: it missed {missed} of them");
                    }
                    Err(RecvError::Closed) => self.swarm = None,
                },
            }
        }
    }
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let object = |filter: &str, kind: EventKind| {
        !filters.has(filter)
            || (event.kind == kind
                && filters.any(filter, |wanted| {
                    event.id.starts_with(wanted) || attribute("name").is_some_and(|name| name == wanted)
                }))
    };
    let scope = match event.scope {
        skep_types::events::Scope::Local => "local",
        skep_types::events::Scope::Swarm => "swarm",
    };
    filters.any("type", |kind| kind == event.kind.name())
        && filters.any("scope", |wanted| wanted == scope)
        // `exec_start` means `exec_start: sh` too.
        && filters.any("event", |action| {
            event.action == action || event.action.split_once(": ").is_some_and(|(verb, _)| verb == action)
        })
        && filters.labels("label", |key| attribute(key))
        && object("container", EventKind::Container)
        && object("volume", EventKind::Volume)
        && object("network", EventKind::Network)
        && object("daemon", EventKind::Daemon)
        && object("service", EventKind::Service)
        && object("node", EventKind::Node)
        && matches_image(event, filters)
        && ["config", "plugin", "secret"].iter().all(|kind| !filters.has(kind))
}

/// As moby's `matchImage`: an image's own events, and those of containers made from it.
fn matches_image(event: &Event, filters: &Filters) -> bool {
    let attribute = match event.kind {
        EventKind::Image => "name",
        _ => "image",
    };
    let named = event.attributes.get(attribute).map(String::as_str).unwrap_or_default();
    let repository = |name: &str| -> String {
        let at = name.rfind(':').filter(|at| !name.get(*at..).unwrap_or_default().contains('/'));
        name.get(..at.unwrap_or(name.len())).unwrap_or_default().to_owned()
    };
    filters.any("image", |wanted| {
        event.id == wanted || named == wanted || (!named.is_empty() && repository(named) == wanted)
    })
}

#[cfg(test)]
mod tests {
    use skep_types::events::Scope;

    use super::*;
    use crate::query::Query;

    fn die() -> Event {
        Event {
            kind: EventKind::Container,
            action: "exec_start: sh -c x".to_owned(),
            id: "abcdef".to_owned(),
            attributes: [("name", "web"), ("image", "localhost:5000/busybox:1"), ("tier", "front")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            scope: Scope::Local,
            time: Time(1),
        }
    }

    fn lets_through(filters: &str) -> bool {
        let query = Query::parse(&format!("filters={filters}"));
        matches(&die(), &Filters::parse(&query, &FILTERS).expect("good filters"))
    }

    #[test]
    fn events_are_filtered_as_docker_does() {
        for filters in [
            "{}",
            r#"{"type":["container","image"]}"#,
            r#"{"event":["exec_start"]}"#,
            r#"{"container":["web"]}"#,
            r#"{"container":["abc"]}"#,
            r#"{"image":["localhost:5000/busybox"]}"#,
            r#"{"label":["tier=front"]}"#,
            r#"{"scope":["local"]}"#,
        ] {
            assert!(lets_through(filters), "{filters}");
        }
        for filters in [
            r#"{"type":["network"]}"#,
            r#"{"event":["exec"]}"#,
            r#"{"container":["we"]}"#,
            r#"{"volume":["web"]}"#,
            r#"{"image":["localhost"]}"#,
            r#"{"label":["tier=back"]}"#,
            r#"{"secret":["web"]}"#,
        ] {
            assert!(!lets_through(filters), "{filters}");
        }
    }
}
