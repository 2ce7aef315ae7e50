//! `/containers/{id}/logs`.

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use hyper::StatusCode;
use skep_engine::containers::{LogLine, LogSource, LogStream};
use skep_engine::options::LogQuery;

use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::time_parameter;
use crate::hijack::{frame_head, stream_type};
use crate::http::{Answer, streamed, with_type};
use crate::query::Query;

/// Bytes after which a part of the stream is sent, though more lines may be there.
const PART_LEN: usize = 32 * 1024;

/// A container's log as a stream: read from the disk only as fast as the client reads.
pub async fn container(context: &Context, name: &str, call: Call) -> Answer {
    let form = Form { timestamps: call.query.flag("timestamps"), tty: false };
    let (tty, lines) = context.engine.logs(name, query(&call.query)?).await?;
    let form = Form { tty, ..form };
    let parts = stream::unfold((lines, form), |(mut lines, form)| async move {
        let part = next(&mut lines, form).await?;
        Some((part, (lines, form)))
    });
    Ok(with_type(StatusCode::OK, stream_type(call.version, tty), streamed(parts)))
}

/// How lines are written.
#[derive(Clone, Copy, Debug)]
struct Form {
    timestamps: bool,
    tty: bool,
}

/// The next lines in one part: one that is waited for, and those that are there already. A part a line would
/// cost a write a line, here and at the client.
async fn next(lines: &mut LogStream, form: Form) -> Option<Bytes> {
    let mut part = Vec::new();
    let mut read = lines.next().await;
    loop {
        match read {
            Ok(Some(line)) => write(&mut part, &line, form),
            Ok(None) => break,
            Err(error) => {
                // The head of the answer is out: all that is left is to stop.
                tracing::error!("reading a container's log: {error}");
                break;
            }
        }
        if part.len() >= PART_LEN {
            break;
        }
        // A read that is given up loses nothing: the stream's place moves only when a line is given.
        match lines.next().now_or_never() {
            Some(next) => read = next,
            None => break,
        }
    }
    (!part.is_empty()).then(|| part.into())
}

fn write(part: &mut Vec<u8>, line: &LogLine, form: Form) {
    let stamp = if form.timestamps { format!("{} ", line.time) } else { String::new() };
    if !form.tty {
        let stream = match line.source {
            LogSource::Stdout => 1,
            LogSource::Stderr => 2,
        };
        part.extend_from_slice(&frame_head(stream, stamp.len() + line.bytes.len()));
    }
    part.extend_from_slice(stamp.as_bytes());
    part.extend_from_slice(&line.bytes);
}

fn query(query: &Query) -> Result<LogQuery, ApiError> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    Ok(LogQuery {
        stdout,
        stderr,
        since: time_parameter(query, "since")?,
        until: time_parameter(query, "until")?,
        // Docker takes whatever is no number as "all".
        tail: query.text("tail").parse().ok(),
        follow: query.flag("follow"),
    })
}

#[cfg(test)]
mod tests {
    use skep_types::Time;

    use super::*;

    #[test]
    fn lines_are_framed_and_stamped() {
        let line = LogLine { source: LogSource::Stderr, time: Time(1_500_000_000), bytes: b"hi\n".to_vec() };
        let written = |timestamps, tty| {
            let mut part = Vec::new();
            write(&mut part, &line, Form { timestamps, tty });
            part
        };
        assert_eq!(written(false, false), b"\x02\0\0\0\0\0\0\x03hi\n");
        assert_eq!(written(true, true), b"1970-01-01T00:00:01.500000000Z hi\n");
        assert_eq!(written(true, false), b"\x02\0\0\0\0\0\0\x221970-01-01T00:00:01.500000000Z hi\n");
    }

    #[test]
    fn parameters_are_read_as_docker_reads_them() {
        assert!(query(&Query::parse("follow=1")).is_err());
        assert!(query(&Query::parse("stdout=1&since=yesterday")).is_err());
        let all =
            query(&Query::parse("stdout=1&tail=all&since=0&until=1700000000.5")).expect("good parameters");
        assert_eq!((all.tail, all.since, all.until), (None, None, Some(Time(1_700_000_000_500_000_000))));
        assert_eq!(query(&Query::parse("stderr=1&tail=0")).map(|query| query.tail), Ok(Some(0)));
    }
}
