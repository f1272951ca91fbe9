//! Streams of real nodes: clients that do not read, that come back all at once, whose node dies.
//! What each has been given is counted; nothing is timed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::node::{Node, answer, quote, trade};
use crate::subscriber::{Client, Door, Pipe};

const TIME: i64 = 1_704_292_200_000_000_000;
/// Of a client that is to be closed 1008: slow client.
const SLOW_CLIENT: u64 = 407;
const POLICY: u16 = 1_008;
/// The number of the tick after which nothing comes.
const LAST: u64 = 1_000_000_000;
const NONE: [u64; 0] = [];

async fn started(folder: &tempfile::TempDir, limits: &[&str]) -> Node {
    let always = [
        "access.requests_per_minute=1000000",
        "access.requests_burst=1000000",
        "http.source_requests_per_minute=10000000",
    ];
    let flags: Vec<&str> = limits.iter().chain(&always).flat_map(|limit| ["--set", limit]).collect();
    let mut node = Node::new(folder.path(), &flags);
    node.start().await;
    node
}

/// Posts trades of a symbol with these numbers, in requests of so many, one after the other.
async fn post(node: &Node, symbol: &str, ids: RangeInclusive<u64>, of: usize) {
    let ids: Vec<u64> = ids.collect();
    for part in ids.chunks(of) {
        let ticks: Vec<Value> = part.iter().map(|id| tick(symbol, *id)).collect();
        let got = node.post_ticks(&ticks, "", None).await;
        assert_eq!((got.status, got.count("accepted")), (200, part.len() as u64), "{}", got.json);
    }
}

fn tick(symbol: &str, id: u64) -> Value {
    trade(symbol, id, TIME + i64::try_from(id).expect("small") * 1_000)
}

/// Waits until the node has closed so many clients that do not read.
async fn until_closed(node: &Node, count: u32) {
    const CLOSED: &str = "tapeline_live_closed_total{code=\"1008\"}";
    let waited = async {
        while node.metric(CLOSED).await.unwrap_or_default() < f64::from(count) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waited).await.is_ok(), "never closed: {count}");
}

/// Resident memory of the node, in KiB: now (`VmRSS`) or at its peak (`VmHWM`).
fn memory_kib(node: &Node, what: &str) -> u64 {
    let pid = node.pid().expect("the node runs").as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status of the process");
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).expect("memory");
    line.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number")
}

/// Numbers that are there twice.
fn twice(ids: &[u64]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    ids.iter().copied().filter(|id| !seen.insert(*id)).collect()
}

