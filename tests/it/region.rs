//! Several nodes of one region over one database: each takes anything, a killed one is replaced, and a
//! database that is killed and comes back has everything that was acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clocks;
use crate::cluster::Cluster;
use crate::node::{Node, answer, quote, trade};
use crate::redis_server::RedisServer;
use crate::stack;
use crate::subscriber::{Client, Door, Pipe};

const FIRST_TIME: i64 = 1_704_292_200_000_000_000;
/// Longer than anything here takes: what does not come by then never does.
pub const NEVER: Duration = Duration::from_secs(120);
/// Many polls.
const SOON: Duration = Duration::from_secs(20);

/// Nodes over one store, with the keys that the first of them made.
pub struct Region {
    pub nodes: Vec<Node>,
    _folders: Vec<TempDir>,
}

impl Region {
    async fn start(cluster: &Cluster, keyspace: &str, count: usize, sets: &[&str]) -> Self {
        let replicas = u8::try_from(cluster.nodes.len()).expect("few");
        let environment = stack::environment_on(cluster, replicas, keyspace);
        stack::migrate(environment.clone()).await;
        Self::of(vec![environment; count], sets).await
    }

    /// A node with each of these environments, whose tables are there.
    pub async fn of(environments: Vec<Vec<(String, String)>>, sets: &[&str]) -> Self {
        let flags: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let (mut nodes, mut folders) = (Vec::<Node>::new(), Vec::new());
        for environment in environments {
            let folder = tempfile::tempdir().expect("a folder");
            let mut node = Node::new(folder.path(), &flags);
            node.environment = environment;
            node.start().await;
            assert!(!node.folder.join("data/store").exists(), "nothing is stored in its folder");
            if let Some(first) = nodes.first() {
                (node.read, node.write) = (first.read.clone(), first.write.clone());
            }
            folders.push(folder);
            nodes.push(node);
        }
        Self { nodes, _folders: folders }
    }

    pub async fn stop(mut self) {
        for node in &mut self.nodes {
            assert_eq!(node.stop().await, Some(0), "{}", node.log());
        }
    }
}

pub fn ticks(symbol: &str, ids: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    let time = |id: u64| FIRST_TIME + i64::try_from(id).expect("few") * 1_000_000;
    ids.map(|id| trade(symbol, id, time(id))).collect()
}

pub fn numbers(ticks: &[Value]) -> Vec<u64> {
    ticks.iter().filter_map(|tick| tick["i"].as_u64()).collect()
}

