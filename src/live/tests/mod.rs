//! Clients of two nodes over the same tapes: dropped at random, slow for a while, resumed on either
//! node with their last cursor. What each has been given is everything that it asked for.

mod bars;
mod lost;
mod opened;

pub(crate) use opened::{idle_node, open_attached};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::market::{RequestKey, Symbol};
use crate::seal::Keyring;
use crate::store::memory::MemoryStore;
use crate::store::{Reach, Store as _, TapeId};
use crate::tape::fixtures::{at, frame, region};
use crate::tape::tasks::{Sealed, ViewWorld, boot_view};
use crate::tape::{
    BodyHash, Follower, FollowerConfig, Frame, Position, RequestConfig, RequestMemory, SHARDS, Tail,
    TailConfig, View,
};

const SYMBOLS: [&str; 4] = ["A", "B", "C", "D"];

/// A node's view and hub.
struct Node {
    live: Arc<Live>,
    /// The tapes' frames that it has not followed yet.
    lag: BTreeMap<u64, u64>,
}

struct World {
    store: Arc<MemoryStore>,
    sealed: Sealed,
    clock: Arc<Mutex<u64>>,
    nodes: Vec<Node>,
    frames: BTreeMap<(u64, u64), Arc<Frame>>,
}

impl World {
    async fn new(outbox_bytes_max: usize, tail_bytes_max: usize) -> Self {
        Self::keeping(outbox_bytes_max, tail_bytes_max, 1 << 20).await
    }

    /// One whose hubs keep so many bytes of what they announced.
    async fn keeping(outbox_bytes_max: usize, tail_bytes_max: usize, announced_bytes_max: usize) -> Self {
        let clock = Arc::new(Mutex::new(1_000));
        let (store, sealed) =
            (Arc::new(MemoryStore::default()), Sealed::new(Arc::new(Keyring::from_secret([1; 32]))));
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let read = Arc::clone(&clock);
            let now: NowFn = Arc::new(move || at(*read.lock()));
            let world = ViewWorld {
                store: Arc::clone(&store) as _,
                records: Arc::clone(&store) as _,
                sealed: sealed.clone(),
                region: region("a"),
                regions: vec![region("a")],
                now: Arc::clone(&now),
            };
            let config = FollowerConfig::new(region("a"), vec![region("a")]);
            let tail = Tail::new(TailConfig { bytes_max: tail_bytes_max, ..TailConfig::default() });
            let requests = RequestMemory::new(RequestConfig::default(), Mono(0));
            let view = View::new(Follower::new(config, Box::new(|| 1), at(0)), tail, requests, SHARDS);
            let (view, _) = boot_view(view, &world, Vec::new()).await.unwrap();
            let scans = Scans::new(Arc::clone(&store) as _, sealed.clone(), 2, 1 << 20, Box::new(|| {}));
            let hub = HubConfig {
                outbox_bytes_max,
                backlog_bytes_max: 1 << 20,
                announced_bytes_max,
                announced_ms: 900_000,
            };
            let hub = Hub::new(hub, Position::default(), Box::new(|_| {}), Arc::clone(&now));
            let config = LiveConfig {
                resume_ms: 900_000,
                replay_memory_bytes_max: 1 << 20,
                streams_per_key_max: 0,
                is_taped: true,
            };
            let tapes = Arc::new(Tapes { view: Arc::clone(&view), scans });
            let live = Arc::new(Live::new(hub, tapes, config, now));
            let to_hub = Arc::clone(&live);
            view.listen(Box::new(move |view, passed, delivered| {
                to_hub.hub().enqueue(passed, delivered, view.follower().position());
            }));
            nodes.push(Node { live, lag: BTreeMap::new() });
        }
        Self { store, sealed, clock, nodes, frames: BTreeMap::new() }
    }

    /// A node writes the next frame of a tape; nobody has followed it yet.
    async fn write(&mut self, tape: u64, symbols: &[&str]) {
        let seq = self.frames.range((tape, 0)..=(tape, u64::MAX)).count() as u64 + 1;
        let mut made = (*frame(tape, seq, seq - 1, symbols)).clone();
        made.received = at(*self.clock.lock()).wall;
        // Each tape has requests of its own.
        let request = RequestKey([u8::try_from(tape).unwrap(); 16]);
        for piece in &mut made.pieces {
            (piece.request, piece.body) = (request, BodyHash([1; 16]));
        }
        for row in &mut made.rows {
            row.origin.request = request;
            row.origin.received = made.received;
        }
        self.store.append(self.sealed.seal_frame(&made), Reach::Region).await.unwrap();
        self.frames.insert((tape, seq), Arc::new(made));
    }

    /// A node follows a tape's next frame, if there is one.
    fn follow(&mut self, node: usize, tape: u64) {
        let node = &mut self.nodes[node];
        let next = node.lag.entry(tape).or_insert(1);
        if let Some(frame) = self.frames.get(&(tape, *next)) {
            node.live.tape.view.change(|view, now| view.accept(Arc::clone(frame), now));
            *next += 1;
        }
    }
}

