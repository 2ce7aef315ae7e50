#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;

use super::*;

fn entry(text: &str, stream: &str, second: u64) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!("{{\"log\":{text},\"stream\":\"{stream}\",\"time\":\"{}\"}}\n", Time(second * 1_000_000_000))
}

fn both() -> LogQuery {
    LogQuery { stdout: true, stderr: true, ..LogQuery::default() }
}

/// What is read of a log with these contents.
async fn read(contents: &str, query: LogQuery) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contents).unwrap();
    collect(LogReader::open(file.path(), query, None).unwrap()).await
}

async fn collect(mut reader: LogReader) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(line) = reader.next().await.unwrap() {
        lines.push(String::from_utf8(line.bytes).unwrap());
    }
    lines
}

fn ten() -> String {
    (0..10).map(|n| entry(&format!("{n}\n"), if n % 2 == 0 { "stdout" } else { "stderr" }, n)).collect()
}

#[tokio::test]
async fn queries_select_lines() {
    assert_eq!(read(&ten(), both()).await.len(), 10);
    assert_eq!(read(&ten(), LogQuery { stderr: false, ..both() }).await, ["0\n", "2\n", "4\n", "6\n", "8\n"]);
    assert_eq!(read(&ten(), LogQuery { tail: Some(2), ..both() }).await, ["8\n", "9\n"]);
    assert_eq!(read(&ten(), LogQuery { tail: Some(99), ..both() }).await.len(), 10);
    assert_eq!(read(&ten(), LogQuery { tail: Some(0), ..both() }).await.len(), 0);
    let (since, until) = (Some(Time(3_000_000_000)), Some(Time(5_000_000_000)));
    assert_eq!(read(&ten(), LogQuery { since, until, ..both() }).await, ["3\n", "4\n", "5\n"]);
    assert_eq!(read("", both()).await.len(), 0);
}

#[tokio::test]
async fn torn_and_foreign_lines_are_passed_over() {
    let good = entry("good\n", "stdout", 1);
    let torn = &good[..20];
    assert_eq!(read(&format!("{torn}\nnoise\n{good}{torn}"), both()).await, ["good\n"]);
    let tail = LogQuery { tail: Some(1), ..both() };
    assert_eq!(read(&format!("{good}{good}{torn}"), tail).await, ["good\n"]);
    let huge = "x".repeat(3 * LINE_LIMIT);
    assert_eq!(read(&format!("{huge}\n{good}"), both()).await, ["good\n"]);
}

#[tokio::test]
async fn tail_crosses_blocks() {
    let long = "y".repeat(9000);
    let contents: String = (0..40).map(|n| entry(&format!("{n} {long}\n"), "stdout", n)).collect();
    let lines = read(&contents, LogQuery { tail: Some(25), ..both() }).await;
    assert_eq!(lines.len(), 25);
    assert!(lines[0].starts_with("15 "));
}

#[tokio::test]
async fn a_missing_log_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    assert!(collect(LogReader::open(&path, both(), None).unwrap()).await.is_empty());
    assert!(!path.exists());
}

#[tokio::test]
async fn following_ends_when_the_container_has_and_all_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let ended: Ended = Box::pin(async { drop(ended.await) });
    let mut reader = LogReader::open(&path, LogQuery { tail: Some(5), ..both() }, Some(ended)).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let text = entry("one\n", "stdout", 1);
    let writer = async {
        file.write_all(&text.as_bytes()[..10]).unwrap();
        tokio::task::yield_now().await;
        file.write_all(&text.as_bytes()[10..]).unwrap();
        tokio::task::yield_now().await;
    };
    let (line, ()) = tokio::join!(reader.next(), writer);
    assert_eq!(line.unwrap().unwrap().bytes, b"one\n");
    file.write_all(entry("two\n", "stderr", 2).as_bytes()).unwrap();
    end.send(()).unwrap();
    assert_eq!(collect(reader).await, ["two\n"]);
}

#[tokio::test]
async fn without_watches_a_log_is_followed_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let ended: Ended = Box::pin(async { drop(ended.await) });
    let mut reader = LogReader::open(&path, both(), Some(ended)).unwrap();
    reader.follow.as_mut().unwrap().changes = None;
    let writer = async {
        tokio::task::yield_now().await;
        std::fs::write(&path, entry("late\n", "stdout", 1)).unwrap();
    };
    let (line, ()) = tokio::join!(reader.next(), writer);
    assert_eq!(line.unwrap().unwrap().bytes, b"late\n");
    end.send(()).unwrap();
    assert!(collect(reader).await.is_empty());
}
