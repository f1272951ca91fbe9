//! Producers that want to know: receipts of requests, and connections that stay.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::node::{Answer, Node, answer, quote, trade};

const TIME: i64 = 1_704_292_200_000_000_000;

async fn receipt(node: &Node, key: &str) -> Answer {
    let request = node.client.get(format!("{}/v1/receipts/{key}", node.http));
    answer(
        request.header("APCA-API-KEY-ID", &node.write.id).header("APCA-API-SECRET-KEY", &node.write.secret),
    )
    .await
}

#[tokio::test]
async fn a_receipt_tells_what_became_of_a_request_and_how_far_back_it_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let unseen = receipt(&node, "batch").await;
    assert_eq!((unseen.status, &unseen.json["reason"]), (404, &"not_seen".into()), "{}", unseen.json);
    let mut ticks: Vec<_> = (0..50).map(|id| trade("RECEIPT", id, TIME)).collect();
    ticks[20]["p"] = (-1).into();
    let posted = node.post_ticks(&ticks, "", Some("batch")).await;
    assert_eq!((posted.status, posted.count("accepted")), (200, 49), "{}", posted.json);
    let stored = receipt(&node, "batch").await;
    assert_eq!((stored.status, &stored.json["outcome"]), (200, &"stored".into()), "{}", stored.json);
    assert_eq!(stored.count("accepted"), 49);
    let spans = serde_json::json!([{"first": 0, "last": 19}, {"first": 21, "last": 49}]);
    assert_eq!((&stored.json["positions"], stored.count("remembered_minutes")), (&spans, 10));
    let bad = node.post_ticks(&ticks[20..21], "", Some("bad")).await;
    assert_eq!((bad.count("refused"), receipt(&node, "bad").await.status), (1, 404), "it stored nothing");
    node.stop().await;
    node.start().await;
    let later = receipt(&node, "never").await;
    let since = |answer: &Answer| answer.json["remembered_since"].as_str().expect("a time").to_owned();
    assert_eq!(later.status, 404);
    assert!(since(&later) > since(&stored), "the memory begins with the start");
    node.stop().await;
}

/// A connection to `/v1/ingest`: what is sent, and the lines that come back.
struct Connection {
    send: Option<mpsc::Sender<Bytes>>,
    answer: futures::stream::BoxStream<'static, Option<Bytes>>,
    rest: Vec<u8>,
}

impl Connection {
    async fn open(node: &Node, key: &str, first: u64) -> Option<Self> {
        let (send, mut sent) = mpsc::channel::<Bytes>(1);
        let body = futures::stream::poll_fn(move |cx| {
            sent.poll_recv(cx).map(|piece| piece.map(Ok::<_, std::io::Error>))
        });
        let response = node
            .client
            .post(format!("{}/v1/ingest?key={key}&first={first}", node.http))
            .header("APCA-API-KEY-ID", &node.write.id)
            .header("APCA-API-SECRET-KEY", &node.write.secret)
            .header("Content-Type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(body))
            .send()
            .await
            .ok()?;
        assert_eq!(response.status(), 200);
        let answer = response.bytes_stream().map(Result::ok).boxed();
        Some(Self { send: Some(send), answer, rest: Vec::new() })
    }

    async fn send(&self, text: String) -> bool {
        match &self.send {
            Some(send) => send.send(text.into()).await.is_ok(),
            None => false,
        }
    }

    /// The next line of the answer; none where it has ended or was cut.
    async fn said(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            self.rest.extend_from_slice(&self.answer.next().await.flatten()?);
        }
    }
}

/// A line whose tick has no number of the exchange: its own number alone makes it one tick.
fn line(number: u64) -> String {
    format!("{}\n", quote("STREAM", number + 1, TIME + i64::try_from(number).expect("few") * 1_000_000))
}

#[tokio::test]
async fn acknowledgements_come_while_the_body_is_sent_and_time_limits_do_not_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = [
        "ingest.answer_ms=200",
        "http.body_ms=300",
        "http.request_ms=300",
        "http.write_stall_ms=300",
        "http.header_read_ms=300",
    ];
    let flags: Vec<&str> = limits.iter().flat_map(|set| ["--set", *set]).collect();
    let mut node = Node::new(folder.path(), &flags);
    node.start().await;
    let mut connection = Connection::open(&node, "rolling", 0).await.expect("it opens");
    for number in 0..4 {
        assert!(connection.send(line(number)).await);
        let said = connection.said().await.expect("an acknowledgement");
        assert_eq!(
            (&said["first"], &said["last"], &said["accepted"]),
            (&number.into(), &number.into(), &1.into())
        );
        // Longer than each of the limits, with nothing on its way in either direction.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    connection.send = None;
    let bye = connection.said().await.expect("the last line");
    assert_eq!(bye, serde_json::json!({"bye": "end", "resume_from": 4}));
    assert_eq!(connection.said().await, None);
    assert_eq!(node.history("quotes", "STREAM", "").await.len(), 4);
    node.stop().await;
}

