//! The book of subscriptions over records in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::testing::moved_clock;
use crate::config::Config;
use crate::live::tests::{idle_node, open_attached};
use crate::live::{End, Next, Place, Start};
use crate::seal::Keyring;
use crate::store::memory::MemoryStore;
use crate::store::{Record, Records as _, Space, StoreErrorKind, record_seal_key};

const NOW: Nanos = Nanos(1_704_292_200_000_000_000);

struct World {
    records: Arc<MemoryStore>,
    now_ms: Arc<AtomicU64>,
    subs: Subs,
}

fn over(records: &Arc<MemoryStore>, sets: &[&str]) -> World {
    let (now_ms, clock) = moved_clock();
    let keyring = Arc::new(Keyring::from_secret([7; 32]));
    let config = Config::with(sets).unwrap().subs;
    let subs = Subs::new(Arc::clone(records) as _, keyring, config, clock);
    World { records: Arc::clone(records), now_ms, subs }
}

fn world(sets: &[&str]) -> World {
    over(&Arc::new(MemoryStore::default()), sets)
}

fn terms(symbols: &[&str]) -> Terms {
    let mut symbols: Vec<Symbol> = symbols.iter().map(|text| text.parse().unwrap()).collect();
    symbols.sort_unstable();
    Terms {
        name: String::new(),
        symbols: Symbols::Listed(symbols),
        channels: Channels::NONE.with(Channel::Trades),
        filter: FilterSpec::default(),
        conflate_ms: 0,
        paused: false,
    }
}

#[tokio::test]
async fn a_key_makes_one_subscription_on_every_node_and_after_a_restart() {
    let one = world(&[]);
    let (made, new) = one.subs.create("TA1", Some("desk"), terms(&["AAPL"]), NOW).await.unwrap();
    assert!(new);
    let elsewhere = over(&one.records, &[]);
    let again = elsewhere.subs.create("TA1", Some("desk"), terms(&["AAPL"]), NOW.plus(5)).await.unwrap();
    assert_eq!(again, (made.clone(), false));
    let reused = one.subs.create("TA1", Some("desk"), terms(&["MSFT"]), NOW).await;
    assert_eq!(reused, Err(SubsError::KeyReused));
    let (of_other, new) = one.subs.create("TA2", Some("desk"), terms(&["AAPL"]), NOW).await.unwrap();
    assert!(new && of_other.id != made.id);
    let pause = |row: &Subscription| Ok::<_, SubsError>(Terms { paused: true, ..row.terms.clone() });
    let changed = one.subs.change("TA1", &made.id, NOW, pause).await.unwrap();
    let again = one.subs.create("TA1", Some("desk"), terms(&["AAPL"]), NOW).await.unwrap();
    assert_eq!(again, (changed, false), "it is known by what it was made with");
}

#[tokio::test]
async fn a_change_is_a_later_version_whatever_the_clock_says() {
    let World { subs, .. } = world(&[]);
    let (made, _) = subs.create("TA1", None, terms(&["AAPL"]), NOW).await.unwrap();
    let earlier = NOW.plus(-Nanos::HOUR);
    let apply = |row: &Subscription| Ok::<_, SubsError>(Terms { conflate_ms: 5, ..row.terms.clone() });
    let changed = subs.change("TA1", &made.id, earlier, apply).await.unwrap();
    assert_eq!((changed.version, changed.terms.conflate_ms), (made.version + 1, 5));
    assert_eq!(subs.get("TA1", &made.id).await.as_ref(), Ok(&changed));
    let same = subs.change("TA1", &made.id, NOW.plus(Nanos::HOUR), apply).await.unwrap();
    assert_eq!(same, changed, "what changes nothing is no change");
    let refused = subs.change("TA1", &made.id, NOW, |_| Err(SubsError::Deleted)).await;
    assert_eq!(refused, Err(SubsError::Deleted));
    assert_eq!(subs.get("TA1", &made.id).await, Ok(changed));
}

