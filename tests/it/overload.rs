//! Twice what the node takes: it refuses quickly, its memory stays bounded, and what it
//! accepted is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::node::{Node, answer, quote, trade};

const TIME: i64 = 1_704_292_200_000_000_000;
/// What the limits below add up to, plus the process itself: allocator, stacks, caches, code.
const MEMORY_MAX_KIB: u64 = 400 * 1024;

/// Peak resident memory of the node, in KiB.
fn peak_kib(node: &Node) -> u64 {
    let pid = node.pid().expect("the node runs").as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status of the process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("peak memory");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

/// Clients that come back all at once wait for a node that is busy: the system turns none away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_wait_for_a_node_that_is_busy() {
    const CLIENTS: usize = 1_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let address = node.http.strip_prefix("http://").expect("plain HTTP").to_owned();
    let pid = node.pid().expect("it runs");
    kill_process(pid, Signal::STOP).expect("it is stopped");
    let connecting = join_all((0..CLIENTS).map(|_| TcpStream::connect(&address)));
    let connected = tokio::time::timeout(Duration::from_secs(60), connecting).await;
    kill_process(pid, Signal::CONT).expect("it goes on");
    let connected = connected.expect("there is no room for so many");
    assert!(connected.iter().all(Result::is_ok), "some were turned away");
    drop(connected);
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_refused_quickly_with_bounded_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = [
        "ingest.in_flight_bytes_max=16777216",
        "http.body_bytes_max=8388608",
        "http.body_decompressed_bytes_max=8388608",
        "tape.queue_bytes_max=16777216",
        "tape.tail_bytes_max=67108864",
        "tape.held_bytes_max=16777216",
        "tape.requests_bytes_max=16777216",
        "history.linger_ms=500",
        "access.requests_per_minute=1000000",
        "access.requests_burst=1000000",
        "http.source_requests_per_minute=10000000",
    ];
    let flags: Vec<&str> = limits.iter().flat_map(|limit| ["--set", limit]).collect();
    let mut node = Node::new(folder.path(), &flags);
    node.start().await;
    let (accepted, refused) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(0_u32)));
    // 32 producers at once with 2 MB each: four times the bytes that may be in flight.
    let work = (0..32_u64).map(|producer| {
        let (node, accepted, refused) = (&node, Arc::clone(&accepted), Arc::clone(&refused));
        async move {
            for round in 0..4_u64 {
                let first = (producer * 4 + round) * 10_000;
                let body: Vec<String> = (first..first + 10_000)
                    .map(|i| trade("LOAD", i, TIME + i64::try_from(i).expect("small") * 1000).to_string())
                    .collect();
                let got = answer(node.post("?backfill=true", "application/x-ndjson", body.join("\n"))).await;
                match got.status {
                    200 => {
                        accepted.lock().await.insert(first);
                    }
                    503 => {
                        let wait = got
                            .headers
                            .get("Retry-After")
                            .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
                        assert!(wait.is_some_and(|seconds| seconds >= 1), "{:?} {}", got.headers, got.json);
                        *refused.lock().await += 1;
                    }
                    other => panic!("{other}: {}", got.json),
                }
            }
        }
    });
    join_all(work).await;
    let (accepted, refused) = (accepted.lock().await.clone(), *refused.lock().await);
    assert!(!accepted.is_empty() && refused > 0, "{} accepted, {refused} refused", accepted.len());
    let found: BTreeSet<u64> =
        node.history("trades", "LOAD", "").await.iter().filter_map(|tick| tick["i"].as_u64()).collect();
    let lost: Vec<_> = accepted
        .iter()
        .flat_map(|first| *first..first + 10_000)
        .filter(|id| !found.contains(id))
        .take(5)
        .collect();
    assert!(lost.is_empty(), "accepted and not found: {lost:?}");
    assert!(peak_kib(&node) < MEMORY_MAX_KIB, "{} KiB", peak_kib(&node));
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_key_over_its_rate_is_told_when_to_come_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(
        folder.path(),
        &["--set", "access.requests_per_minute=60", "--set", "access.requests_burst=3"],
    );
    node.start().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let got = node.get("/v2/stocks/trades?symbols=A").await;
        for name in ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Request-ID"] {
            assert!(got.headers.contains_key(name), "{name} of {}", got.status);
        }
        statuses.push(got.status);
        if got.status == 429 {
            assert_eq!(got.json["message"], "too many requests.");
            assert!(got.headers["Retry-After"].to_str().expect("text").parse::<u32>().expect("seconds") >= 1);
        }
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_slowly_is_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(
        folder.path(),
        &[
            "--set",
            "http.first_request_ms=300",
            "--set",
            "http.header_read_ms=300",
            "--set",
            "http.body_ms=300",
        ],
    );
    node.start().await;
    let address = node.http.trim_start_matches("http://").to_owned();
    let mut slow_head = TcpStream::connect(&address).await.expect("a connection");
    slow_head.write_all(b"GET /v2/stocks/trades HTTP/1.1\r\nHost: x\r\n").await.expect("half a head");
    let mut answer = Vec::new();
    slow_head.read_to_end(&mut answer).await.expect("closed by the node");
    let mut slow_body = TcpStream::connect(&address).await.expect("a connection");
    let head = format!(
        "POST /v1/ticks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAPCA-API-KEY-ID: {}\r\nAPCA-API-SECRET-KEY: {}\r\nContent-Length: 1000\r\n\r\n[",
        node.write.id, node.write.secret
    );
    slow_body.write_all(head.as_bytes()).await.expect("a head");
    let mut answer = vec![0; 1024];
    let count = slow_body.read(&mut answer).await.expect("an answer or the end");
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert!(count == 0 || text.starts_with("HTTP/1.1 408"), "{text}");
    assert_eq!(node.post_ticks(&[quote("FAST", 1, TIME)], "", None).await.status, 200);
    node.stop().await;
}