pub async fn request(node: &Node, method: reqwest::Method, path: &str, body: Value) -> Value {
    let request = node.client.request(method, format!("{}{path}", node.http));
    let request =
        request.header("APCA-API-KEY-ID", &node.read.id).header("APCA-API-SECRET-KEY", &node.read.secret);
    let got = answer(request.json(&body)).await;
    assert!((200..300).contains(&got.status), "{path}: {}", got.json);
    got.json
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_anything() {
    let sets =
        ["live.heartbeat_ms=100", "subs.refresh_ms=200", "history.linger_ms=300", "access.refresh_ms=200"];
    let region = Region::start(stack::cluster(), "anything", 2, &sets).await;
    let [one, other] = region.nodes.as_slice() else { panic!("two nodes") };
    // A tick that one has acknowledged is read from the other by its position, and streamed there.
    let mut there =
        Client::subscribe(&Door::of(other), Pipe::Wide, "?ext=1", &json!({"trades": ["ANY"]})).await;
    let posted = one.post_ticks(&ticks("ANY", 1..=50), "", None).await;
    assert_eq!(posted.status, 200, "{}", posted.json);
    let position = posted.json["position"].as_str().expect("a position");
    let read = other.history("trades", "ANY", &format!("&after={position}")).await;
    assert_eq!(numbers(&read), (1..=50).collect::<Vec<_>>());
    there.until("all of them", |client| client.ids.len() == 50).await;
    // The next page of one is given by the other.
    let page = one.get("/v2/stocks/ANY/trades?limit=20&start=2024-01-01").await.json;
    let token = page["next_page_token"].as_str().expect("a token");
    let path = format!("/v2/stocks/ANY/trades?limit=20&start=2024-01-01&page_token={token}");
    assert_eq!(numbers(other.get(&path).await.json["trades"].as_array().expect("trades"))[0], 21);
    // Who was cut off there goes on here.
    there.until("a cursor", |client| client.cursor.is_some()).await;
    let cursor = there.cursor.take().expect("a cursor");
    drop(there);
    assert_eq!(other.post_ticks(&ticks("ANY", 51..=60), "", None).await.status, 200);
    let query = format!("?ext=1&cursor={cursor}");
    let mut here = Client::subscribe(&Door::of(one), Pipe::Wide, &query, &json!({"trades": ["ANY"]})).await;
    here.until("the rest", |client| client.ids.contains(&60)).await;
    assert!((51..=60).all(|id| here.ids.contains(&id)), "{:?}", here.ids);
    // A subscription made here is polled and changed there, and the streams of it here end.
    let made = request(
        one,
        reqwest::Method::POST,
        "/v1/subscriptions",
        json!({"symbols": ["ANY"], "kinds": ["trades"]}),
    )
    .await;
    let (id, path) = (
        made["id"].as_str().expect("an id"),
        format!("/v1/subscriptions/{}", made["id"].as_str().expect("an id")),
    );
    let mut attached =
        Client::connect(&Door::of(one), Pipe::Wide, &format!("?ext=1&subscription={id}")).await;
    attached.until("its acknowledgement", |client| client.acks == 1).await;
    assert_eq!(other.get(&format!("{path}/events")).await.status, 200);
    request(other, reqwest::Method::PUT, &path, json!({"paused": true})).await;
    attached.until_closed().await;
    assert_eq!(attached.closed, Some(1012), "by a change on the other node");
    // A key that was revoked there is refused here.
    let revoked = other.command("keys").args(["revoke", &other.write.id]).output().await.expect("it runs");
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let refused = async {
        while one.post_ticks(&ticks("ANY", 61..=61), "", None).await.status != 401 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(NEVER, refused).await.is_ok(), "the key is good here for ever");
    region.stop().await;
}

/// Producers that post to whichever node is there, each batch again with its key until it is
/// acknowledged. Answers what was acknowledged.
async fn produced(nodes: &[Node], symbols: usize, stop: &AtomicBool) -> Vec<(String, BTreeSet<u64>)> {
    let produce = async |number: usize| {
        let (symbol, mut acked, mut next) = (format!("PROD{number}"), BTreeSet::new(), 1);
        while !stop.load(Ordering::Relaxed) {
            let (ids, key) = (next..=next + 9, format!("{symbol}-{next}"));
            for attempt in number.. {
                let node = &nodes[attempt % nodes.len()];
                let got = node.post_ticks(&ticks(&symbol, ids.clone()), "", Some(&key)).await;
                match got.status {
                    200 => break,
                    0 => {}
                    503 => assert!(got.json["reason"].is_string(), "{}", got.json),
                    status => panic!("{status}: {}", got.json),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            acked.extend(ids);
            next += 10;
        }
        (symbol, acked)
    };
    join_all((0..symbols).map(produce)).await
}

/// What another node acknowledged in the last moment is here by the next poll, and is waited for.
async fn audited(node: &Node, produced: &[(String, BTreeSet<u64>)]) {
    for (symbol, acked) in produced {
        let mut missing = Vec::new();
        let whole = async {
            loop {
                let found = numbers(&node.history("trades", symbol, "").await);
                let once: BTreeSet<u64> = found.iter().copied().collect();
                assert_eq!(found.len(), once.len(), "{symbol} has ticks twice");
                assert!(once.is_subset(acked), "{symbol} shows ticks that nobody acknowledged");
                missing = acked.difference(&once).copied().take(5).collect();
                if missing.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let is_whole = tokio::time::timeout(SOON, whole).await.is_ok();
        assert!(is_whole && !acked.is_empty(), "{symbol}: acknowledged and lost: {missing:?}");
    }
}

/// Whether all that a node follows gets into blocks, whoever of the region writes them.
async fn is_kept(node: &Node) -> bool {
    let kept = async {
        while node.metric("tapeline_history_unkept_ticks").await.expect("a metric") > 0.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(NEVER, kept).await.is_ok()
}

/// One of two nodes is killed under load: the other has everything that either acknowledged, and
/// writes it into blocks, the shards of the dead one included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_replaced() {
    let mut region = Region::start(stack::cluster(), "replaced", 2, &["history.linger_ms=300"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&stop);
    let nodes = &region.nodes;
    let kill = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        nodes[0].kill_now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        ends.store(true, Ordering::Relaxed);
    };
    let (produced, ()) = futures::future::join(produced(nodes, 6, &stop), kill).await;
    audited(&nodes[1], &produced).await;
    assert!(is_kept(&nodes[1]).await, "the dead node's shards are nobody's");
    region.nodes[0].kill().await;
    // One that has seen nothing of it has the same, and so have both without their tails.
    region.nodes[0].start().await;
    for node in &region.nodes {
        audited(node, &produced).await;
    }
    region.stop().await;
}

/// One of two nodes hangs for 30 s in the middle of its appends: the other takes its shards over
/// meanwhile, and when it goes on there are two that may have written them. Nothing is lost or twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_is_replaced_and_comes_back() {
    let region = Region::start(stack::cluster(), "hangs", 2, &["history.linger_ms=300"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&stop);
    let [hung, other] = region.nodes.as_slice() else { panic!("two nodes") };
    let pid = hung.pid().expect("it runs");
    let hang = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        kill_process(pid, Signal::STOP).expect("it is stopped");
        let goes_on = tokio::time::Instant::now() + Duration::from_secs(30);
        tokio::time::sleep(Duration::from_secs(8)).await;
        ends.store(true, Ordering::Relaxed);
        let is_kept = is_kept(other).await;
        tokio::time::sleep_until(goes_on).await;
        kill_process(pid, Signal::CONT).expect("it goes on");
        assert!(is_kept, "the shards of the node that hangs are nobody's");
    };
    let (produced, ()) = futures::future::join(produced(&region.nodes, 6, &stop), hang).await;
    for node in &region.nodes {
        audited(node, &produced).await;
    }
    region.stop().await;
}

/// The clock of one of two nodes is five minutes off, ahead or behind: both serve what either takes, and
/// write it into blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off() {
    for (keyspace, by) in [("ahead", "+5m"), ("behind", "-5m")] {
        let plain = stack::environment_on(stack::cluster(), 1, keyspace);
        stack::migrate(plain.clone()).await;
        let off: Vec<_> = plain.iter().cloned().chain(clocks::shifted(by)).collect();
        let sets = ["live.heartbeat_ms=100", "history.linger_ms=300"];
        let region = Region::of(vec![plain, off], &sets).await;
        let mut streams = Vec::new();
        for node in &region.nodes {
            let wanted = json!({"trades": ["CLOCK"]});
            streams.push(Client::subscribe(&Door::of(node), Pipe::Wide, "?ext=1", &wanted).await);
        }
        for id in 1..=40 {
            let node = &region.nodes[usize::try_from(id % 2).expect("one or none")];
            let key = format!("clock-{id}");
            assert_eq!(node.post_ticks(&ticks("CLOCK", id..=id), "", Some(&key)).await.status, 200, "{by}");
            // Again on the other one: the same request, whatever the time.
            let other = &region.nodes[usize::try_from((id + 1) % 2).expect("one or none")];
            assert_eq!(other.post_ticks(&ticks("CLOCK", id..=id), "", Some(&key)).await.status, 200, "{by}");
        }
        for stream in &mut streams {
            stream.until("each tick", |client| client.ids.len() >= 40).await;
            let mut ids = stream.ids.clone();
            ids.sort_unstable();
            assert_eq!(ids, (1..=40).collect::<Vec<_>>(), "{by}: each once");
        }
        for node in &region.nodes {
            assert!(is_kept(node).await, "{by}: a shard is nobody's");
            assert_eq!(numbers(&node.history("trades", "CLOCK", "").await), (1..=40).collect::<Vec<_>>());
            let latest = node.get("/v2/stocks/CLOCK/trades/latest").await.json;
            assert_eq!(latest["trade"]["i"], 40, "{by}: {latest}");
        }
        region.stop().await;
    }
}

/// The database is killed under load and comes back: nothing that was acknowledged is lost, nothing is
/// twice, and the nodes go on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_comes_back() {
    let cluster = Cluster::start(&[]);
    let region =
        Region::start(&cluster, "back", 2, &["history.linger_ms=300", "ingest.answer_ms=1000"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&stop);
    let nodes = &region.nodes;
    let kill = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.ask("kill 1");
        let refused = nodes[0].post_ticks(&ticks("REFUSED", 1..=1), "", Some("refused")).await;
        assert_eq!(refused.status, 503, "{}", refused.json);
        // Nothing of it was sent, or nobody knows: either is said.
        let is_told = refused.json["outcome"] == "unknown" || refused.json["reason"] == "store";
        assert!(is_told && refused.headers.contains_key("retry-after"), "{}", refused.json);
        let cluster = &cluster;
        tokio::task::block_in_place(|| cluster.ask("start 1"));
        let again = async {
            while nodes[0].post_ticks(&ticks("REFUSED", 1..=1), "", Some("refused")).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(NEVER, again).await.is_ok(), "it does not go on: {}", nodes[0].log());
        tokio::time::sleep(Duration::from_secs(2)).await;
        ends.store(true, Ordering::Relaxed);
    };
    let (produced, ()) = futures::future::join(produced(nodes, 4, &stop), kill).await;
    for node in nodes {
        audited(node, &produced).await;
        assert_eq!(numbers(&node.history("trades", "REFUSED", "").await), [1]);
    }
    region.stop().await;
}

/// Of three replicas one is killed, then one hangs: acknowledgements go on. Then two are killed: what
/// is posted is refused or its outcome unknown, and said so, until they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_fail() {
    let cluster = Cluster::start(&["--datacenters", "dc1=3"]);
    let sets = ["history.linger_ms=300", "ingest.answer_ms=2000", "cassandra.request_ms=1000"];
    let region = Region::start(&cluster, "replicas", 2, &sets).await;
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&stop);
    let (nodes, cluster) = (&region.nodes, &cluster);
    let ask = |line: &'static str| tokio::task::block_in_place(|| cluster.ask(line));
    let faults = async {
        // Ticks of this symbol are posted one by one, between the faults and during them.
        let (mut next, mut acked) = (0, Vec::new());
        let mut post_some = async |until: usize, refused_max: usize| {
            let mut refused = 0;
            let begun = acked.len();
            while acked.len() - begun < until && refused < refused_max {
                next += 1;
                let got = nodes[0].post_ticks(&ticks("FAULTS", next..=next), "", None).await;
                match got.status {
                    200 => acked.push(next),
                    503 => refused += 1,
                    status => panic!("{status}: {}", got.json),
                }
            }
            (acked.len() - begun, refused)
        };
        assert_eq!(post_some(20, 1).await, (20, 0));
        ask("kill 2");
        assert_eq!(post_some(50, 20).await.0, 50, "two of three replicas are a quorum");
        ask("start 2");
        ask("stop 3");
        assert_eq!(post_some(50, 20).await.0, 50, "while one hangs");
        ask("cont 3");
        ask("kill 1");
        ask("kill 2");
        assert_eq!(post_some(1, 5).await, (0, 5), "one of three is none");
        let ready = answer(nodes[0].client.get(format!("{}/readyz", nodes[0].admin))).await;
        let database = ready.json["checks"].as_array().and_then(|checks| {
            checks.iter().find(|check| check["name"] == "database" && check["status"] == "fail")
        });
        assert!(ready.status == 503 && database.is_some(), "it says that it is ready: {}", ready.json);
        ask("start 1");
        ask("start 2");
        let again = async {
            while post_some(1, 1).await.0 == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(NEVER, again).await.is_ok(), "it does not go on: {}", nodes[0].log());
        tokio::time::sleep(Duration::from_secs(1)).await;
        ends.store(true, Ordering::Relaxed);
        acked
    };
    let (produced, acked) = futures::future::join(produced(nodes, 2, &stop), faults).await;
    for node in nodes {
        audited(node, &produced).await;
        let found: BTreeSet<u64> = numbers(&node.history("trades", "FAULTS", "").await).into_iter().collect();
        let missing: Vec<_> = acked.iter().filter(|id| !found.contains(id)).collect();
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    }
    region.stop().await;
}

