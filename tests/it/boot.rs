//! How a node begins and ends: what it serves at once, signals while it starts, its files, and the
//! folder of a demo.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::process::Child;

use crate::node::{Node, quote, tapeline, trade};

/// The wall clock, in nanoseconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_nanos()).expect("before 2262")
}

pub fn exists_at_last(path: &Path) -> impl Future<Output = ()> {
    let path = path.to_owned();
    async move {
        while !path.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

pub fn signal(child: &Child) {
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::TERM).expect("a signal");
}

/// The ticks of the last minute are in no block yet: the keeper gathers for as long. They come from
/// the tape, and the first answer of a node that says it is ready has all of them.
#[tokio::test]
async fn boot_serves_the_last_minute() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &["--set", "history.linger_ms=60000"]);
    let (mut trades, mut quotes) = (BTreeSet::new(), BTreeSet::new());
    for boot in 0..6_u64 {
        node.start().await;
        let found = |ticks: Vec<Value>, id: &str| -> Vec<u64> {
            ticks.iter().filter_map(|tick| tick[id].as_u64()).collect()
        };
        let after_kill = found(node.history("trades", "MINUTE", "").await, "i");
        assert_eq!(after_kill, trades.iter().copied().collect::<Vec<_>>(), "trades at boot {boot}");
        let after_kill = found(node.history("quotes", "MINUTE", "").await, "as");
        assert_eq!(after_kill, quotes.iter().copied().collect::<Vec<_>>(), "quotes at boot {boot}");
        for i in 1..=40 {
            let id = boot * 100 + i;
            let ticks = [trade("MINUTE", id, now()), quote("MINUTE", id, now())];
            let got = node.post_ticks(&ticks, "", None).await;
            assert_eq!((got.status, got.count("accepted")), (200, 2), "{}", got.json);
            trades.insert(id);
            quotes.insert(id);
        }
        node.kill().await;
    }
}

#[tokio::test]
async fn the_files_of_a_node_are_there_as_long_as_they_are_true() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ready, node_file) = (folder.path().join("ready.json"), folder.path().join("data/node.json"));
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    assert!(ready.exists() && node_file.exists());
    assert_eq!(node.stop().await, Some(0));
    assert!(!ready.exists() && !node_file.exists(), "a clean stop takes them away");
    // The same command again has the keys of the first start, until one of them is revoked.
    let keys = |path: &Path| -> Value {
        let text = std::fs::read(path).expect("a file");
        let file: Value = serde_json::from_slice(&text).expect("JSON");
        file.get("keys").cloned().unwrap_or_default()
    };
    node.start().await;
    let kept = folder.path().join("data/first-keys.json");
    let of_first: Value = serde_json::from_slice(&std::fs::read(&kept).expect("it is kept")).expect("JSON");
    assert!(of_first["write"]["secret"].is_string());
    assert_eq!(keys(&ready), of_first);
    let id = of_first["read"]["id"].as_str().expect("an id").to_owned();
    let revoked = node.command("keys").args(["revoke", &id]).output().await.expect("it runs");
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert_eq!(node.stop().await, Some(0));
    node.start().await;
    assert_eq!(keys(&ready), Value::Null);
    assert_eq!(node.stop().await, Some(0));
    // What a killed node left is gone before the next one could be taken for it: here the next one
    // does not even find its address.
    std::fs::write(&ready, "{}").expect("a file");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = node.command("serve");
    let address = taken.local_addr().expect("its address").to_string();
    command.args(["--listen", &address, "--ready-file"]).arg(&ready);
    let output = command.output().await.expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!ready.exists());
}

/// Scripts need not guess: with port 0 a node starts beside any other.
#[tokio::test]
async fn port_0_is_for_both_doors() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let ready = folder.path().join(format!("{name}.json"));
        let mut command = tapeline("serve");
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready);
        command.arg("--data").arg(folder.path().join(name)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the binary starts");
        exists_at_last(&ready).await;
        nodes.push(child);
    }
    for mut child in nodes {
        signal(&child);
        assert_eq!(child.wait().await.expect("it ends").code(), Some(0));
    }
}
