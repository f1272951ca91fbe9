//! Two regions, each with a datacenter of its own of one database, and a node: what one acknowledges the
//! other serves, one that is cut off comes back without a hole, and the other goes on meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::node::Node;
use crate::region::{NEVER, Region, numbers, request, ticks};
use crate::stack;
use crate::subscriber::{Client, Door, Pipe};

/// A node of region `eu` in `dc1`, and one of `us` in `dc2`.
async fn two_regions(cluster: &Cluster, keyspace: &str, sets: &[&str]) -> Region {
    let place = |region, at: usize| {
        stack::environment_of(region, &cluster.nodes[at..=at], "eu=dc1:1,us=dc2:1", keyspace)
    };
    let environments = vec![place("eu", 0), place("us", 1)];
    for environment in &environments {
        stack::migrate(environment.clone()).await;
    }
    Region::of(environments, sets).await
}

/// Waits until a node's history of a symbol is these trades.
async fn has(node: &Node, symbol: &str, ids: std::ops::RangeInclusive<u64>) {
    let (wanted, mut found) = (ids.collect::<Vec<_>>(), Vec::new());
    let whole = async {
        while found != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
            found = numbers(&node.history("trades", symbol, "").await);
        }
    };
    if tokio::time::timeout(NEVER, whole).await.is_err() {
        panic!("{symbol} is {} of {} trades: {}", found.len(), wanted.len(), node.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_region_takes_the_other_serves() {
    let cluster = Cluster::start(&["--datacenters", "dc1=1,dc2=1"]);
    let sets = ["live.heartbeat_ms=100", "history.linger_ms=300", "subs.refresh_ms=200"];
    let regions = two_regions(&cluster, "world", &sets).await;
    let [eu, us] = regions.nodes.as_slice() else { panic!("two nodes") };
    let mut there =
        Client::subscribe(&Door::of(us), Pipe::Wide, "?ext=1", &json!({"trades": ["BOTH"]})).await;
    assert_eq!(eu.post_ticks(&ticks("BOTH", 1..=40), "", None).await.status, 200);
    there.until("the ticks of the other region", |client| client.ids.len() == 40).await;
    assert_eq!(us.post_ticks(&ticks("BOTH", 41..=60), "?ack=global", None).await.status, 200);
    has(eu, "BOTH", 1..=60).await;
    has(us, "BOTH", 1..=60).await;
    let latest = eu.get("/v2/stocks/BOTH/trades/latest").await.json;
    assert_eq!(latest["trade"]["i"], 60, "{latest}");
    // Who was cut off in one region goes on in the other.
    there.until("its own region's", |client| client.ids.len() == 60).await;
    there.until("a cursor", |client| client.cursor.is_some()).await;
    let cursor = there.cursor.take().expect("a cursor");
    drop(there);
    assert_eq!(us.post_ticks(&ticks("BOTH", 61..=70), "", None).await.status, 200);
    let query = format!("?ext=1&cursor={cursor}");
    let mut here = Client::subscribe(&Door::of(eu), Pipe::Wide, &query, &json!({"trades": ["BOTH"]})).await;
    here.until("the rest", |client| client.ids.contains(&70)).await;
    assert!((61..=70).all(|id| here.ids.contains(&id)) && here.gaps == 0, "{:?}", here.ids);
    // A subscription of one region is one of the other.
    let wanted = json!({"symbols": ["BOTH"], "kinds": ["trades"]});
    let made = request(eu, reqwest::Method::POST, "/v1/subscriptions", wanted).await;
    let path = format!("/v1/subscriptions/{}/events", made["id"].as_str().expect("an id"));
    let known = async {
        while us.get(&path).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(NEVER, known).await.is_ok(), "the other region never hears of it");
    // What all regions have is not lost with the one that took it.
    assert_eq!(eu.post_ticks(&ticks("BOTH", 71..=80), "?ack=global", None).await.status, 200);
    tokio::task::block_in_place(|| cluster.ask("kill 1"));
    has(us, "BOTH", 1..=80).await;
}

/// The datacenter of one region is gone, and nothing of what the other writes is kept for it: that one
/// goes on, also with another tape, and says of a request for all regions what is true. When it is back,
/// its node fetches what it lacks from where it was written: streams there have each tick, once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off() {
    let cluster = Cluster::start(&["--datacenters", "dc1=1,dc2=1"]);
    let ask = |line: &'static str| tokio::task::block_in_place(|| cluster.ask(line));
    let sets = ["live.heartbeat_ms=100", "history.linger_ms=300", "cassandra.request_ms=1000"];
    let mut regions = two_regions(&cluster, "cut", &sets).await;
    let [eu, us] = regions.nodes.as_slice() else { panic!("two nodes") };
    ask("nodetool 1 disablehandoff");
    let mut there = Client::subscribe(&Door::of(us), Pipe::Wide, "?ext=1", &json!({"trades": ["CUT"]})).await;
    assert_eq!(eu.post_ticks(&ticks("CUT", 1..=10), "?ack=global", Some("first")).await.status, 200);
    there.until("the first", |client| client.ids.len() == 10).await;
    ask("kill 2");
    for id in 11..=40 {
        assert_eq!(eu.post_ticks(&ticks("CUT", id..=id), "", None).await.status, 200, "{id}");
    }
    let everywhere = eu.post_ticks(&ticks("CUT", 41..=50), "?ack=global", Some("everywhere")).await;
    let told = (everywhere.status, &everywhere.json["outcome"], &everywhere.json["durable"]);
    assert_eq!(told, (503, &json!("unknown"), &json!("region")), "{}", everywhere.json);
    has(eu, "CUT", 1..=50).await;
    let refused = us.post_ticks(&ticks("US", 1..=1), "", Some("us")).await;
    assert_eq!(refused.status, 503, "{}", refused.json);
    // A tape that the other region has never heard of.
    assert_eq!(regions.nodes[0].stop().await, Some(0), "{}", regions.nodes[0].log());
    regions.nodes[0].start().await;
    let [eu, us] = regions.nodes.as_slice() else { panic!("two nodes") };
    assert_eq!(eu.post_ticks(&ticks("CUT", 51..=60), "", None).await.status, 200);
    ask("start 2");
    has(us, "CUT", 1..=60).await;
    there.until("what came while it was away", |client| client.ids.len() == 60).await;
    assert_eq!(there.gaps, 0, "nothing was lost");
    let again = async {
        while us.post_ticks(&ticks("US", 1..=1), "", Some("us")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while eu.post_ticks(&ticks("CUT", 41..=50), "?ack=global", Some("everywhere")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(NEVER, again).await.is_ok(), "it does not go on: {}", us.log());
    assert_eq!(eu.post_ticks(&ticks("CUT", 61..=61), "", None).await.status, 200);
    there.until("what came after it was back", |client| client.ids.contains(&61)).await;
    assert_eq!(there.ids, (1..=61).collect::<Vec<_>>(), "each once and in order");
    for node in &regions.nodes {
        has(node, "CUT", 1..=61).await;
        has(node, "US", 1..=1).await;
        let is_even = async {
            let lags = |tape: &Value| tape["why"].is_string();
            while node.status().await["tapes"].as_array().expect("tapes").iter().any(lags) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(NEVER, is_even).await.is_ok(), "it lags: {}", node.status().await);
    }
    regions.stop().await;
}
