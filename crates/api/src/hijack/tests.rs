#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;

struct Session {
    /// What the user's end of the connection is.
    client: DuplexStream,
    /// What the container's end of its streams is.
    container: UnixStream,
    relay: JoinHandle<()>,
}

fn session(stdin: bool, detach: Option<DetachKeys>) -> Session {
    let (client, server) = tokio::io::duplex(1024);
    let (stream, container) = UnixStream::pair().unwrap();
    let join = Join { stream, media_type: RAW, stdin, detach };
    Session { client, container, relay: tokio::spawn(relay(server, join)) }
}

async fn read_all(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn input_ends_before_output_does() {
    let Session { mut client, mut container, relay } = session(true, None);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut container).await, "question");
    container.write_all(b"answer").await.unwrap();
    drop(container);
    assert_eq!(read_all(&mut client).await, "answer");
    relay.await.unwrap();
}

#[tokio::test]
async fn the_end_of_output_is_the_end_of_all() {
    let Session { mut client, mut container, relay } = session(true, None);
    container.write_all(b"bye").await.unwrap();
    drop(container);
    assert_eq!(read_all(&mut client).await, "bye");
    relay.await.unwrap();
}

#[tokio::test]
async fn detach_keys_leave_the_container_without_reaching_it() {
    let Session { mut client, mut container, relay } = session(true, Some(DetachKeys::parse("").unwrap()));
    client.write_all(b"ls\x10\x11").await.unwrap();
    relay.await.unwrap();
    assert_eq!(read_all(&mut container).await, "ls");
    assert_eq!(read_all(&mut client).await, "");
}

#[tokio::test]
async fn what_is_not_input_is_dropped() {
    let Session { mut client, mut container, relay } = session(false, None);
    client.write_all(b"noise").await.unwrap();
    client.shutdown().await.unwrap();
    container.write_all(b"output").await.unwrap();
    let mut buffer = [0; 6];
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"output");
    // Nothing came, and the container's input did not end either.
    assert_eq!(container.try_read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(container);
    relay.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_writer() {
    let Session { client, container, relay } = session(false, None);
    let mut written = 0;
    // Until every buffer on the way is full: nobody takes more on.
    while let Ok(Ok(length)) = tokio::time::timeout(std::time::Duration::from_millis(200), async {
        container.writable().await?;
        match container.try_write(&[0; 65536]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    })
    .await
    {
        written += length;
        assert!(written < 4 << 20, "more than the kernel's and the relay's buffers hold");
    }
    drop(client);
    drop(container);
    relay.await.unwrap();
}