fn missing(ids: &[u64], wanted: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let seen: BTreeSet<u64> = ids.iter().copied().collect();
    wanted.into_iter().filter(|id| !seen.contains(id)).take(10).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stalled_reader_costs_the_others_nothing() {
    const TICKS: u64 = 12_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = started(&folder, &["live.outbox_bytes_max=65536", "live.stall_ms=2000"]).await;
    let (door, all) = (Door::of(&node), json!({"trades": ["*"]}));
    let mut stalled = Client::subscribe(&door, Pipe::Narrow, "", &all).await;
    let mut others = join_all((0..49).map(|_| Client::subscribe(&door, Pipe::Wide, "", &all))).await;
    let everything: Vec<u64> = (1..=TICKS).collect();
    let reading = join_all(
        others.iter_mut().map(|client| client.until("every tick", |client| client.ids.len() as u64 >= TICKS)),
    );
    join(post(&node, "STALL", 1..=TICKS, 200), reading).await;
    for client in &others {
        assert!(client.ids == everything, "each tick once, in order");
    }
    until_closed(&node, 1).await;
    stalled.until_closed().await;
    assert_eq!((stalled.errors.as_slice(), stalled.closed), (&[SLOW_CLIENT][..], Some(POLICY)));
    assert!((stalled.ids.len() as u64) < TICKS, "it took everything: it did not stall");
    assert!(everything.starts_with(&stalled.ids), "what it was given has no hole");
    // The others are live still.
    let reading = join_all(
        others.iter_mut().map(|client| client.until("one more", |client| client.ids.last() == Some(&LAST))),
    );
    join(post(&node, "STALL", LAST..=LAST, 1), reading).await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_told_before_the_subscription_is_where_it_begins() {
    const TICKS: u64 = 100;
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = started(&folder, &["live.heartbeat_ms=100"]).await;
    let (door, all) = (Door::of(&node), json!({"trades": ["*"]}));
    let query = |client: &mut Client| format!("?ext=1&cursor={}", client.cursor.take().expect("a cursor"));
    let mut first = Client::subscribe(&door, Pipe::Wide, "?ext=1", &all).await;
    first.until("a cursor", |client| client.cursor.is_some()).await;
    let begins = query(&mut first);
    drop(first);
    post(&node, "BEGINS", 1..=TICKS, 10).await;
    // It comes back, and is told a cursor before it has asked for anything; then it is cut.
    let mut silent = Client::connect(&door, Pipe::Wide, &begins).await;
    silent.until("a cursor", |client| client.cursor.is_some()).await;
    let begins = query(&mut silent);
    drop(silent);
    let mut again = Client::subscribe(&door, Pipe::Wide, &begins, &all).await;
    post(&node, "BEGINS", LAST..=LAST, 1).await;
    again.until("the last", |client| client.ids.contains(&LAST)).await;
    assert_eq!(missing(&again.ids, 1..=TICKS), NONE, "there is a hole");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_stalled_readers_leave_memory_bounded() {
    let clients: u32 = if crate::stack::IS_EMBEDDED { 1_000 } else { 300 };
    const TICKS: u64 = 24_000;
    // The limits below add up to some 30 MiB; outboxes share their bytes, and a connection is small.
    // A copy of the load for each client would be a gigabyte.
    const MORE_KIB_MAX: u64 = 96 * 1024;
    let folder = tempfile::tempdir().expect("a folder");
    let limits = [
        "live.outbox_bytes_max=65536",
        "live.batch_bytes_max=65536",
        "live.stall_ms=2000",
        "live.heartbeat_ms=200",
        "live.backlog_bytes_max=4194304",
        "live.scan_cache_bytes_max=4194304",
        "tape.tail_bytes_max=16777216",
    ];
    let mut node = started(&folder, &limits).await;
    let (door, all) = (Door::of(&node), json!({"trades": ["*"]}));
    let mut stalled =
        join_all((0..clients).map(|_| Client::subscribe(&door, Pipe::Narrow, "?ext=1", &all))).await;
    join_all(stalled.iter_mut().map(|client| client.until("a cursor", |client| client.cursor.is_some())))
        .await;
    let before = memory_kib(&node, "VmRSS");
    post(&node, "STALL", 1..=TICKS, 400).await;
    until_closed(&node, clients).await;
    let more = memory_kib(&node, "VmHWM").saturating_sub(before);
    assert!(more < MORE_KIB_MAX, "{more} KiB for {clients} clients that do not read");
    join_all(stalled.iter_mut().map(Client::until_closed)).await;
    // Who reads at last is told, unless it came too late for that.
    let told: Vec<&Client> = stalled.iter().filter(|client| client.errors == [SLOW_CLIENT]).collect();
    assert!(!told.is_empty(), "nobody was told why");
    assert!(told.iter().all(|client| client.closed == Some(POLICY)), "who is told is closed 1008");
    // Some of those come back, and have everything.
    let mut back: Vec<Client> = Vec::new();
    for client in told.into_iter().take(10) {
        let cursor = client.cursor.as_deref().expect("a cursor comes with the 407");
        let query = format!("?ext=1&cursor={cursor}");
        let mut again = Client::subscribe(&door, Pipe::Wide, &query, &all).await;
        again.ids.splice(0..0, client.ids.iter().copied());
        back.push(again);
    }
    let reading = join_all(
        back.iter_mut().map(|client| client.until("what is new", |client| client.ids.contains(&LAST))),
    );
    join(post(&node, "STALL", LAST..=LAST, 1), reading).await;
    for client in &back {
        assert_eq!(missing(&client.ids, (1..=TICKS).chain([LAST])), NONE, "there is a hole");
        assert_eq!(client.gaps, 0);
    }
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_storm() {
    let clients: u32 = if crate::stack::IS_EMBEDDED { 1_000 } else { 200 };
    const SYMBOLS: u64 = 10;
    const BEFORE: u64 = 20_000;
    const MEANWHILE: u64 = 2_000;
    const REPEATS: u32 = 5;
    let folder = tempfile::tempdir().expect("a folder");
    // The tail holds a part of what they lack; the rest is read from the tape.
    let limits = ["live.heartbeat_ms=100", "tape.tail_bytes_max=1048576"];
    let mut node = started(&folder, &limits).await;
    let (door, all) = (Door::of(&node), json!({"trades": ["*"]}));
    let mut first = Client::subscribe(&door, Pipe::Wide, "?ext=1", &all).await;
    first.until("a cursor", |client| client.cursor.is_some()).await;
    let query = format!("?ext=1&cursor={}", first.cursor.take().expect("a cursor"));
    drop(first);
    let symbol = |of: u64| format!("STORM{}", of % SYMBOLS);
    let storm_ticks = async |ids: RangeInclusive<u64>| {
        let ids: Vec<u64> = ids.collect();
        for part in ids.chunks(200) {
            let ticks: Vec<Value> = part.iter().map(|id| tick(&symbol(*id), *id)).collect();
            let mut posted = node.post_ticks(&ticks, "", None).await;
            // A busy database may take too long. A producer sends the same again when it is told to,
            // and it is kept once.
            for _ in 0..REPEATS {
                let is_busy = !crate::stack::IS_EMBEDDED && posted.status == 503;
                let Some(seconds) = posted.headers.get("retry-after").filter(|_| is_busy) else { break };
                let seconds = seconds.to_str().expect("text").parse().expect("seconds");
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                posted = node.post_ticks(&ticks, "", None).await;
            }
            assert_eq!(posted.status, 200, "{}", posted.json);
        }
    };
    storm_ticks(1..=BEFORE).await;
    let mut live = Client::subscribe(&door, Pipe::Wide, "", &all).await;
    let end = BEFORE + MEANWHILE;
    let storm = join_all((0..u64::from(clients)).map(async |number| {
        let own = json!({"trades": [symbol(number)]});
        let mut client = Client::subscribe(&door, Pipe::Wide, &query, &own).await;
        let wanted: Vec<u64> = (1..=end).filter(|id| id % SYMBOLS == number % SYMBOLS).collect();
        client.until("all it lacks", |client| client.ids.len() >= wanted.len()).await;
        assert_eq!((twice(&client.ids), missing(&client.ids, wanted)), (vec![], vec![]), "client {number}");
        assert_eq!(client.gaps, 0);
    }));
    let in_order = live.until("every tick", |client| client.ids.len() as u64 >= MEANWHILE);
    join(join(storm, in_order), storm_ticks(BEFORE + 1..=end)).await;
    assert_eq!((twice(&live.ids), missing(&live.ids, BEFORE + 1..=end)), (vec![], vec![]), "who is live");
    // What one has read is there for the others.
    let scans = node.metric("tapeline_live_scans_total").await.expect("a metric");
    assert!(scans >= 1.0 && scans < f64::from(clients) / 5.0, "{scans} reads of tapes for {clients} clients");
    for of in 0..SYMBOLS {
        // A frame's ticks are sorted by series: the order is that of each symbol.
        let own: Vec<u64> = live.ids.iter().copied().filter(|id| id % SYMBOLS == of).collect();
        assert!(own.is_sorted(), "who is live gets the ticks of a symbol in order");
    }
    assert_eq!(node.stop().await, Some(0));
}

/// A client over all of its connections.
struct Follower {
    symbol: String,
    cursor: Option<String>,
    /// It takes its time for each message, over a connection that is soon full.
    is_slow: bool,
    /// What each of its connections gave.
    given: Vec<Vec<u64>>,
}

impl Follower {
    /// Connects where it was, and reads until the node ends it or the last tick is there. Before that it
    /// goes by itself after each of so many messages, and comes back.
    async fn follow(&mut self, door: &Door, ready: &Semaphore, stays: &[usize]) {
        for messages in stays {
            let mut client = self.connect(door).await;
            for _ in 0..*messages {
                self.read(&mut client).await;
            }
            self.leave(client);
        }
        let mut client = self.connect(door).await;
        ready.add_permits(1);
        while client.closed.is_none() && !client.ids.contains(&LAST) {
            self.read(&mut client).await;
        }
        self.leave(client);
    }

    async fn connect(&self, door: &Door) -> Client {
        let query = match &self.cursor {
            Some(cursor) => format!("?ext=1&cursor={cursor}"),
            None => "?ext=1".to_owned(),
        };
        let pipe = if self.is_slow { Pipe::Narrow } else { Pipe::Wide };
        let mut client = Client::subscribe(door, pipe, &query, &json!({"trades": [&self.symbol]})).await;
        if self.cursor.is_none() {
            client.until("its first cursor", |client| client.cursor.is_some()).await;
        }
        client
    }

    async fn read(&self, client: &mut Client) {
        client.next().await;
        if self.is_slow {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All of it, and each once a connection.
    fn was_given(&self, number: usize, wanted: &[u64]) {
        let all = self.given.concat();
        assert_eq!(missing(&all, wanted.iter().copied()), NONE, "client {number} lacks what history has");
        assert_eq!(missing(wanted, all), NONE, "client {number} was given what history has not");
        for (round, given) in self.given.iter().enumerate() {
            assert_eq!(twice(given), NONE, "client {number}, connection {round}: twice without a resume");
        }
    }

    fn leave(&mut self, mut client: Client) {
        assert_eq!((client.gaps, client.errors.as_slice()), (0, &[][..]));
        self.cursor = client.cursor.take().or(self.cursor.take());
        self.given.push(client.ids);
    }
}

/// A request with its key.
type Request = (String, Vec<Value>);

/// The next requests, each of ticks of all symbols.
fn requests(next: &mut u64, symbols: usize, count: usize) -> impl Iterator<Item = Request> {
    let first = *next;
    *next += 30 * count as u64;
    (first..*next).step_by(30).map(move |first| {
        let symbol = |id: u64| format!("BACK{}", id % symbols as u64);
        (format!("request-{first}"), (first..first + 30).map(|id| tick(&symbol(id), id)).collect())
    })
}

/// Posts all of these at once, and kills the node when one is acknowledged; answers those that were not.
async fn killed_under(node: &Node, requests: Vec<Request>) -> Vec<Request> {
    let acked = AtomicBool::new(false);
    let posts = join_all(requests.iter().map(async |(key, ticks)| {
        let got = node.post_ticks(ticks, "", Some(key)).await;
        assert!(got.status == 200 || got.status == 0, "{}: {}", got.status, got.json);
        acked.fetch_or(got.status == 200, Ordering::Relaxed);
        got.status
    }));
    let killer = async {
        while !acked.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        node.kill_now();
    };
    let (statuses, ()) = join(posts, killer).await;
    requests
        .into_iter()
        .zip(statuses)
        .filter(|(_, status)| *status == 0)
        .map(|(request, _)| request)
        .collect()
}

/// Clients go by themselves and come back, some are slow; the node is killed under load and told to stop in
/// turn. What each was given is what history has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_anywhere() {
    const CLIENTS: usize = 200;
    const SYMBOLS: usize = 6;
    const KILLS: usize = 5;
    const REQUESTS: usize = 40;
    const AT_ONCE: usize = 16;
    let folder = tempfile::tempdir().expect("a folder");
    let limits = ["live.heartbeat_ms=100", "history.linger_ms=300", "live.move_ms=300"];
    let mut node = started(&folder, &limits).await;
    let mut followers: Vec<Follower> = (0..CLIENTS)
        .map(|number| Follower {
            symbol: format!("BACK{}", number % SYMBOLS),
            cursor: None,
            is_slow: number % 10 == 0,
            given: Vec::new(),
        })
        .collect();
    let (mut next, mut pending, mut cut) = (1_u64, Vec::new(), 0);
    for round in 0..=KILLS {
        let (door, ready) = (Door::of(&node), Semaphore::new(0));
        // In the first round each has a cursor before there is a tick.
        let of_all: [&[usize]; 3] = if round == 0 { [&[]; 3] } else { [&[], &[1], &[4, 9]] };
        let follow = followers.iter_mut().enumerate();
        let follow = join_all(follow.map(|(number, of)| of.follow(&door, &ready, of_all[number % 3])));
        let posting = async {
            let everybody = u32::try_from(CLIENTS).expect("few");
            // Later ticks come at once.
            let wait = if round == 0 { everybody } else { 0 };
            drop(ready.acquire_many(wait).await.expect("open"));
            let again = std::mem::take(&mut pending);
            let first = again.into_iter().chain(requests(&mut next, SYMBOLS, REQUESTS));
            for (key, ticks) in first {
                assert_eq!(node.post_ticks(&ticks, "", Some(&key)).await.status, 200);
            }
            let _all = ready.acquire_many(everybody).await.expect("open");
            if round == KILLS {
                let last: Vec<Value> = (0..SYMBOLS).map(|of| tick(&format!("BACK{of}"), LAST)).collect();
                assert_eq!(node.post_ticks(&last, "", None).await.status, 200);
            } else if round % 2 == 1 {
                kill_process(node.pid().expect("it runs"), Signal::TERM).expect("it is told to stop");
            } else {
                pending = killed_under(&node, requests(&mut next, SYMBOLS, AT_ONCE).collect()).await;
                cut += pending.len();
            }
        };
        join(follow, posting).await;
        if round < KILLS {
            match round % 2 {
                1 => assert_eq!(node.stop().await, Some(0), "its drain ended well"),
                _ => node.kill().await,
            }
            node.start().await;
        }
    }
    assert!(cut > 0, "no request was under way when the node died");
    let mut history = BTreeMap::new();
    for of in 0..SYMBOLS {
        let symbol = format!("BACK{of}");
        let ticks = node.history("trades", &symbol, "").await;
        let ids: Vec<u64> = ticks.iter().filter_map(|tick| tick["i"].as_u64()).collect();
        assert_eq!(twice(&ids), NONE, "history has each once");
        history.insert(symbol, ids);
    }
    for (number, follower) in followers.iter().enumerate() {
        follower.was_given(number, &history[&follower.symbol]);
    }
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_memory_cut_to_nothing() {
    const REQUESTS: u64 = 6_000;
    const AT_ONCE: usize = 64;
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = started(&folder, &["tape.requests_bytes_max=1048576"]).await;
    let door = Door::of(&node);
    let all = json!({"trades": ["LAST"], "quotes": ["*"], "bars": ["AGAIN"]});
    let mut client = Client::subscribe(&door, Pipe::Wide, "", &all).await;
    // No exchange has numbered them: only their request tells that they are the same.
    let unnumbered = |size: u64, time: i64| {
        let mut unnumbered = trade("AGAIN", 0, time);
        unnumbered.as_object_mut().expect("an object").remove("i");
        unnumbered["s"] = size.into();
        unnumbered
    };
    let mut half = None;
    let posting = async {
        for _ in 0..2 {
            let numbers: Vec<u64> = (1..=REQUESTS).collect();
            for part in numbers.chunks(AT_ONCE) {
                let posts = part.iter().map(|number| {
                    let body = format!("{}\n{}", quote("AGAIN", *number, TIME), unnumbered(1, TIME));
                    let request = node.post("", "application/x-ndjson", body);
                    answer(request.header("Idempotency-Key", format!("request-{number}")))
                });
                for got in join_all(posts).await {
                    assert_eq!((got.status, got.count("accepted")), (200, 2), "{}", got.json);
                }
            }
            half.get_or_insert_with(std::time::Instant::now);
        }
        // What closes the minute, and the last tick of all.
        let later = [unnumbered(1, TIME + 3 * 60_000_000_000)];
        assert_eq!(node.post_ticks(&later, "", Some("later")).await.count("accepted"), 1);
        post(&node, "LAST", LAST..=LAST, 1).await;
    };
    let reading = client
        .until("the last tick and a bar", |client| client.ids.contains(&LAST) && !client.bars.is_empty());
    join(posting, reading).await;
    assert_eq!(client.bars, [REQUESTS], "each share once in the bar");
    assert_eq!(missing(&client.ids, 1..=REQUESTS), NONE, "given twice it may be, but not never");
    assert!(!twice(&client.ids).is_empty(), "nothing was forgotten: this shows nothing");
    let reach = node.metric("tapeline_live_requests_reach_seconds").await.expect("a metric");
    let age = half.expect("both halves").elapsed().as_secs_f64();
    assert!(
        reach < age,
        "the first half of them is {age} s old, and they are known as far back as {reach} s"
    );
    let history = node.history("quotes", "AGAIN", "").await;
    assert_eq!(history.len() as u64, REQUESTS, "history has each once all the same");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bars_that_close_while_a_client_is_away() {
    const SECOND: i64 = 1_000_000_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = started(&folder, &["live.heartbeat_ms=100"]).await;
    let door = Door::of(&node);
    let bars = json!({"bars": ["AWAY"]});
    let mut there = Client::subscribe(&door, Pipe::Wide, "?ext=1", &bars).await;
    let mut away = Client::subscribe(&door, Pipe::Wide, "?ext=1", &bars).await;
    away.until("a cursor", |client| client.cursor.is_some()).await;
    let cursor = away.cursor.take().expect("a cursor");
    drop(away);
    let times = [0, 90 * SECOND, 91 * SECOND];
    let ticks = (1..).zip(times).map(|(id, after)| trade("AWAY", id, TIME + after));
    assert_eq!(node.post_ticks(&ticks.collect::<Vec<_>>(), "", None).await.status, 200);
    there.until("the bar of the first minute", |client| client.bars == [2]).await;
    let query = format!("?ext=1&cursor={cursor}");
    let mut back = Client::subscribe(&door, Pipe::Wide, &query, &bars).await;
    back.until("the same bar", |client| client.bars == [2]).await;
    assert_eq!(back.gaps, 0);
    // Another process has told none of the bars from before it was there, and says so.
    assert_eq!(node.stop().await, Some(0));
    node.start().await;
    let door = Door::of(&node);
    let mut back = Client::subscribe(&door, Pipe::Wide, &query, &bars).await;
    back.until("that bars are not kept", |client| client.gaps == 1).await;
    // Who does not know gaps is not closed for it.
    let query = format!("?cursor={cursor}");
    let both = json!({"bars": ["AWAY"], "trades": ["AWAY"]});
    let mut plain = Client::subscribe(&door, Pipe::Wide, &query, &both).await;
    plain.until("what it missed", |client| client.ids == [1, 2, 3]).await;
    post(&node, "AWAY", 4..=4, 1).await;
    plain.until("what is live", |client| client.ids == [1, 2, 3, 4]).await;
    assert_eq!(node.stop().await, Some(0));
}
