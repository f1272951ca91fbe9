//! `ledger_kill9`: producers keep a ledger of what was acknowledged while the node is killed at
//! random moments, a hundred times and more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::node::{Node, answer, quote, trade};

const KILLS: usize = 100;
const PRODUCERS: usize = 4;
/// Of a Position: that of a hundred tapes has more than 1,000.
const CURSOR_BYTES_MAX: u64 = 500;
const FIRST_TIME: i64 = 1_704_292_200_000_000_000;

/// What the producers know: of each symbol, which ticks were sent, and which of them acknowledged.
#[derive(Default)]
struct Ledger {
    sent: BTreeMap<String, BTreeSet<u64>>,
    acked: BTreeMap<String, BTreeSet<u64>>,
}

/// One producer: posts batches of its own symbol, each again with the same key until it is
/// acknowledged, whatever node process answers.
struct Producer {
    number: usize,
    next: u64,
    pending: Option<(String, Vec<u64>)>,
}

impl Producer {
    fn symbol(&self) -> String {
        format!("KILL{}", self.number)
    }

    /// Even producers send trades with numbers, odd ones quotes without: both must be kept once.
    fn tick(&self, id: u64) -> Value {
        let time = FIRST_TIME + i64::try_from(id).expect("few ids") * 1_000_000;
        if self.number.is_multiple_of(2) {
            trade(&self.symbol(), id, time)
        } else {
            quote(&self.symbol(), id, time)
        }
    }

    async fn step(&mut self, node: &Node, ledger: &Mutex<Ledger>, acks: &AtomicU64, size: u64) {
        if self.pending.is_none() {
            let ids: Vec<u64> = (self.next..self.next + size).collect();
            self.next += size;
            ledger.lock().await.sent.entry(self.symbol()).or_default().extend(&ids);
            self.pending = Some((format!("{}-{}", self.symbol(), self.next), ids));
        }
        let Some((key, ids)) = &self.pending else { return };
        let ticks: Vec<Value> = ids.iter().map(|id| self.tick(*id)).collect();
        let request = node.post("", "application/json", serde_json::to_vec(&ticks).expect("JSON"));
        let got = answer(request.header("Idempotency-Key", key)).await;
        match got.status {
            200 => {
                assert_eq!(got.count("accepted"), ids.len() as u64, "{}", got.json);
                ledger.lock().await.acked.entry(self.symbol()).or_default().extend(ids);
                acks.fetch_add(1, Ordering::Relaxed);
                self.pending = None;
            }
            0 | 503 => {}
            other => panic!("{other}: {}", got.json),
        }
    }
}

/// The ids that history shows of a symbol, each with how often.
async fn found(node: &Node, symbol: &str) -> BTreeMap<u64, usize> {
    let kind = if symbol.ends_with(['0', '2', '4', '6', '8']) { "trades" } else { "quotes" };
    let mut found = BTreeMap::new();
    for tick in node.history(kind, symbol, "").await {
        let id = tick.get("i").or_else(|| tick.get("as")).and_then(Value::as_u64).expect("an id");
        *found.entry(id).or_default() += 1;
    }
    found
}

async fn check(node: &Node, ledger: &Ledger, when: &str) {
    for (symbol, sent) in &ledger.sent {
        let found = found(node, symbol).await;
        let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{when}: {symbol} has ticks twice: {twice:?}");
        let found: BTreeSet<u64> = found.into_keys().collect();
        let acked = ledger.acked.get(symbol).cloned().unwrap_or_default();
        let missing: Vec<_> = acked.difference(&found).collect();
        assert!(missing.is_empty(), "{when}: {symbol} lost acknowledged ticks {missing:?}");
        let invented: Vec<_> = found.difference(sent).collect();
        assert!(invented.is_empty(), "{when}: {symbol} shows ticks that nobody sent: {invented:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ledger_kill9() {
    let folder = tempfile::tempdir().expect("a folder");
    // A tape that has ended is to leave the cursors soon, while others end.
    let sets = ["--set", "history.linger_ms=300", "--set", "tape.retire_after_ms=1000"];
    let mut node = Node::new(folder.path(), &sets);
    let seed = 20_260_101;
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut producers: Vec<Producer> =
        (0..PRODUCERS).map(|number| Producer { number, next: 1, pending: None }).collect();
    for kill in 0..KILLS {
        node.start().await;
        // What was acknowledged before the kill is served as soon as the node says it is ready.
        check(&node, &*ledger.lock().await, &format!("seed {seed}, after kill {kill}")).await;
        let enough = random.random_range(0..12);
        let (acks, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let sizes: Vec<u64> = (0..PRODUCERS).map(|_| random.random_range(1..60)).collect();
        let work = producers.iter_mut().zip(sizes).map(|(producer, size)| {
            let (node, ledger, acks, stop) = (&node, &ledger, &acks, &stop);
            async move {
                while !stop.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                    producer.step(node, ledger, acks, size).await;
                    if acks.load(Ordering::Relaxed) >= enough {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
        // The kill falls while the other producers' requests are still under way.
        let killer = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            node.kill_now();
        };
        futures::future::join(futures::future::join_all(work), killer).await;
        node.kill().await;
    }
    node.start().await;
    check(&node, &*ledger.lock().await, "at the end").await;
    // Of a hundred tapes that have ended, cursors soon name few.
    let mut bytes = u64::MAX;
    let short = async {
        while bytes > CURSOR_BYTES_MAX {
            tokio::time::sleep(Duration::from_millis(200)).await;
            bytes = node.status().await["position_bytes"].as_u64().expect("a count");
        }
    };
    let is_short = tokio::time::timeout(Duration::from_secs(120), short).await.is_ok();
    assert!(is_short, "a cursor has {bytes} bytes");
    let acked: usize = ledger.lock().await.acked.values().map(BTreeSet::len).sum();
    assert!(acked > KILLS, "only {acked} ticks were acknowledged");
    assert_eq!(node.stop().await, Some(0));
}
