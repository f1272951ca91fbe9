//! Latest values: as new as what was acknowledged, whatever happens to the node.

use serde_json::{Value, json};

use crate::node::{Node, quote, trade};

const TIME: i64 = 1_704_292_200_000_000_000;

async fn latest(node: &Node, kind: &str, symbol: &str) -> Option<Value> {
    let got = node.get(&format!("/v2/stocks/{symbol}/{kind}s/latest")).await;
    match got.status {
        200 => Some(got.json[kind].clone()),
        404 => None,
        other => panic!("{other}: {}", got.json),
    }
}

async fn id(node: &Node, symbol: &str) -> Option<u64> {
    latest(node, "trade", symbol).await.and_then(|trade| trade["i"].as_u64())
}

#[tokio::test]
async fn latest_values_follow_what_is_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    assert_eq!(id(&node, "NEW").await, None);
    for i in 1..=20_u64 {
        let at = TIME + i64::try_from(i).expect("small");
        let ticks = [trade("NEW", i, at), quote("NEW", i, at)];
        assert_eq!(node.post_ticks(&ticks, "", None).await.count("accepted"), 2);
        assert_eq!(id(&node, "NEW").await, Some(i), "acknowledged is followed");
        assert_eq!(latest(&node, "quote", "NEW").await.expect("a quote")["as"], json!(i));
    }
    // Later in time, but not new: an odd lot, and what happened before, also by a backfill.
    let mut odd = trade("NEW", 31, TIME + 31);
    odd["c"] = json!(["@", "I"]);
    assert_eq!(node.post_ticks(&[odd, trade("NEW", 32, TIME - 1)], "", None).await.count("accepted"), 2);
    let old = [trade("NEW", 33, TIME - 2), quote("NEW", 33, TIME - 2)];
    assert_eq!(node.post_ticks(&old, "?backfill=true", None).await.count("accepted"), 2);
    assert_eq!(id(&node, "NEW").await, Some(20));
    let cancel = json!({"T": "x", "S": "NEW", "i": 20, "x": "V", "p": trade("NEW", 20, 0)["p"],
        "s": trade("NEW", 20, 0)["s"], "a": "C", "z": "C", "t": "2024-01-03T15:00:00Z"});
    let got = node.post_ticks(&[cancel], "", None).await;
    assert_eq!(got.count("accepted"), 1, "{}", got.json);
    // What was taken back makes history be asked again.
    let after_cancel = id(&node, "NEW").await;
    assert_eq!(after_cancel, Some(19));
    // The latest is the newest of history, whoever has asked for it before.
    for symbol in ["NEW", "ELSE"] {
        let newer = [trade(symbol, 41, TIME + 41), quote(symbol, 41, TIME + 41)];
        assert_eq!(node.post_ticks(&newer, "?backfill=true", None).await.count("accepted"), 2);
        assert_eq!(id(&node, symbol).await, Some(41));
        assert_eq!(latest(&node, "quote", symbol).await.expect("a quote")["as"], json!(41));
    }
    node.kill().await;
    node.start().await;
    assert_eq!(id(&node, "NEW").await, Some(41));
    let snapshot = node.get("/v2/stocks/snapshots?symbols=NEW,NONE").await.json;
    assert_eq!(snapshot["NEW"]["latestTrade"]["i"].as_u64(), Some(41));
    assert!(snapshot.get("NONE").is_none());
}