/// The Redis of a region hands frames over long before the next poll. It hangs, is filled with what is no
/// frame, and is replaced by an empty one: everything goes on by the polls, nothing is lost or twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_with_and_without_its_redis() {
    let mut redis = RedisServer::start();
    // Between two polls is so long that what comes before comes by Redis.
    let url = format!("redis.url={}", redis.url);
    let sets = [
        "live.heartbeat_ms=100",
        "history.linger_ms=300",
        "tape.poll_own_ms=3000",
        "redis.call_ms=200",
        "redis.rates_ms=200",
        &url,
    ];
    let region = Region::start(stack::cluster(), "redis", 2, &sets).await;
    let [one, other] = region.nodes.as_slice() else { panic!("two nodes") };
    let mut there =
        Client::subscribe(&Door::of(other), Pipe::Wide, "?ext=1", &json!({"trades": ["HOT"]})).await;
    let mut next = 0;
    let mut post = async |count: u64| {
        for id in next + 1..=next + count {
            assert_eq!(one.post_ticks(&ticks("HOT", id..=id), "", None).await.status, 200);
        }
        next += count;
    };
    post(50).await;
    there.until("what was handed over", |client| client.ids.len() == 50).await;
    let handed = other.metric("tapeline_push_received_total").await.expect("a metric");
    assert!(handed >= 1.0, "nothing was handed over");
    // Who writes into the channel is no node of this service.
    redis.command(&["publish", "redis:local:frames", "no frame of ours, but long enough"]);
    post(10).await;
    there.until("the ticks after it", |client| client.ids.len() == 60).await;
    assert!(
        other.metric("tapeline_push_refused_total").await.expect("a metric") >= 1.0,
        "it was taken for a frame"
    );
    redis.stop();
    post(20).await;
    there.until("what was polled while Redis hangs", |client| client.ids.len() == 80).await;
    redis.cont();
    redis.replace();
    post(20).await;
    there.until("what came after it was replaced", |client| client.ids.len() == 100).await;
    assert_eq!(there.ids, (1..=100).collect::<Vec<_>>(), "each once and in order");
    // What a key has used on one node counts on the other.
    let shared = async {
        loop {
            one.get("/v1/symbols").await;
            other.get("/v1/symbols").await;
            if other.metric("tapeline_access_shared_requests_total").await.expect("a metric") >= 1.0 {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(NEVER, shared).await.is_ok(), "each node counts alone");
    for node in &region.nodes {
        let position = one.post_ticks(&ticks("HOT", 101..=101), "", None).await.json["position"].clone();
        let after = format!("&after={}", position.as_str().expect("a position"));
        assert_eq!(numbers(&node.history("trades", "HOT", &after).await), (1..=101).collect::<Vec<_>>());
    }
    region.stop().await;
}

const HOT_SYMBOLS: u64 = 10_000;

fn hot(number: u64) -> String {
    format!("WARM{number}")
}

/// Posts a trade and a quote of each of many symbols, whose numbers are from `from` on.
async fn post_hot(node: &Node, from: u64) {
    let time = |number: u64| FIRST_TIME + i64::try_from(from + number).expect("few") * 1_000;
    let numbers: Vec<u64> = (0..HOT_SYMBOLS).collect();
    for part in numbers.chunks(1_000) {
        let both = |number: &u64| {
            let (symbol, id, at) = (hot(*number), from + number, time(*number));
            [trade(&symbol, id, at), quote(&symbol, id % 1_000, at)]
        };
        let ticks: Vec<Value> = part.iter().flat_map(both).collect();
        let posted = node.post_ticks(&ticks, "", None).await;
        assert_eq!((posted.status, posted.count("accepted")), (200, 2 * part.len() as u64));
    }
}

/// The latest trade and quote of the first so many of them, as the node answers.
async fn latest_hot(node: &Node, count: u64) -> Vec<(Value, Value)> {
    let numbers: Vec<u64> = (0..count).collect();
    let mut all = Vec::new();
    for part in numbers.chunks(1_000) {
        let symbols = part.iter().map(|number| hot(*number)).collect::<Vec<_>>().join(",");
        let [mut trades, mut quotes] = [Value::Null, Value::Null];
        for (kind, found) in [("trades", &mut trades), ("quotes", &mut quotes)] {
            let got = node.get(&format!("/v2/stocks/{kind}/latest?symbols={symbols}")).await;
            assert_eq!(got.status, 200, "{}", got.json);
            *found = got.json[kind].clone();
        }
        let of = |number: &u64| (trades[hot(*number)].clone(), quotes[hot(*number)].clone());
        all.extend(part.iter().map(of));
    }
    all
}

/// Waits until one of these nodes has put what is latest into Redis once more, all of it after this call.
async fn put_again(nodes: &[Node]) {
    const SHEETS: &str = "tapeline_latest_sheets_total";
    let count = async || {
        let of_each = nodes.iter().map(async |node| node.metric(SHEETS).await.expect("a metric"));
        join_all(of_each).await.into_iter().sum::<f64>()
    };
    // The first that ends may have begun before.
    let wanted = count().await + 2.0;
    let put = async {
        while count().await < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(NEVER, put).await.is_ok(), "nothing is put into Redis: {}", nodes[0].log());
}

/// A node that starts knows the latest of 10,000 symbols by the region's Redis, as of when it was put there
/// and what came since, also where the Redis is full by now; one that was flushed or poisoned it does without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_is_warm_by_its_redis() {
    let redis = RedisServer::start();
    let url = format!("redis.url={}", redis.url);
    let sets = ["redis.latest_ms=500", "redis.call_ms=2000", "history.linger_ms=300", &url];
    let mut region = Region::start(stack::cluster(), "warm", 2, &sets).await;
    post_hot(&region.nodes[0], 1).await;
    assert_eq!(latest_hot(&region.nodes[0], HOT_SYMBOLS).await[7].0["i"], 8);
    put_again(&region.nodes).await;
    // What comes after the sheets is on the tape: nobody puts any while this node starts.
    assert_eq!(region.nodes[1].stop().await, Some(0));
    redis.command(&["config", "set", "maxmemory", "1"]);
    post_hot(&region.nodes[0], HOT_SYMBOLS + 1).await;
    region.nodes[1].start().await;
    let [one, other] = region.nodes.as_slice() else { panic!("two nodes") };
    let (warmed, reads) = ("tapeline_latest_warmed_symbols", "tapeline_latest_reads_total");
    assert_eq!(other.metric(warmed).await, Some(10_000.0), "{}", other.log());
    let all = latest_hot(one, HOT_SYMBOLS).await;
    assert_eq!(all[7].0["i"], HOT_SYMBOLS + 8);
    assert!(latest_hot(other, HOT_SYMBOLS).await == all, "the latest of one node is not that of the other");
    assert_eq!(other.metric(reads).await, Some(0.0), "history was read");
    redis.command(&["config", "set", "maxmemory", "0"]);
    for is_flushed in [true, false] {
        put_again(&region.nodes).await;
        assert_eq!(region.nodes[1].stop().await, Some(0));
        // Nobody puts anything while it starts.
        let pid = region.nodes[0].pid().expect("it runs");
        kill_process(pid, Signal::STOP).expect("it is stopped");
        redis.command(&["flushall"]);
        for shard in (0..16).filter(|_| !is_flushed) {
            redis.command(&["set", &format!("warm:local:latest:{shard}"), "no sheet, but long enough"]);
        }
        region.nodes[1].start().await;
        kill_process(pid, Signal::CONT).expect("it goes on");
        let [one, other] = region.nodes.as_slice() else { panic!("two nodes") };
        assert_eq!(other.metric(warmed).await, Some(0.0), "flushed: {is_flushed}");
        let poisoned = other.metric("tapeline_redis_poisoned_total").await.expect("a metric");
        assert_eq!(poisoned > 0.0, !is_flushed, "{poisoned}");
        // What is latest is right all the same.
        let newest = [trade(&hot(7), 90_000, FIRST_TIME + 3_600_000_000_000)];
        let posted = one.post_ticks(&newest, "", None).await;
        let position = posted.json["position"].as_str().expect("a position");
        other.history("trades", &hot(7), &format!("&after={position}")).await;
        let found = latest_hot(other, 50).await;
        assert_eq!(found[7].0["i"], 90_000, "flushed: {is_flushed}");
        assert!(found == latest_hot(one, 50).await, "flushed: {is_flushed}: the nodes differ");
    }
    region.stop().await;
}