#[tokio::test]
async fn http2_carries_lines_and_acknowledgements_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let address = node.http.strip_prefix("http://").expect("an address");
    let socket = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let (client, connection) = h2::client::handshake(socket).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let request = axum::http::Request::post(format!("{}/v1/ingest?key=h2", node.http))
        .header("APCA-API-KEY-ID", &node.write.id)
        .header("APCA-API-SECRET-KEY", &node.write.secret)
        .header("Content-Type", "application/x-ndjson")
        .body(())
        .expect("a request");
    let mut client = client.ready().await.expect("a connection");
    let (response, mut send) = client.send_request(request, false).expect("a stream");
    let response = response.await.expect("an answer before the end of the body");
    assert_eq!(response.status(), 200);
    let mut answer = response.into_body();
    for number in 0..3_u64 {
        send.send_data(Bytes::from(line(number)), false).expect("a line is sent");
        let said = answer.data().await.expect("an acknowledgement").expect("data");
        let said: Value = serde_json::from_slice(&said).expect("a line of JSON");
        assert_eq!((&said["last"], &said["accepted"]), (&number.into(), &1.into()), "{said}");
    }
    send.send_data(Bytes::new(), true).expect("the end");
    let bye = answer.data().await.expect("the last line").expect("data");
    assert_eq!(&*bye, b"{\"bye\":\"end\",\"resume_from\":3}\n");
    while let Some(piece) = answer.data().await {
        assert!(piece.expect("the end of the stream").is_empty());
    }
    drop((client, send, answer));
    connection.abort();
    node.stop().await;
}

#[tokio::test]
async fn a_drain_says_where_to_resume() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let mut connection = Connection::open(&node, "drained", 10).await.expect("it opens");
    assert!(connection.send(line(10)).await);
    assert_eq!(connection.said().await.expect("an acknowledgement")["last"], 10);
    let stopped = node.stop();
    let told = async {
        let bye = connection.said().await.expect("the last line");
        assert_eq!(bye, serde_json::json!({"bye": "draining", "resume_from": 11}));
        assert_eq!(connection.said().await, None);
    };
    let (status, ()) = futures::future::join(stopped, told).await;
    assert_eq!(status, Some(0));
}

/// Sends lines from `first` on until all are acknowledged, the connection is dropped after so many
/// acknowledgements, or it is cut; answers the first line that is not acknowledged.
async fn send_on(node: &Node, first: u64, behind: u64, drop_after: usize, sizes: &[u64]) -> u64 {
    let Some(mut connection) = Connection::open(node, "cut", first).await else { return first };
    let (mut next, mut acknowledged, mut acks) = (first, first, 0);
    let mut sizes = sizes.iter().cycle();
    while acknowledged < behind && acks < drop_after {
        if next < behind {
            let end = behind.min(next + sizes.next().expect("a cycle"));
            let text: String = (next..end).map(line).collect();
            let cut = text.len() / 3;
            // In pieces that end inside of lines.
            if !connection.send(text[..cut].to_owned()).await
                || !connection.send(text[cut..].to_owned()).await
            {
                return acknowledged;
            }
            next = end;
        }
        // With lines left to send it does not wait long for an acknowledgement.
        let said = if next < behind {
            let soon = tokio::time::timeout(Duration::from_millis(2), connection.said());
            soon.await.unwrap_or(Some(Value::Null))
        } else {
            connection.said().await
        };
        match said {
            None => return acknowledged,
            Some(Value::Null) => {}
            Some(said) => {
                let Some(last) = said["last"].as_u64() else {
                    assert_eq!(said["resume_from"], acknowledged, "{said}");
                    return acknowledged;
                };
                assert_eq!(said["first"], acknowledged, "{said}");
                assert_eq!(said["refused"], serde_json::json!([]));
                (acknowledged, acks) = (last + 1, acks + 1);
            }
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_cut_at_random_and_resumed_are_stored_once() {
    const LINES: u64 = 4_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &["--set", "ingest.batch_lines_max=40"]);
    node.start().await;
    let seed = 20_260_117;
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let (mut next, mut cuts) = (0, 0);
    while next < LINES {
        let drop_after = if cuts < 40 { random.random_range(0..6) } else { usize::MAX };
        let sizes: Vec<u64> = (0..7).map(|_| random.random_range(1..60)).collect();
        let acknowledged = send_on(&node, next, LINES, drop_after, &sizes).await;
        assert!(acknowledged >= next, "seed {seed}");
        (next, cuts) = (acknowledged, cuts + 1);
        if cuts == 20 {
            // What this node remembers: each line once, whatever was sent again.
            let stored = node.client.get(format!("{}/v1/receipts/cut?stream=true", node.http));
            let stored = answer(
                stored
                    .header("APCA-API-KEY-ID", &node.write.id)
                    .header("APCA-API-SECRET-KEY", &node.write.secret),
            )
            .await;
            assert_eq!(stored.json["positions"][0]["first"], 0, "seed {seed}: {}", stored.json);
            assert!(stored.count("accepted") >= next, "seed {seed}: {}", stored.json);
            node.kill().await;
            node.start().await;
        }
    }
    assert!(cuts > 20, "only {cuts} cuts");
    let mut sizes: Vec<u64> = node
        .history("quotes", "STREAM", "")
        .await
        .iter()
        .map(|quote| quote["as"].as_u64().expect("a size"))
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, (1..=LINES).collect::<Vec<_>>(), "seed {seed}: each line once");
    let uri = "/v2/stocks/quotes/latest?symbols=STREAM";
    assert_eq!(node.get(uri).await.json["quotes"]["STREAM"]["as"], LINES);
    node.stop().await;
}