/// Posts one tick after the other until the node takes no more; answers which were acknowledged, and
/// which was the one that was not answered any more, and how.
async fn post_until_refused(node: &Node, producer: u64, acked: &AtomicUsize) -> (Vec<u64>, u16) {
    let mut kept = Vec::new();
    for i in (producer * 1_000_000)..((producer + 1) * 1_000_000) {
        let tick = trade("TERM", i, TIME + i64::try_from(i).expect("small"));
        let got = node.post_ticks(std::slice::from_ref(&tick), "", None).await;
        match got.status {
            200 => {
                kept.push(i);
                acked.fetch_add(1, Ordering::Relaxed);
            }
            // No connection any more, or an answer that says why.
            0 | 503 => return (kept, got.status),
            other => panic!("{other}: {}", got.json),
        }
    }
    panic!("the node has not stopped");
}

/// A request whose body is on its way: all of it but the last byte has been sent.
async fn begun_post(node: &Node, tick: &Value) -> (TcpStream, u8) {
    let body = serde_json::to_vec(&[tick]).expect("JSON");
    let (last, first) = body.split_last().expect("a body");
    let head = format!(
        "POST /v1/ticks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAPCA-API-KEY-ID: {}\r\nAPCA-API-SECRET-KEY: {}\r\nContent-Length: {}\r\n\r\n",
        node.write.id,
        node.write.secret,
        body.len()
    );
    let address = node.http.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(&[head.as_bytes(), first].concat()).await.expect("most of a request");
    (stream, *last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let begun = trade("BEGUN", 1, TIME);
    let (mut under_way, last_byte) = begun_post(&node, &begun).await;
    while node.metric("tapeline_http_requests_in_flight").await.expect("the metric") < 1.0 {
        tokio::task::yield_now().await;
    }
    let acked = AtomicUsize::new(0);
    let producers = (0..16).map(|producer| post_until_refused(&node, producer, &acked));
    let stop = async {
        while acked.load(Ordering::Relaxed) < 50 {
            tokio::task::yield_now().await;
        }
        let pid = node.pid().expect("the node runs");
        kill_process(pid, Signal::TERM).expect("a signal");
    };
    let (ends, ()) = join(join_all(producers), stop).await;
    // The node takes nothing new any more, and this request is still under way.
    under_way.write_all(&[last_byte]).await.expect("the node still reads");
    let mut answer = Vec::new();
    under_way.read_to_end(&mut answer).await.expect("an answer, and the end");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "a request under way is answered: {answer}");
    assert_eq!(node.stop().await, Some(0));
    assert!(!node.log().contains("ERROR"), "what was asked for is no error: {}", node.log());
    let kept: BTreeSet<u64> = ends.iter().flat_map(|(kept, _)| kept.iter().copied()).collect();
    assert!(kept.len() >= 50, "{} acknowledged", kept.len());
    node.start().await;
    let found: BTreeSet<u64> =
        node.history("trades", "TERM", "").await.iter().filter_map(|tick| tick["i"].as_u64()).collect();
    let lost: Vec<_> = kept.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert_eq!(node.history("trades", "BEGUN", "").await.len(), 1, "acknowledged during the drain");
    node.stop().await;
}
