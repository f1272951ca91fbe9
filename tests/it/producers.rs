//! Producers that want to know: receipts of requests.

use crate::node::{Answer, Node, answer, trade};

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
