//! The daemon's log, in the form of dockerd's: `time="..." level=info msg="..."`.

use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

use skep_types::Time;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Reloadable;

static LEVEL: OnceLock<Handle<Targets, tracing_subscriber::Registry>> = OnceLock::new();

/// Begins to log to standard error.
pub fn start(settings: &Reloadable) {
    let (filter, handle) = reload::Layer::new(targets(settings));
    let lines = tracing_subscriber::fmt::layer().event_format(Logfmt).with_writer(std::io::stderr);
    // A second subscriber or handle would mean that this was called twice; the first one stays.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    let _ = LEVEL.set(handle);
}

/// Takes on the level of reloaded settings.
pub fn reload(settings: &Reloadable) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(targets(settings))
    {
        tracing::warn!("cannot change the log's level: {error}");
    }
}

/// Crates of others, which tell every step that they take: each is heard from its level on, and below that only
/// with `trace`.
const OTHERS: [(&str, LevelFilter); 6] = [
    // It warns of every entry that nobody waits for, and takes every message that fails for an error. What ends it
    // is told by the consensus around it, as is who does not answer.
    ("openraft", LevelFilter::OFF),
    ("h2", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("hyper_util", LevelFilter::WARN),
    ("rustls", LevelFilter::WARN),
    ("tonic", LevelFilter::WARN),
];

fn targets(settings: &Reloadable) -> Targets {
    let level = level(settings);
    let targets = Targets::new().with_default(level);
    if level == LevelFilter::TRACE {
        return targets;
    }
    targets.with_targets(OTHERS.map(|(target, most)| (target, most.min(level))))
}

fn level(settings: &Reloadable) -> LevelFilter {
    match (settings.debug, settings.log_level.as_str()) {
        (true, _) | (_, "debug") => LevelFilter::DEBUG,
        (_, "trace") => LevelFilter::TRACE,
        (_, "warn") => LevelFilter::WARN,
        (_, "error" | "fatal" | "panic") => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let now = Time::from(SystemTime::now());
        writeln!(writer, "time=\"{now}\" level={level} msg={:?}{}", fields.message, fields.others)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
            return;
        }
        let text = format!("{value:?}");
        let bare = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte));
        self.others.push_str(&if bare {
            format!(" {}={text}", field.name())
        } else {
            format!(" {}={text:?}", field.name())
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
