//! Tapes live as long as marks need them, and no longer.

use std::path::Path;

use serde_json::Value;

use crate::node::{Node, quote};

const TIME: i64 = 1_704_292_200_000_000_000;

/// Bytes of all tape segments.
fn tape_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder.join("data/store/tapes")).expect("the folder of tapes");
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|data| data.len()).sum()
}

/// A size that compresses badly, so that the tape has more than one segment.
const fn scattered(i: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}

async fn sizes(node: &Node) -> Vec<u64> {
    node.history("quotes", "OLD", "").await.iter().filter_map(|quote: &Value| quote["as"].as_u64()).collect()
}

/// So that little data fills more than one.
const SMALL_SEGMENTS: [&str; 6] = [
    "--set",
    "store.segment_bytes=131072",
    "--set",
    "tape.frame_bytes_max=32768",
    "--set",
    "tape.flush_bytes=16384",
];

#[tokio::test]
async fn a_node_that_was_off_for_longer_than_the_tapes_live_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node =
        Node::new(folder.path(), &[&SMALL_SEGMENTS[..], &["--set", "history.linger_ms=3600000"]].concat());
    node.start().await;
    let mut want = Vec::new();
    for batch in 0..100_u64 {
        let numbers: Vec<u64> = (batch * 500..(batch + 1) * 500).map(scattered).collect();
        let times = TIME + i64::try_from(batch).expect("small") * 500..;
        let ticks: Vec<Value> =
            numbers.iter().zip(times).map(|(size, time)| quote("OLD", *size, time)).collect();
        assert_eq!(node.post_ticks(&ticks, "?backfill=true", None).await.status, 200);
        want.extend(numbers);
    }
    node.kill().await;
    let before = tape_bytes(folder.path());
    // Every tape is now older than tapes live; only the marks keep them.
    let mut node = {
        let mut next = Node::new(
            folder.path(),
            &[&SMALL_SEGMENTS[..], &["--set", "store.tape_hours=0", "--set", "history.linger_ms=200"]]
                .concat(),
        );
        (next.read, next.write) = (node.read.clone(), node.write.clone());
        next
    };
    node.start().await;
    assert_eq!(sizes(&node).await, want);
    // Once the marks cover them they go, and history stays.
    let mut shrunk = false;
    for _ in 0..600 {
        if tape_bytes(folder.path()) < before {
            shrunk = true;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(shrunk, "segments that every mark covers are unlinked");
    assert_eq!(sizes(&node).await, want);
    node.stop().await;
    node.start().await;
    assert_eq!(sizes(&node).await, want);
    node.stop().await;
}