#[tokio::test]
async fn another_account_finds_nothing() {
    let World { subs, .. } = world(&[]);
    let (made, _) = subs.create("TA1", None, terms(&["AAPL"]), NOW).await.unwrap();
    let none = || SubsError::NoSuch(made.id.clone());
    assert_eq!(subs.get("TA2", &made.id).await, Err(none()));
    assert_eq!(subs.delete("TA2", &made.id, NOW, |_| Ok(())).await, Err(none()));
    let paused = subs.change("TA2", &made.id, NOW, |row| Ok::<_, SubsError>(row.terms.clone())).await;
    assert_eq!(paused, Err(none()));
    assert!(subs.list("TA2", None, 10).await.unwrap().subscriptions.is_empty());
    assert!(matches!(subs.get("TA1", "../TA2").await, Err(SubsError::NoSuch(_))));
    assert!(subs.get("TA1", &made.id).await.is_ok());
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_its_key_makes_nothing_new() {
    let World { subs, .. } = world(&["subs.deleted_per_account_max=2", "subs.per_account_max=3"]);
    let (made, _) = subs.create("TA1", Some("desk"), terms(&["AAPL"]), NOW).await.unwrap();
    subs.delete("TA1", &made.id, NOW, |_| Ok::<_, SubsError>(())).await.unwrap();
    assert_eq!(subs.get("TA1", &made.id).await, Err(SubsError::NoSuch(made.id.clone())));
    let gone = subs.delete("TA1", &made.id, NOW, |_| Ok(())).await;
    assert_eq!(gone, Err(SubsError::NoSuch(made.id.clone())));
    let again = subs.create("TA1", Some("desk"), terms(&["AAPL"]), NOW).await;
    assert_eq!(again, Err(SubsError::Deleted));
    let (second, _) = subs.create("TA1", None, terms(&["AAPL"]), NOW).await.unwrap();
    subs.delete("TA1", &second.id, NOW, |_| Ok::<_, SubsError>(())).await.unwrap();
    let full = subs.create("TA1", None, terms(&["AAPL"]), NOW).await;
    assert_eq!(full, Err(SubsError::Full { limit: "subs.deleted_per_account_max", most: 2 }));
}

#[tokio::test]
async fn an_account_has_so_many_and_lists_them_by_pages() {
    let World { subs, .. } = world(&["subs.per_account_max=5"]);
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(subs.create("TA1", None, terms(&["AAPL"]), NOW).await.unwrap().0);
    }
    made.sort_by(|a, b| a.id.cmp(&b.id));
    let full = subs.create("TA1", None, terms(&["AAPL"]), NOW).await;
    assert_eq!(full, Err(SubsError::Full { limit: "subs.per_account_max", most: 5 }));
    subs.delete("TA1", &made[1].id, NOW, |_| Ok::<_, SubsError>(())).await.unwrap();
    let first = subs.list("TA1", None, 2).await.unwrap();
    assert_eq!((first.subscriptions, first.more), (vec![made[0].clone(), made[2].clone()], true));
    let rest = subs.list("TA1", Some(&made[2].id), 2).await.unwrap();
    assert_eq!((rest.subscriptions, rest.more), (made[3..].to_vec(), false));
}

#[tokio::test]
async fn a_plan_has_each_symbol_once_and_follows_changes() {
    let world = world(&["subs.feed_symbols_max=3", "subs.refresh_ms=1000", "subs.accounts_cached_max=1"]);
    let subs = &world.subs;
    let symbol = |text: &str| text.parse::<Symbol>().unwrap();
    let trades = Channels::NONE.with(Channel::Trades);
    let (first, _) = subs.create("TA1", None, terms(&["MSFT", "AAPL"]), NOW).await.unwrap();
    let quotes = Terms { channels: Channels::NONE.with(Channel::Quotes), ..terms(&["AAPL", "IBM"]) };
    subs.create("TA1", None, quotes, NOW).await.unwrap();
    let plan = subs.plan("TA1").await.unwrap().unwrap();
    let both = trades.with(Channel::Quotes);
    let expected = [
        (symbol("AAPL"), both),
        (symbol("IBM"), Channels::NONE.with(Channel::Quotes)),
        (symbol("MSFT"), trades),
    ];
    assert_eq!((plan.symbols.as_slice(), plan.of_all), (expected.as_slice(), Channels::NONE));
    let (fourth, _) = subs.create("TA1", None, terms(&["GE"]), NOW).await.unwrap();
    assert_eq!(subs.plan("TA1").await.unwrap(), Err(TooMany { most: 3 }), "a change here is seen at once");
    subs.delete("TA1", &fourth.id, NOW, |_| Ok::<_, SubsError>(())).await.unwrap();
    let pause = |row: &Subscription| {
        Ok::<_, SubsError>(Terms { paused: true, symbols: Symbols::All, ..row.terms.clone() })
    };
    subs.change("TA1", &first.id, NOW, pause).await.unwrap();
    assert_eq!(subs.plan("TA1").await.unwrap().unwrap().symbols.len(), 2);
    // What another node changes is seen after a while.
    let resume = |row: &Subscription| Ok::<_, SubsError>(Terms { paused: false, ..row.terms.clone() });
    over(&world.records, &[]).subs.change("TA1", &first.id, NOW, resume).await.unwrap();
    assert!(subs.plan("TA1").await.unwrap().unwrap().of_all.is_empty());
    world.now_ms.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(subs.plan("TA1").await.unwrap().unwrap().of_all, trades);
    assert!(subs.plan("TA2").await.unwrap().unwrap().symbols.is_empty());
}

