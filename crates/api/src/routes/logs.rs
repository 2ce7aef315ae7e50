//! `/containers/{id}/logs`.

use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use skep_engine::containers::{LogLine, LogSource, LogStream};
use skep_engine::options::LogQuery;

use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::filters::time_parameter;
use crate::hijack::{frame, stream_type};
use crate::http::{Answer, streamed, with_type};
use crate::query::Query;

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

async fn next(lines: &mut LogStream, form: Form) -> Option<Bytes> {
    match lines.next().await {
        Ok(line) => line.map(|line| write(&line, form)),
        Err(error) => {
            // The head of the answer is out: all that is left is to stop.
            tracing::error!("reading a container's log: {error}");
            None
        }
    }
}

fn write(line: &LogLine, form: Form) -> Bytes {
    let mut bytes = Vec::with_capacity(line.bytes.len() + 32);
    if form.timestamps {
        bytes.extend_from_slice(line.time.to_string().as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(&line.bytes);
    match (form.tty, line.source) {
        (true, _) => bytes.into(),
        (false, LogSource::Stdout) => frame(1, &bytes),
        (false, LogSource::Stderr) => frame(2, &bytes),
    }
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
        let plain = Form { timestamps: false, tty: false };
        assert_eq!(write(&line, plain), &b"\x02\0\0\0\0\0\0\x03hi\n"[..]);
        let stamped = Form { timestamps: true, tty: true };
        assert_eq!(write(&line, stamped), "1970-01-01T00:00:01.500000000Z hi\n");
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
