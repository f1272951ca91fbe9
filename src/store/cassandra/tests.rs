//! The store over a real Cassandra node, which the tests of this process share.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::cluster::Cluster;
use super::*;
use crate::market::Nanos;
use crate::store::{StoreErrorKind, suite};

/// The node of this process.
fn node() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| Cluster::start(&[]))
}

fn options(keyspace: &str) -> CassandraOptions {
    options_of(node(), keyspace)
}

fn options_of(cluster: &Cluster, keyspace: &str) -> CassandraOptions {
    let placement = Placement { datacenter: "dc1".to_owned(), replicas: 1 };
    CassandraOptions {
        nodes: cluster.nodes.clone(),
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
        hedge: Duration::from_millis(100),
        connections: 1,
        append_bytes_max: 32 << 20,
        flush_statements: 32,
    }
}

const LIVES: RecordLives =
    RecordLives { tapes: Duration::from_secs(96 * 3_600), audit: Duration::from_secs(90 * 86_400) };

async fn migrated(options: CassandraOptions) -> CassandraOptions {
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
    let store = Arc::new(CassandraStore::open(&migrated(options("suite")).await, LIVES).await.unwrap());
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

/// Where nothing is pending nobody needs a right to change the schema, nor a lock; what a newer
/// program applied stops only those that it says it is not for.
#[tokio::test(flavor = "multi_thread")]
async fn programs_of_two_versions() {
    let options = migrated(options("versions")).await;
    let schema = Schema::connect(&options).await.unwrap();
    let store = CassandraStore::open(&options, LIVES).await.unwrap();
    store.cluster.define("DROP TABLE versions_ctl.locks").await.unwrap();
    assert_eq!(schema.apply(Duration::ZERO, |_| {}).await, Ok(0));
    let newer = async |number: u16, readers: u16| {
        let row = format!("('shared', {number}, 'newer', 'c', {readers}, 1)");
        let columns = "(scope, number, name, checksum, readers, applied)";
        let text = format!("INSERT INTO versions_ctl.schema_migrations {columns} VALUES {row}");
        store.cluster.define(&text).await.unwrap();
        CassandraStore::open(&options, LIVES).await.map(drop)
    };
    assert_eq!(newer(98, 2).await, Ok(()));
    let error = newer(99, 3).await.unwrap_err();
    assert!(error.kind == StoreErrorKind::Invalid && error.detail.contains("0099_newer"), "{error}");
    assert_eq!(schema.apply(Duration::ZERO, |_| {}).await.unwrap_err(), error);
}

/// Tables that were made for another configuration are named, with the statement that mends them.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_configuration() {
    let options = migrated(options("changed")).await;
    let longer = |hours: u32| {
        let layout = Layout { tape_ttl_s: hours * 3_600, ..options.layout.clone() };
        CassandraOptions { layout, ..options.clone() }
    };
    let store = CassandraStore::open(&longer(47), LIVES).await.unwrap();
    for table in ["changed.tape", "changed.tape_chunks"] {
        let error = CassandraStore::open(&longer(49), LIVES).await.map(drop).unwrap_err();
        let (_, statement) = error.detail.split_once('`').unwrap();
        let (statement, _) = statement.split_once('`').unwrap();
        assert!(statement.starts_with(&format!("ALTER TABLE {table} ")), "{error}");
        store.cluster.define(statement).await.unwrap();
    }
    CassandraStore::open(&longer(49), LIVES).await.map(drop).unwrap();
    let placement = Placement { datacenter: "dc1".to_owned(), replicas: 3 };
    let mut more = options.clone();
    more.layout.regions.insert("local".to_owned(), placement);
    let error = CassandraStore::open(&more, LIVES).await.map(drop).unwrap_err();
    assert!(error.detail.contains("ALTER KEYSPACE changed_ctl WITH"), "{error}");
}

fn frame(tape: u64, seq: u64) -> FrameRow {
    FrameRow { tape: TapeId(tape), seq, body: format!("frame {seq}").into() }
}

