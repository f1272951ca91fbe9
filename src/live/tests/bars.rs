//! Bars that are announced while a client is away, has left the hub, or reads on.

use super::*;
use crate::bars::Period;
use crate::market::{Bar, Event, Origin, Row, Tick};

const MINUTE_MS: u64 = 60_000;

/// The minute bar of a symbol that closes then.
fn bar(symbol: &str, minute: u64) -> Row {
    let now = at(minute * MINUTE_MS).wall;
    let tick = Tick {
        symbol: Symbol::parse(symbol.as_bytes()).unwrap(),
        time: now.plus(-60 * Nanos::SECOND),
        event: Event::MinuteBar(Bar { volume: minute, ..Bar::default() }),
    };
    Row { tick, origin: Origin { received: now, ..Origin::UNKNOWN } }
}

/// The clock is at the mark of a minute, and the bars of these symbols are announced.
fn announce(world: &World, node: usize, minute: u64, symbols: &[&str]) -> usize {
    *world.clock.lock() = minute * MINUTE_MS;
    let rows: Vec<Row> = symbols.iter().map(|symbol| bar(symbol, minute)).collect();
    world.nodes[node].live.hub.announce(&rows)
}

fn wanted(words: &[(Channel, &str)]) -> Interest {
    let mut interest = Interest::default();
    for (channel, symbol) in words {
        interest.insert(*channel, Symbol::parse(symbol.as_bytes()).unwrap());
    }
    interest
}

fn open(live: &Arc<Live>, interest: &Interest, start: Option<Start>) -> Stream {
    let mut stream = live.open(ask()).unwrap();
    stream.subscribe(interest, start, |_| None);
    stream
}

/// All that there is: ticks as kind, symbol and volume or id; gaps by their reason.
async fn told(stream: &mut Stream) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(next) = at_once(stream).await {
        all.extend(words(next));
    }
    all
}

fn words(next: Next) -> Vec<String> {
    let pieces = match next {
        Next::Message(Taken::Data(pieces)) => pieces,
        Next::Gap(gap) => return vec![gap.reason.name().to_owned()],
        other => panic!("{other:?}"),
    };
    let text = payload(&pieces, Codec::Json).concat();
    let ticks: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let tick = |tick: &serde_json::Value| {
        let number = if tick["T"] == "t" { &tick["i"] } else { &tick["v"] };
        format!("{}:{}:{number}", tick["T"].as_str().unwrap(), tick["S"].as_str().unwrap())
    };
    ticks.as_array().unwrap().iter().map(tick).collect()
}

/// The cursor as its token says it.
fn cursor(stream: &Stream) -> Cursor {
    let keyring = Keyring::from_secret([1; 32]);
    Cursor::open(&stream.cursor().unwrap().token(&keyring), &keyring).unwrap()
}

#[tokio::test]
async fn who_is_away_while_bars_close_is_given_them_after_the_ticks_and_before_what_is_live() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let interest = wanted(&[(Channel::Trades, "A"), (Channel::Bars, "A"), (Channel::Bars, "C")]);
    announce(&world, 0, 2, &["A"]);
    *world.clock.lock() += 5_000;
    let mut stream = open(&live, &interest, None);
    assert_eq!(told(&mut stream).await, [""; 0], "it has asked for what comes");
    let before = cursor(&stream);
    drop(stream);
    announce(&world, 0, 3, &["A", "B", "C"]);
    world.write(9, &["A"]).await;
    world.follow(0, 9);
    announce(&world, 0, 4, &["A", "B"]);
    let mut stream = open(&live, &interest, Some(Start::of(&before)));
    let mut all = told(&mut stream).await;
    announce(&world, 0, 5, &["A", "B"]);
    all.extend(told(&mut stream).await);
    assert_eq!(all, ["t:A:101", "b:A:3", "b:C:3", "b:A:4", "b:A:5"]);
    // Nothing is given again to who comes back at once, on this node.
    let mut stream = open(&live, &interest, Some(Start::of(&cursor(&stream))));
    assert_eq!(told(&mut stream).await, [""; 0]);
}

