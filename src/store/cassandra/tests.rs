//! The store over a real Cassandra node, which the tests of this process share.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::store::suite;

/// A cluster of `scripts/cassandra`; it ends with the pipe to it, however this process ends.
struct Launched {
    _child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    nodes: Vec<String>,
}

/// The node of this process.
fn node() -> &'static Launched {
    static NODE: OnceLock<Launched> = OnceLock::new();
    NODE.get_or_init(|| {
        // Processes that test at once have addresses of their own.
        let net = format!("127.{}.{}", 64 + std::process::id() % 64, std::process::id() / 64 % 256);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cassandra");
        let mut child = Command::new(script)
            .args(["--net", &net])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/cassandra runs");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&line)
            .expect("a node; `make test` fetches Cassandra by scripts/cassandra-env");
        let nodes = facts["nodes"].as_array().unwrap();
        let nodes = nodes.iter().map(|node| node.as_str().unwrap().to_owned()).collect();
        Launched { _child: child, pipes: Mutex::new((stdin, stdout)), nodes }
    })
}

impl Launched {
    /// Has the launcher do something.
    fn ask(&self, line: &str) -> serde_json::Value {
        let mut pipes = self.pipes.lock();
        writeln!(pipes.0, "{line}").unwrap();
        let mut answer = String::new();
        pipes.1.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

fn options(keyspace: &str) -> CassandraOptions {
    let placement = Placement { datacenter: "dc1".to_owned(), replicas: 1 };
    CassandraOptions {
        nodes: node().nodes.clone(),
        layout: Layout {
            keyspace: keyspace.to_owned(),
            region: "local".to_owned(),
            regions: [("local".to_owned(), placement)].into(),
            tape_ttl_s: 48 * 3_600,
        },
        rack: None,
        user: None,
        ca: None,
        connect: Duration::from_secs(5),
        request: Duration::from_secs(5),
        connections: 1,
        append_bytes_max: 32 << 20,
        flush_statements: 32,
    }
}

const LIVES: RecordLives =
    RecordLives { tapes: Duration::from_secs(96 * 3_600), audit: Duration::from_secs(90 * 86_400) };

async fn migrated(keyspace: &str) -> CassandraOptions {
    let options = options(keyspace);
    let schema = Schema::connect(&options).await.unwrap();
    schema.apply(Duration::from_secs(60), |_| {}).await.unwrap();
    options
}

/// A store, empty at each call.
async fn emptied(store: &Arc<CassandraStore>) -> Arc<CassandraStore> {
    let layout = &store.layout;
    let mut tables = vec![format!("{}.tape", layout.shared()), format!("{}.tape_chunks", layout.shared())];
    tables.push(format!("{}.records", layout.control()));
    let of_region = ["symbols", "buckets", "blocks", "counts"];
    tables.extend(of_region.map(|table| format!("{}.{table}", layout.of_region())));
    for table in tables {
        store.cluster.define(&format!("TRUNCATE {table}")).await.unwrap();
    }
    store.tapes.forget();
    store.blocks.forget();
    Arc::clone(store)
}

#[tokio::test(flavor = "multi_thread")]
async fn store_suite_on_cassandra() {
    let store = Arc::new(CassandraStore::open(&migrated("suite").await, LIVES).await.unwrap());
    suite::store(async || emptied(&store).await, suite::OtherBytes::Unnoticed).await;
    suite::records(async || emptied(&store).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_nodes_migrate_at_once() {
    let options = options("ten");
    let error = CassandraStore::open(&options, LIVES).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("tapeline migrate apply"), "{error}");
    let applied = (0..10).map(|_| {
        let options = options.clone();
        tokio::spawn(async move {
            let schema = Schema::connect(&options).await.unwrap();
            schema.apply(Duration::from_secs(120), |_| {}).await.unwrap()
        })
    });
    let applied: Vec<usize> =
        futures::future::join_all(applied).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(applied.iter().sum::<usize>(), schema::MIGRATIONS.len(), "each once: {applied:?}");
    let schema = Schema::connect(&options).await.unwrap();
    let status = schema.status().await.unwrap();
    assert!(status.iter().all(|step| matches!(step.standing, Standing::Applied { .. })), "{status:?}");
    CassandraStore::open(&options, LIVES).await.unwrap().ping().await.unwrap();
}
