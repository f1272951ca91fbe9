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

fn exists_at_last(path: &Path) -> impl Future<Output = ()> {
    let path = path.to_owned();
    async move {
        while !path.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

fn signal(child: &Child) {
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

/// A start that hangs, on a file that never gives its bytes, ends when it is told to.
#[tokio::test]
async fn a_node_that_is_only_starting_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.environment = vec![("TAPELINE__STORE__SEAL_KEY".to_owned(), "A".repeat(43))];
    let store = folder.path().join("data/store");
    std::fs::create_dir_all(&store).expect("a folder");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, store.join("VERSION"), kind, mode, 0).expect("a pipe");
    let mut command = node.command("serve");
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    // The lock is taken just before that file is read.
    exists_at_last(&store.join("LOCK")).await;
    signal(&child);
    assert_eq!(child.wait().await.expect("it ends").code(), Some(0));
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

/// A demo goes where the environment says too, and leaves the folder of `serve` alone.
#[tokio::test]
async fn a_demo_has_a_folder_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let ready = folder.path().join("demo.json");
    let demo = |data: &Path| {
        let mut command = tapeline("demo");
        command.env("TAPELINE__NODE__DATA", data).args(["--listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--ready-file"]).arg(&ready);
        command
    };
    let data = folder.path().join("of-the-demo");
    let mut child =
        demo(&data).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    exists_at_last(&ready).await;
    assert!(data.join("store").is_dir());
    signal(&child);
    assert_eq!(child.wait().await.expect("it ends").code(), Some(0));
    let mut served = Node::new(folder.path(), &[]);
    served.start().await;
    assert_eq!(served.stop().await, Some(0));
    let output = demo(&folder.path().join("data")).output().await.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("no demo"), "{said}");
}

/// Under another name the tapes that are there would not be followed.
#[tokio::test]
async fn a_node_keeps_its_region() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &["--set", "node.region=east"]);
    node.start().await;
    assert_eq!(node.stop().await, Some(0));
    let mut other = Node::new(folder.path(), &["--set", "node.region=west"]);
    let problem = other.try_start().await.expect_err("it was east");
    assert!(problem.contains("node.region") && problem.contains("east"), "{problem}");
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