/// Frames far apart are found by the directory, and those behind what has expired too.
#[tokio::test(flavor = "multi_thread")]
async fn frames_far_apart_are_found() {
    let store = CassandraStore::open(&migrated(options("apart")).await, LIVES).await.unwrap();
    let seqs = [1, 256, 257, 5_000, 5_001, 1_000_000, 40_000_000_000];
    for seq in seqs {
        store.append(frame(u64::MAX, seq), Reach::Region).await.unwrap();
    }
    let read = async |range: RangeInclusive<u64>, bytes_max| -> Vec<u64> {
        let frames = store.frames(TapeId(u64::MAX), range, bytes_max, At::Home).await.unwrap();
        frames.iter().map(|frame| frame.seq).collect()
    };
    assert_eq!(read(1..=u64::MAX, usize::MAX).await, seqs);
    assert_eq!(read(300..=2_000_000, usize::MAX).await, [5_000, 5_001, 1_000_000]);
    assert_eq!(read(5_002..=u64::MAX, 1).await, [1_000_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_write_one_symbol() {
    let options = migrated(options("both")).await;
    let one = CassandraStore::open(&options, LIVES).await.unwrap();
    let other = CassandraStore::open(&options, LIVES).await.unwrap();
    let symbol: Symbol = "AAPL".parse().unwrap();
    let put = async |store: &CassandraStore, from: i64, to: i64, id: u8| {
        let bucket = Bucket::of(Kind::Trade, Nanos(from));
        let key = BlockKey { kind: Kind::Trade, first: Nanos(from), id: [id; 16] };
        let row = BlockRow { key, last: Nanos(to), count: 1, body: vec![id; 40_000].into() };
        store.put_blocks(3, u64::from(id), vec![(BucketKey { symbol, bucket }, vec![row])]).await.unwrap();
    };
    // Times of one microsecond too: the lowest and the highest win, whoever was last.
    let t = 1_704_292_200_000_000_000;
    put(&one, t + 500, t + 900, 3).await;
    put(&other, t + 400, t + 800, 2).await;
    put(&other, t + 600, t + 2_000_000, 1).await;
    put(&one, t + 700, t + 1_000_000, 2).await;
    let row = other.symbols("", None, 9).await.unwrap();
    assert_eq!((row[0].first, row[0].last), (Nanos(t + 400), Nanos(t + 2_000_000)));
    assert_eq!((row.len(), one.block_count(3).await.unwrap()), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_named() {
    let mut elsewhere = options("elsewhere");
    let placement = Placement { datacenter: "dc9".to_owned(), replicas: 1 };
    elsewhere.layout.regions.insert("local".to_owned(), placement);
    let error = CassandraStore::open(&elsewhere, LIVES).await.map(drop).unwrap_err();
    assert!(error.kind == StoreErrorKind::Invalid && error.detail.contains("dc9"), "{error}");
    let nobody = CassandraOptions { nodes: vec!["127.0.0.1:1".to_owned()], ..options("nobody") };
    let error = CassandraStore::open(&nobody, LIVES).await.map(drop).unwrap_err();
    assert!(error.kind == StoreErrorKind::Unknown && error.detail.contains("127.0.0.1:1"), "{error}");
    let no_room = CassandraOptions { append_bytes_max: 1, ..migrated(options("no_room")).await };
    let store = CassandraStore::open(&no_room, LIVES).await.unwrap();
    let large = FrameRow { body: vec![0; 5_000].into(), ..frame(1, 1) };
    let error = store.append(large, Reach::Region).await.unwrap_err();
    assert!(error.kind == StoreErrorKind::Refused && error.detail.contains("append_bytes_max"), "{error}");
}

/// The database is killed under appends, over TLS and with a password: what was acknowledged is there
/// when it comes back, and appends go on by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_killed() {
    let cluster = Cluster::start(&["--tls", "--auth"]);
    let ca = std::fs::read(cluster.facts["ca"].as_str().unwrap()).unwrap();
    let user = |password: &str| Some(("cassandra".to_owned(), password.into()));
    let plain = CassandraOptions { user: user("cassandra"), ..options_of(&cluster, "killed") };
    let options = CassandraOptions { ca: Some(ca), ..plain.clone() };
    let wrong = CassandraOptions { user: user("wrong"), ..options.clone() };
    for refused in [plain, wrong] {
        let error = CassandraStore::open(&refused, LIVES).await.map(drop).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unknown, "{error}");
    }
    let store = CassandraStore::open(&migrated(options).await, LIVES).await.unwrap();
    assert_eq!(store.durability().await, durability::Durability::Synced);
    let (mut acknowledged, mut failed, mut seq) = (Vec::new(), 0, 0);
    for round in 0..3 {
        for _ in 0..20 {
            seq += 1;
            match store.append(frame(7, seq), Reach::Region).await {
                Ok(()) => acknowledged.push(seq),
                Err(error) => {
                    assert_ne!(error.kind, StoreErrorKind::Invalid, "{error}");
                    failed += 1;
                }
            }
        }
        match round {
            0 => cluster.ask("kill 1"),
            1 => {
                cluster.ask("start 1");
                while store.ping().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            _ => {}
        }
    }
    assert!(failed > 0 && acknowledged.iter().any(|seq| *seq > 40), "{failed} failed, {acknowledged:?}");
    let there = store.frames(TapeId(7), 1..=seq, usize::MAX, At::Here).await.unwrap();
    let there: Vec<u64> = there.iter().map(|frame| frame.seq).collect();
    assert!(acknowledged.iter().all(|seq| there.contains(seq)), "{acknowledged:?} {there:?}");
}