#[tokio::test]
async fn a_damaged_row_is_named_and_a_refusing_store_changes_nothing() {
    let world = world(&[]);
    let (made, _) = world.subs.create("TA1", None, terms(&["AAPL"]), NOW).await.unwrap();
    world.records.refuses.store(true, Ordering::Relaxed);
    let pause = |row: &Subscription| Ok::<_, SubsError>(Terms { paused: true, ..row.terms.clone() });
    let refused = world.subs.change("TA1", &made.id, NOW, pause).await;
    assert!(matches!(refused, Err(SubsError::Store(error)) if error.kind == StoreErrorKind::Refused));
    assert_eq!(world.subs.get("TA1", &made.id).await, Ok(made.clone()));
    world.records.refuses.store(false, Ordering::Relaxed);
    let keyring = Keyring::from_secret([7; 32]);
    let key = record_seal_key(Space::Subscriptions, "TA1", &made.id, made.version + 1);
    let record =
        Record { key: made.id.clone(), version: made.version + 1, body: keyring.seal(&key, b"{\"v\":9}") };
    world.records.put(Space::Subscriptions, "TA1", record).await.unwrap();
    let error = world.subs.get("TA1", &made.id).await.unwrap_err().to_string();
    assert!(error.contains(&made.id), "{error}");
}

/// Another node changes one subscription and deletes another; a third stays as it is, and a row that
/// cannot be read costs the others nothing.
#[tokio::test(start_paused = true)]
async fn streams_end_where_another_node_has_changed_their_subscription() {
    let (here, live) = (world(&[]), idle_node().await);
    let there = over(&here.records, &[]);
    let make =
        async |account, symbol| here.subs.create(account, None, terms(&[symbol]), NOW).await.unwrap().0;
    let (damaged, changed) = (make("TA0", "D").await, make("TA1", "A").await);
    let (deleted, same) = (make("TA1", "B").await, make("TA2", "C").await);
    let rows = [&changed, &deleted, &same, &damaged];
    let [mut of_changed, mut of_deleted, mut of_same, _of_damaged] =
        rows.map(|row| open_attached(&live, row.attached()));
    let junk = Record { key: damaged.id.clone(), version: u64::MAX, body: "junk".into() };
    here.records.put(Space::Subscriptions, "TA0", junk).await.unwrap();
    let refresh = Duration::from_millis(here.subs.limits().refresh_ms);
    let stop = CancellationToken::new();
    tokio::spawn(run_attached(Arc::new(here.subs), vec![Arc::clone(&live)], stop.clone()));
    tokio::time::sleep(refresh * 2).await;
    assert_eq!(live.hub().attached().len(), 4);
    assert!([&of_changed, &of_deleted, &of_same].iter().all(|stream| stream.subscriber().end().is_none()));
    let rename =
        |row: &Subscription| Ok::<_, SubsError>(Terms { name: "desk".to_owned(), ..row.terms.clone() });
    there.subs.change("TA2", &same.id, NOW, rename).await.unwrap();
    let pause = |row: &Subscription| Ok::<_, SubsError>(Terms { paused: true, ..row.terms.clone() });
    there.subs.change("TA1", &changed.id, NOW, pause).await.unwrap();
    there.subs.delete("TA1", &deleted.id, NOW, |_| Ok::<_, SubsError>(())).await.unwrap();
    tokio::time::sleep(refresh * 2).await;
    assert!(matches!(of_changed.next(1).await, Next::End(End::Changed)));
    assert!(matches!(of_deleted.next(1).await, Next::End(End::Deleted)));
    assert!(tokio::time::timeout(refresh, of_same.next(1)).await.is_err(), "it goes on");
    stop.cancel();
}

/// A stream of a paused subscription stays where it begins.
#[tokio::test]
async fn a_paused_stream_holds_its_place() {
    let live = idle_node().await;
    let of = Attached { account: "TA1".to_owned(), id: "SU1".to_owned(), delivers: [1; 16] };
    let mut stream = open_attached(&live, of.clone());
    let place = Place { position: Arc::default(), told: Nanos(7) };
    stream.hold(Some(Start::After(place, Nanos(9))));
    let cursor = stream.cursor().unwrap();
    assert_eq!((cursor.at, cursor.told), (Nanos(9), Some(Nanos(7))));
    let mut stream = open_attached(&live, of);
    stream.hold(Some(Start::Since(Nanos(9))));
    assert_eq!(stream.cursor(), None, "nobody has looked up where that is");
    stream.hold(None);
    assert!(stream.cursor().is_some());
}
