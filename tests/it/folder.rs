//! How a node begins over a data folder: one that hangs, one of a demo, one of another region.

use std::path::Path;
use std::process::Stdio;

use crate::boot::{exists_at_last, signal};
use crate::node::{Node, tapeline};

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