#[tokio::test]
async fn who_has_left_the_hub_while_bars_close_is_given_each_of_them_once() {
    let mut world = World::new(300, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let interest = wanted(&[(Channel::Trades, "A"), (Channel::Bars, "A")]);
    let mut slow = open(&live, &interest, None);
    let mut left = 0;
    for minute in 2..10 {
        world.write(9, &["A"]).await;
        world.follow(0, 9);
        left += live.hub.turn().left;
        left += announce(&world, 0, minute, &["A", "B"]);
    }
    assert_eq!(left, 1);
    let mut all = told(&mut slow).await;
    announce(&world, 0, 10, &["A"]);
    all.extend(told(&mut slow).await);
    let of = |kind: &str| all.iter().filter(|word| word.starts_with(kind)).cloned().collect::<Vec<_>>();
    let expected: Vec<String> = (2..=10).map(|minute| format!("b:A:{minute}")).collect();
    assert_eq!((of("b"), of("t").len()), (expected, 8));
}

#[tokio::test]
async fn a_cursor_does_not_pass_a_bar_that_waits_and_passes_those_that_were_given() {
    let world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let interest = wanted(&[(Channel::Bars, "A")]);
    let mut stream = open(&live, &interest, None);
    for minute in 2..5 {
        announce(&world, 0, minute, &["A"]);
    }
    *world.clock.lock() += 30_000;
    for given in 2..5 {
        // All after this message, whoever it is given to.
        let mut again = open(&live, &interest, Some(Start::of(&cursor(&stream))));
        let rest: Vec<String> = (given..5).map(|minute| format!("b:A:{minute}")).collect();
        assert_eq!(told(&mut again).await, rest);
        let next = stream.next(1).now_or_never().unwrap();
        assert_eq!(words(next), [format!("b:A:{given}")]);
    }
    assert_eq!(cursor(&stream).told, None, "the time at which it was given says it all");
    // The same in the middle of a replay.
    let mut stream = open(&live, &interest, Some(after(Position::default(), MINUTE_MS)));
    assert_eq!(words(stream.next(1).await), ["b:A:2"]);
    let mut again = open(&live, &interest, Some(Start::of(&cursor(&stream))));
    assert_eq!(told(&mut again).await, ["b:A:3", "b:A:4"]);
    let dropped = stream.drop_waiting().unwrap();
    let mut again = open(&live, &interest, Some(Start::of(&dropped)));
    assert_eq!(told(&mut again).await, ["b:A:3", "b:A:4"]);
}

#[tokio::test]
async fn answers_of_any_size_come_to_the_end_of_many_bars_of_one_minute() {
    let world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let symbols: Vec<String> = (1_000..2_000).map(|number| format!("S{number}")).collect();
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    let mut all = Interest::default();
    all.insert_all(Channel::Bars);
    let mut at = cursor(&open(&live, &all, None));
    announce(&world, 0, 3, &symbols);
    let (mut given, mut answers) = (Vec::new(), 0);
    loop {
        // An answer of a long poll, on a connection of its own.
        let mut stream = open(&live, &all, Some(Start::of(&at)));
        let Some(next) = at_once(&mut stream).await else { break };
        given.extend(words(next));
        (at, answers) = (cursor(&stream), answers + 1);
    }
    let expected: Vec<String> = symbols.iter().map(|symbol| format!("b:{symbol}:3")).collect();
    assert_eq!(given, expected, "each once, in order");
    assert!(answers > 5, "{answers}");
}

#[tokio::test]
async fn bars_that_are_not_kept_are_told_once_and_the_rest_is_given() {
    let world = World::keeping(1 << 20, 1 << 20, 600).await;
    let live = Arc::clone(&world.nodes[0].live);
    let (bars, trades) = (wanted(&[(Channel::Bars, "A")]), wanted(&[(Channel::Trades, "A")]));
    let before = cursor(&open(&live, &bars, None));
    for minute in 2..8 {
        announce(&world, 0, minute, &["A"]);
    }
    let mut stream = open(&live, &bars, Some(Start::of(&before)));
    let all = told(&mut stream).await;
    assert_eq!(all.first().map(String::as_str), Some("bars_not_kept"));
    assert!((2..6).contains(&all.len()), "{all:?}");
    assert_eq!(all.last().map(String::as_str), Some("b:A:7"));
    assert_eq!(all.iter().filter(|word| *word == "bars_not_kept").count(), 1);
    let mut stream = open(&live, &trades, Some(Start::of(&before)));
    assert_eq!(told(&mut stream).await, [""; 0], "it has asked for no bars");
}

#[tokio::test]
async fn after_a_restart_the_bars_of_before_are_told_as_a_gap_and_those_since_are_given() {
    let world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let interest = wanted(&[(Channel::Bars, "A")]);
    announce(&world, 0, 2, &["A"]);
    *world.clock.lock() = 2 * MINUTE_MS + 10;
    let before = cursor(&open(&live, &interest, None));
    *world.clock.lock() = 4 * MINUTE_MS;
    live.hub.begin_announcing();
    announce(&world, 0, 5, &["A"]);
    let mut stream = open(&live, &interest, Some(Start::of(&before)));
    let Some(Next::Gap(gap)) = at_once(&mut stream).await else { panic!("a gap") };
    let expected =
        Gap { from: before.told.unwrap(), to: at(4 * MINUTE_MS).wall, reason: GapReason::BarsNotKept };
    assert_eq!(gap, expected);
    assert_eq!(told(&mut stream).await, ["b:A:5"]);
    // A node that has been there all the time tells none.
    announce(&world, 1, 3, &["A"]);
    announce(&world, 1, 5, &["A"]);
    let mut stream = open(&world.nodes[1].live, &interest, Some(Start::of(&before)));
    assert_eq!(told(&mut stream).await, ["b:A:3", "b:A:5"]);
}

#[tokio::test]
async fn since_a_time_and_from_another_node_bars_come_rather_twice_than_never() {
    let world = World::new(1 << 20, 1 << 20).await;
    let interest = wanted(&[(Channel::Bars, "A")]);
    for minute in 2..5 {
        announce(&world, 0, minute, &["A"]);
    }
    let live = &world.nodes[0].live;
    let mut stream = open(live, &interest, Some(Start::Since(at(3 * MINUTE_MS).wall)));
    assert_eq!(told(&mut stream).await, ["b:A:3", "b:A:4"]);
    // The other node closes bars a second later; it has told its client none of the last minute.
    let other = open(&world.nodes[1].live, &interest, None);
    *world.clock.lock() = 4 * MINUTE_MS + 1_000;
    let mut stream = open(live, &interest, Some(Start::of(&cursor(&other))));
    assert_eq!(told(&mut stream).await, ["b:A:4"]);
}

#[tokio::test]
async fn bars_of_a_replay_are_picked_for_one_client_alone() {
    let world = World::new(1 << 20, 1 << 20).await;
    let live = &world.nodes[0].live;
    announce(&world, 0, 2, &["A", "B"]);
    let picker: Picker = Box::new(|row: &Row| row.tick.symbol.as_str() == "B");
    let mut stream = live.open(StreamAsk { personal: Personal::new(None, Some(picker)), ..ask() }).unwrap();
    let both = wanted(&[(Channel::Bars, "A"), (Channel::Bars, "B")]);
    stream.subscribe(&both, Some(after(Position::default(), MINUTE_MS)), |_| None);
    assert_eq!(told(&mut stream).await, ["b:B:2"]);
}

#[tokio::test]
async fn bars_that_a_client_may_come_back_for_are_wanted_for_a_while() {
    let world = World::new(1 << 20, 1 << 20).await;
    let hub = &world.nodes[0].live.hub;
    let is_wanted = |name: &str| {
        let symbol = Symbol::parse(name.as_bytes()).unwrap();
        [Period::Minute, Period::Day].map(|period| hub.is_wanted(symbol, period))
    };
    let interest = wanted(&[(Channel::UpdatedBars, "A"), (Channel::DailyBars, "B"), (Channel::Trades, "C")]);
    let stream = open(&world.nodes[0].live, &interest, None);
    assert_eq!(["A", "B", "C"].map(is_wanted), [[true, false], [false, true], [false, false]]);
    drop(stream);
    *world.clock.lock() += 14 * MINUTE_MS;
    assert_eq!(["A", "B", "C"].map(is_wanted), [[true, false], [false, true], [false, false]]);
    *world.clock.lock() += 2 * MINUTE_MS;
    assert_eq!(["A", "B", "C"].map(is_wanted), [[false, false]; 3]);
}

/// Bars are announced on a thread of their own, a few ahead of a client that comes again and again.
/// One that is announced while a cursor is made may be given twice.
#[tokio::test]
async fn a_bar_that_is_announced_at_any_instant_is_given() {
    const BARS: usize = 5_000;
    const CONNECTIONS_MAX: usize = 50_000;
    let world = World::keeping(1 << 20, 1 << 20, 1 << 24).await;
    let live = Arc::clone(&world.nodes[0].live);
    let interest = wanted(&[(Channel::Bars, "A")]);
    let mut at = cursor(&open(&live, &interest, None));
    let had = Arc::new(AtomicUsize::new(0));
    let (announcing, reached) = (Arc::clone(&live), Arc::clone(&had));
    let announcer = std::thread::spawn(move || {
        for number in 1..=BARS {
            while number > reached.load(Ordering::Relaxed) + 4 {
                std::thread::yield_now();
            }
            announcing.hub.announce(&[bar("A", number as u64)]);
        }
    });
    let mut given = Vec::new();
    for connection in 0..CONNECTIONS_MAX {
        let mut stream = open(&live, &interest, Some(Start::of(&at)));
        for _ in 0..connection % 8 {
            given.extend(at_once(&mut stream).await.map(words).unwrap_or_default());
            given.dedup();
            had.store(given.len(), Ordering::Relaxed);
        }
        at = cursor(&stream);
        if given.len() >= BARS {
            break;
        }
    }
    // Where one was never given the others are let go on, to see which.
    had.store(BARS, Ordering::Relaxed);
    announcer.join().unwrap();
    let expected: Vec<String> = (1..=BARS).map(|number| format!("b:A:{number}")).collect();
    assert_eq!(given, expected);
}