fn interest(symbols: &[&str]) -> Interest {
    let mut interest = Interest::default();
    for symbol in symbols {
        interest.insert(Channel::Trades, Symbol::parse(symbol.as_bytes()).unwrap());
    }
    interest
}

fn ask() -> StreamAsk<'static> {
    let form = Form { codec: Codec::Json, origins: false };
    StreamAsk { form, key_id: "key", session: None, personal: Personal::default(), attached: None }
}

fn position(stream: &Stream) -> Option<Position> {
    stream.cursor().map(|cursor| cursor.position)
}

/// The start of a cursor that was given then.
fn after(position: Position, ms: u64) -> Start {
    Start::of(&Cursor { position, at: at(ms).wall, told: None, ticket: None })
}

/// A client: what it wants, has been given, and its cursor.
struct Client {
    symbols: Vec<&'static str>,
    stream: Option<Stream>,
    /// Everything after this is for it.
    from: Option<Position>,
    cursor: Option<Position>,
    given: Vec<(String, u64)>,
    resumes: usize,
    /// In `given`, where its connections begin.
    connections: Vec<usize>,
}

impl Client {
    fn connect(&mut self, live: &Arc<Live>, now: u64) {
        let mut stream = live.open(ask()).unwrap();
        self.connections.push(self.given.len());
        match self.cursor.clone() {
            Some(cursor) => {
                self.resumes += 1;
                let start = after(cursor, now);
                stream.subscribe(&interest(&self.symbols), Some(start), |_| None);
            }
            None => {
                stream.subscribe(&interest(&self.symbols), None, |_| None);
                self.from = position(&stream);
                self.cursor = self.from.clone();
            }
        }
        self.stream = Some(stream);
    }

