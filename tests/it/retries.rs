//! A retry is safe: however often, in parallel, regrouped, and after a restart.

use serde_json::{Value, json};

use crate::node::{Node, answer, quote, trade};

const TIME: i64 = 1_704_292_200_000_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_batch_in_parallel_and_after_a_restart_is_one_tick_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let batch =
        |times: i64| -> Vec<Value> {
            (0..50)
                .map(|i| {
                    if i % 2 == 0 { trade("AGAIN", i, TIME + times) } else { quote("AGAIN", i, TIME + times) }
                })
                .collect()
        };
    for times in 1..=5_i64 {
        let ticks = batch(times);
        let key = format!("batch-{times}");
        let posts = (0..times).map(|_| node.post_ticks(&ticks, "", Some(&key)));
        let answers = futures::future::join_all(posts).await;
        for got in &answers {
            assert_eq!((got.status, got.count("accepted")), (200, 50), "{}", got.json);
        }
    }
    node.stop().await;
    node.start().await;
    for times in 1..=5_i64 {
        let got = node.post_ticks(&batch(times), "", Some(&format!("batch-{times}"))).await;
        assert_eq!((got.status, got.count("accepted")), (200, 50), "{}", got.json);
    }
    let position = node.post_ticks(&[trade("LAST", 1, TIME)], "", None).await.json["position"].clone();
    let after = format!("&after={}", position.as_str().expect("a position"));
    assert_eq!(node.history("trades", "AGAIN", &after).await.len(), 125);
    assert_eq!(node.history("quotes", "AGAIN", &after).await.len(), 125);
    node.stop().await;
}

#[tokio::test]
async fn the_same_trades_regrouped_are_one_each_and_bars_stay_equal() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let trades: Vec<Value> =
        (1..=300).map(|i| trade("GROUP", i, TIME + i64::try_from(i).expect("small") * 500_000_000)).collect();
    for part in trades.chunks(7) {
        assert_eq!(node.post_ticks(part, "", None).await.status, 200);
    }
    let bars = node.history("bars", "GROUP", "&timeframe=1Min").await;
    for part in trades.chunks(100) {
        assert_eq!(
            node.post_ticks(part, "", Some("other-groups")).await.status,
            if part[0] == trades[0] { 200 } else { 422 }
        );
    }
    for (number, part) in trades.chunks(41).enumerate() {
        let got = node.post_ticks(part, "?backfill=true", Some(&format!("group {number}"))).await;
        assert_eq!(got.status, 200, "{}", got.json);
        let after = format!("&after={}", got.json["position"].as_str().expect("a position"));
        assert_eq!(node.history("trades", "GROUP", &after).await.len(), 300);
    }
    assert_eq!(node.history("bars", "GROUP", "&timeframe=1Min").await, bars);
    assert_eq!(bars.iter().filter_map(|bar| bar["n"].as_u64()).sum::<u64>(), 300);
    node.stop().await;
}

#[tokio::test]
async fn numbered_lines_are_one_tick_each_however_they_are_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let lines: Vec<String> = (0..90).map(|i| quote("LINES", i, TIME).to_string()).collect();
    let digest = "ab".repeat(32);
    for size in [90, 13, 40] {
        for (first, part) in lines.chunks(size).enumerate().map(|(number, part)| (number * size, part)) {
            let request = node
                .post("?backfill=true", "application/x-ndjson", part.join("\n"))
                .header("Tapeline-Lines-Key", "file")
                .header("Tapeline-Lines-Digest", &digest)
                .header("Tapeline-Lines-First", first.to_string());
            let got = answer(request).await;
            assert_eq!((got.status, got.count("accepted")), (200, part.len() as u64), "{}", got.json);
        }
    }
    let position = node
        .post_ticks(&[json!({"T": "t", "S": "LAST", "p": 1, "s": 1, "t": "2024-01-03T14:30:00Z"})], "", None)
        .await;
    let after = format!("&after={}", position.json["position"].as_str().expect("a position"));
    assert_eq!(node.history("quotes", "LINES", &after).await.len(), 90);
    node.stop().await;
}
