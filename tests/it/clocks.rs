//! `clocks_do_not_matter`: a wall clock ten minutes off, stepped back across a restart, and a
//! process that was stopped between sealing and sending: nothing lost, nothing twice.

use std::path::Path;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::node::{Node, quote, trade};

const TIME: i64 = 1_704_292_200_000_000_000;

/// The library that shifts a process's wall clock; `make test` installs it.
fn faketime() -> &'static str {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
    ];
    let Some(library) = places.into_iter().find(|path| Path::new(path).exists()) else {
        panic!("libfaketime is missing: run `make test`, which installs it");
    };
    library
}

/// What shifts the wall clock of a node.
pub fn shifted(by: &str) -> Vec<(String, String)> {
    let variables = [("LD_PRELOAD", faketime()), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn clocks_do_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &["--set", "history.linger_ms=200"]);
    let mut want_trades = Vec::new();
    let mut posted: Vec<Vec<Value>> = Vec::new();
    for (round, shift) in ["+10m", "-10m", "+0", "-10m", "+10m"].into_iter().enumerate() {
        node.environment = shifted(shift);
        node.start().await;
        let first = u64::try_from(round).expect("few") * 50;
        let ticks: Vec<Value> = (first..first + 50)
            .map(|i| if i % 2 == 0 { trade("CLOCK", i, TIME) } else { quote("CLOCK", i, TIME) })
            .collect();
        let key = format!("round {round}");
        assert_eq!(node.post_ticks(&ticks, "", Some(&key)).await.status, 200, "{shift}");
        posted.push(ticks);
        want_trades.extend((first..first + 50).filter(|i| i % 2 == 0));
        // Everything so far again, under this clock.
        for (earlier, ticks) in posted.iter().enumerate() {
            assert_eq!(
                node.post_ticks(ticks, "", Some(&format!("round {earlier}"))).await.status,
                200,
                "{shift}"
            );
        }
        let found: Vec<u64> =
            node.history("trades", "CLOCK", "").await.iter().filter_map(|tick| tick["i"].as_u64()).collect();
        assert_eq!(found, want_trades, "{shift}");
        assert_eq!(node.history("quotes", "CLOCK", "").await.len(), want_trades.len(), "{shift}");
        node.kill().await;
    }
    node.environment.clear();
    node.start().await;
    assert_eq!(node.history("quotes", "CLOCK", "").await.len(), want_trades.len());
    node.stop().await;
}

#[tokio::test]
async fn a_process_that_was_paused_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let pid = node.pid().expect("it runs");
    let ticks: Vec<Value> = (0..30).map(|i| quote("PAUSE", i, TIME)).collect();
    let post = node.post_ticks(&ticks, "", Some("paused"));
    let pause = async {
        kill_process(pid, Signal::STOP).expect("stopped");
        // Longer than an idle writer waits and a hole is waited for.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        kill_process(pid, Signal::CONT).expect("goes on");
    };
    let (first, ()) = futures::future::join(post, pause).await;
    assert!(matches!(first.status, 200 | 503), "{}", first.json);
    let again = node.post_ticks(&ticks, "", Some("paused")).await;
    assert_eq!(again.status, 200, "{}", again.json);
    let after = format!("&after={}", again.json["position"].as_str().expect("a position"));
    assert_eq!(node.history("quotes", "PAUSE", &after).await.len(), 30);
    node.stop().await;
}