    /// Takes what there is, at most so many messages, and keeps a cursor now and then.
    async fn take(&mut self, messages: usize, keeps_cursor: bool) {
        let Some(stream) = &mut self.stream else { return };
        for _ in 0..messages {
            // Reads of tapes are tasks: they are let run.
            let mut next = None;
            for _ in 0..20 {
                next = stream.next(256).now_or_never();
                if next.is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            match next {
                Some(Next::Message(Taken::Data(pieces))) => {
                    let text = payload(&pieces, Codec::Json).concat();
                    let ticks: serde_json::Value = serde_json::from_slice(&text).unwrap();
                    let tick = |tick: &serde_json::Value| {
                        (tick["S"].as_str().unwrap().to_owned(), tick["i"].as_u64().unwrap())
                    };
                    self.given.extend(ticks.as_array().unwrap().iter().map(tick));
                }
                Some(Next::Message(Taken::Control(_))) => {}
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        if keeps_cursor && let Some(cursor) = position(stream) {
            self.cursor = Some(cursor);
        }
    }
}

/// What comes next, where something does without waiting. Reads of tapes are tasks, and a replay
/// gives others their turn: they are let run.
async fn at_once(stream: &mut Stream) -> Option<Next> {
    for _ in 0..50 {
        if let Some(next) = stream.next(1 << 20).now_or_never() {
            return Some(next);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn run(seed: u64) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let outbox = [200, 2_000, 1 << 20][random.random_range(0..3)];
    let tail = [2_000, 1 << 20][random.random_range(0..2)];
    let mut world = World::new(outbox, tail).await;
    let mut clients: Vec<Client> = (0..6)
        .map(|number| Client {
            symbols: SYMBOLS[..1 + number % SYMBOLS.len()].to_vec(),
            stream: None,
            from: None,
            cursor: None,
            given: Vec::new(),
            resumes: 0,
            connections: Vec::new(),
        })
        .collect();
    for _ in 0..400 {
        *world.clock.lock() += random.random_range(0..200);
        let tape = random.random_range(9..11);
        match random.random_range(0..10) {
            0..3 => {
                let count = random.random_range(0..=SYMBOLS.len());
                world.write(tape, &SYMBOLS[..count]).await;
            }
            3..7 => world.follow(random.random_range(0..2), tape),
            _ => {
                let node = random.random_range(0..2);
                world.nodes[node].live.hub.turn();
            }
        }
        let now = *world.clock.lock();
        for client in &mut clients {
            match random.random_range(0..12) {
                0 => client.stream = None,
                1..4 if client.stream.is_none() => {
                    client.connect(&world.nodes[random.random_range(0..2)].live, now);
                }
                4..8 => client.take(random.random_range(1..4), random.random_bool(0.5)).await,
                _ => {}
            }
        }
    }
    // In the end all nodes have followed everything, and the clients take all of it.
    for node in 0..2 {
        for _ in 0..world.frames.len() {
            world.follow(node, 9);
            world.follow(node, 10);
        }
        world.nodes[node].live.hub.turn();
    }
    let now = *world.clock.lock();
    for client in &mut clients {
        if client.stream.is_none() {
            client.connect(&world.nodes[0].live, now);
        }
        for _ in 0..world.frames.len() + 50 {
            client.take(4, false).await;
            *world.clock.lock() += 500;
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        check(client, &world, seed);
    }
    (clients.iter().map(|client| client.given.len()).sum(), clients.iter().map(|client| client.resumes).sum())
}

fn check(client: &Client, world: &World, seed: u64) {
    let from = client.from.as_ref().unwrap();
    let own: BTreeSet<&str> = client.symbols.iter().copied().collect();
    let mut wanted = BTreeSet::new();
    for ((tape, seq), frame) in &world.frames {
        let covered = from.tapes.get(&TapeId(*tape)).is_some_and(|progress| progress.covers(*seq));
        for row in frame.rows.iter().filter(|row| !covered && own.contains(row.tick.symbol.as_str())) {
            let crate::market::Event::Trade(trade) = &row.tick.event else { panic!("trades alone") };
            wanted.insert((row.tick.symbol.as_str().to_owned(), trade.id.unwrap(), *tape));
        }
    }
    // Both tapes number their ticks alike: an id that is on both is given twice.
    let mut counts = BTreeMap::new();
    for (symbol, id, _) in &wanted {
        *counts.entry((symbol.clone(), *id)).or_insert(0) += 1;
    }
    let mut given = BTreeMap::new();
    for tick in &client.given {
        *given.entry(tick.clone()).or_insert(0) += 1;
    }
    for (tick, count) in &counts {
        let got = given.remove(tick).unwrap_or(0);
        assert!(got >= *count, "seed {seed}: {tick:?} was given {got} times of {count}");
        assert!(got <= count * (1 + client.resumes), "seed {seed}: {tick:?} was given {got} times");
    }
    // On one connection nothing is given twice, however often it fell behind there.
    let ends = client.connections.iter().skip(1).copied().chain([client.given.len()]);
    for (begin, end) in client.connections.iter().zip(ends) {
        let mut here = BTreeMap::new();
        for tick in &client.given[*begin..end] {
            let times = here.entry(tick).or_insert(0);
            *times += 1;
            let most = counts.get(tick).copied().unwrap_or(0);
            assert!(*times <= most, "seed {seed}: {tick:?} was given {times} times on one connection");
        }
    }
    // What came before its first subscription is given to nobody; a cursor that does not move may.
    assert!(given.is_empty(), "seed {seed}: not asked for: {given:?}");
}

#[tokio::test(start_paused = true)]
async fn dropped_and_slow_clients_are_given_everything() {
    let (mut ticks, mut resumes) = (0, 0);
    for seed in 0..60 {
        let (given, resumed) = run(seed).await;
        ticks += given;
        resumes += resumed;
    }
    assert!(ticks > 20_000 && resumes > 500, "{ticks} ticks, {resumes} resumes");
}

#[tokio::test]
async fn an_acknowledgement_comes_before_the_first_tick_and_after_those_before() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let mut stream = live.open(ask()).unwrap();
    let ack = |text: &'static str| move |_: &Interest| Some(bytes::Bytes::from_static(text.as_bytes()));
    stream.subscribe(&interest(&["A"]), None, ack("one"));
    world.write(9, &["A", "B"]).await;
    world.follow(0, 9);
    live.hub.turn();
    stream.subscribe(&interest(&["B"]), None, ack("two"));
    world.write(9, &["A", "B"]).await;
    world.follow(0, 9);
    live.hub.turn();
    stream.unsubscribe(&interest(&["A", "B"]), ack("three"));
    world.write(9, &["A", "B"]).await;
    world.follow(0, 9);
    live.hub.turn();
    let mut told = Vec::new();
    while let Some(Next::Message(message)) = at_once(&mut stream).await {
        told.push(match message {
            Taken::Control(payload) => String::from_utf8(payload.to_vec()).unwrap(),
            Taken::Data(pieces) => pieces.iter().map(|piece| piece.ticks).sum::<u32>().to_string(),
        });
    }
    assert_eq!(told, ["one", "1", "two", "2", "three"]);
}

#[tokio::test]
async fn who_does_not_keep_up_costs_the_others_nothing_and_is_given_the_rest() {
    let mut world = World::new(300, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let (mut slow, mut fast) = (live.open(ask()).unwrap(), live.open(ask()).unwrap());
    slow.subscribe(&interest(&["A"]), None, |_| None);
    fast.subscribe(&interest(&["A"]), None, |_| None);
    let mut of_fast = 0;
    let mut left = 0;
    for _ in 0..50 {
        world.write(9, &["A"]).await;
        world.follow(0, 9);
        left += live.hub.turn().left;
        while let Some(Next::Message(Taken::Data(pieces))) = at_once(&mut fast).await {
            of_fast += pieces.len();
        }
    }
    assert_eq!((of_fast, left), (50, 1), "the slow one has left the hub, once");
    let mut of_slow = 0;
    while let Some(Next::Message(Taken::Data(pieces))) = at_once(&mut slow).await {
        of_slow += pieces.iter().map(|piece| piece.ticks).sum::<u32>();
    }
    assert_eq!(of_slow, 50);
    assert_eq!(position(&slow), position(&fast));
}

#[tokio::test]
async fn a_stream_that_is_told_to_move_ends_with_a_cursor_that_covers_what_it_was_given() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let mut stream = live.open(ask()).unwrap();
    stream.subscribe(&interest(&["A"]), None, |_| None);
    for _ in 0..3 {
        world.write(9, &["A"]).await;
        world.follow(0, 9);
    }
    live.hub.turn();
    live.hub.stop();
    live.hub.end_some(1, || 7);
    assert!(matches!(live.open(ask()), Err(NoStream::Stopping)));
    world.write(9, &["A"]).await;
    world.follow(0, 9);
    live.hub.turn();
    let mut ticks = 0;
    let end = loop {
        match stream.next(1 << 20).now_or_never().unwrap() {
            Next::Message(Taken::Data(pieces)) => ticks += pieces.len(),
            Next::End(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, End::Move { retry_ms: 7 });
    let covered = position(&stream).unwrap().tapes[&TapeId(9)].next - 1;
    assert_eq!(covered, ticks as u64);
}

#[tokio::test]
async fn too_far_back_is_a_gap_and_then_the_stream_goes_on() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    *world.clock.lock() = 2_000_000;
    let live = Arc::clone(&world.nodes[0].live);
    let mut stream = live.open(ask()).unwrap();
    let start = after(Position::default(), 1_000_000);
    stream.subscribe(&interest(&["A"]), Some(start), |_| None);
    // Who lacks ticks and who named an early time are told apart, also on one connection.
    stream.subscribe(&interest(&["B"]), Some(Start::Since(at(900_000).wall)), |_| None);
    let Some(Next::Gap(gap)) = stream.next(1).now_or_never() else { panic!("a gap") };
    assert_eq!((gap.from, gap.to, gap.reason), (at(1_000_000).wall, at(1_100_000).wall, GapReason::TooOld));
    let Next::Gap(gap) = stream.next(1).await else { panic!("another gap") };
    assert_eq!((gap.from, gap.to, gap.reason), (at(900_000).wall, at(1_100_000).wall, GapReason::TooEarly));
    world.write(9, &["A"]).await;
    world.follow(0, 9);
    live.hub.turn();
    let Next::Message(Taken::Data(pieces)) = stream.next(1).await else { panic!("ticks") };
    assert_eq!(pieces.len(), 1);
}

#[tokio::test]
async fn since_a_time_is_found_on_the_tapes_and_in_the_tail() {
    for tail in [1, 1 << 20] {
        let mut world = World::new(1 << 20, tail).await;
        for step in 0..20 {
            *world.clock.lock() = 10_000 + step * 100;
            world.write(9, &["A"]).await;
            world.follow(0, 9);
        }
        world.nodes[0].live.hub.turn();
        let mut client = Client {
            symbols: vec!["A"],
            stream: None,
            from: None,
            cursor: None,
            given: Vec::new(),
            resumes: 0,
            connections: Vec::new(),
        };
        let mut stream = world.nodes[0].live.open(ask()).unwrap();
        stream.subscribe(&interest(&["A"]), Some(Start::Since(at(11_450).wall)), |_| None);
        assert_eq!(stream.cursor(), None, "not known yet");
        client.stream = Some(stream);
        client.take(100, true).await;
        assert_eq!(client.given.len(), 5, "of 11,500 to 11,900 ms; tail of {tail} bytes");
    }
}

/// A frame of quotes, whose bids are these.
fn quotes(seq: u64, bids: &[(&str, i64)]) -> Arc<Frame> {
    let symbols: Vec<&str> = bids.iter().map(|(symbol, _)| *symbol).collect();
    let mut made = (*frame(9, seq, seq - 1, &symbols)).clone();
    for (row, (_, bid)) in made.rows.iter_mut().zip(bids) {
        let bid_price = crate::market::Price(*bid * 1_000_000_000);
        row.tick.event =
            crate::market::Event::Quote(crate::market::Quote { bid_price, ..Default::default() });
    }
    Arc::new(made)
}

async fn bids(stream: &mut Stream) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    while let Some(Next::Message(Taken::Data(pieces))) = at_once(stream).await {
        let text = payload(&pieces, Codec::Json).concat();
        let ticks: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let bid =
            |tick: &serde_json::Value| (tick["S"].as_str().unwrap().to_owned(), tick["bp"].as_f64().unwrap());
        all.extend(ticks.as_array().unwrap().iter().map(bid));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn of_quotes_that_are_conflated_the_latest_goes_out_and_no_cursor_passes_one_that_waits() {
    let world = World::new(1 << 20, 1 << 20).await;
    let live = &world.nodes[0].live;
    let personal = Personal::new(Some(Duration::from_millis(100)), None);
    let mut stream = live.open(StreamAsk { personal, ..ask() }).unwrap();
    let mut wanted = Interest::default();
    wanted.insert_all(Channel::Quotes);
    stream.subscribe(&wanted, None, |_| None);
    let accept = |frame: Arc<Frame>| {
        live.tape.view.change(|view, now| view.accept(frame, now));
        live.hub.turn();
    };
    accept(quotes(1, &[("A", 1), ("B", 1)]));
    accept(quotes(2, &[("A", 2)]));
    accept(quotes(3, &[("A", 3), ("C", 1)]));
    assert_eq!(bids(&mut stream).await, []);
    let next = |stream: &Stream| position(stream).unwrap().tapes.get(&TapeId(9)).map(|own| own.next);
    assert_eq!(next(&stream), Some(1), "the quotes of frame 1 wait");
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(
        bids(&mut stream).await,
        [("A".to_owned(), 3.0), ("B".to_owned(), 1.0), ("C".to_owned(), 1.0)]
    );
    assert_eq!(next(&stream), Some(4));
    accept(quotes(4, &[("A", 4)]));
    assert_eq!((bids(&mut stream).await, next(&stream)), (vec![], Some(4)));
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(bids(&mut stream).await, [("A".to_owned(), 4.0)]);
    // What is no longer asked for does not come late.
    accept(quotes(5, &[("A", 5)]));
    stream.unsubscribe(&wanted, |_| None);
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!((bids(&mut stream).await, next(&stream)), (vec![], Some(6)));
}

#[tokio::test]
async fn ticks_are_picked_for_one_client_alone_live_and_in_its_replay() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let odd = || -> Personal {
        Personal::new(None, Some(Box::new(|row: &crate::market::Row| row.origin.index % 2 == 1)))
    };
    let mut picky = live.open(StreamAsk { personal: odd(), ..ask() }).unwrap();
    let mut plain = live.open(ask()).unwrap();
    picky.subscribe(&interest(&SYMBOLS), None, |_| None);
    plain.subscribe(&interest(&SYMBOLS), None, |_| None);
    world.write(9, &SYMBOLS).await;
    world.follow(0, 9);
    live.hub.turn();
    let mut late = live.open(StreamAsk { personal: odd(), ..ask() }).unwrap();
    late.subscribe(&interest(&SYMBOLS), Some(after(Position::default(), 1_000)), |_| None);
    let mut counts = Vec::new();
    for stream in [&mut picky, &mut plain, &mut late] {
        let mut ticks = 0;
        while let Some(Next::Message(Taken::Data(pieces))) = at_once(stream).await {
            ticks += pieces.iter().map(|piece| piece.ticks).sum::<u32>();
        }
        counts.push(ticks);
    }
    assert_eq!(counts, [2, 4, 2]);
}

#[tokio::test]
async fn a_hub_that_is_too_far_behind_lets_its_clients_read_on_from_the_tapes() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let mut stream = live.open(ask()).unwrap();
    stream.subscribe(&interest(&["A"]), None, |_| None);
    for _ in 0..2_000 {
        world.write(9, &["A", "B", "C", "D"]).await;
        world.follow(0, 9);
    }
    let turned = live.hub.turn();
    assert!(turned.overrun && turned.left == 1, "{turned:?}");
    let mut ticks = 0;
    for _ in 0..10_000 {
        match stream.next(1 << 20).now_or_never() {
            Some(Next::Message(Taken::Data(pieces))) => {
                ticks += pieces.iter().map(|piece| piece.ticks).sum::<u32>();
            }
            Some(other) => panic!("{other:?}"),
            None => tokio::task::yield_now().await,
        }
        if ticks == 2_000 {
            break;
        }
    }
    assert_eq!(ticks, 2_000);
}
