//! Small cases, one line an event.

use super::world::{LIMITS, World, model, time};
use crate::bars::Period;
use crate::history::testing::{cancel, correction, of, quote_at, symbol, trade_at};
use crate::live::bars::{BarLimits, DAYS_MAX};
use crate::market::{Bar, Event, Nanos, Row, Tick};

/// A time of the case: minutes and seconds, after 14:00Z on a Friday.
fn at(text: &str) -> Nanos {
    time(&format!("2024-01-05T14:{text}Z"))
}

fn bar(start: Nanos, event: fn(Bar) -> Event) -> Row {
    let bar = Bar { volume: 7, ..Bar::default() };
    Row { tick: Tick { symbol: symbol(), time: start, event: event(bar) }, ..trade_at(start, 0, "1", 1) }
}

/// `wall kind event-time…`: `t id price`, `q` a quote, `x` and `c` cancel and correct `id price`
/// (to 20, number 99), `B` and `D` ingested bars.
fn row(words: &[&str]) -> Row {
    let event = at(words[1]);
    let number = || words[2].parse().unwrap();
    match words[0] {
        "t" => trade_at(event, number(), words[3], 100),
        "q" => Row { tick: Tick { time: event, ..quote_at(0, 1, 1, 1).tick }, ..quote_at(0, 1, 1, 1) },
        "x" => cancel(event, number(), words[3], false),
        "c" => correction(event, number(), words[3], 99, "20"),
        "B" => bar(event, Event::MinuteBar),
        "D" => bar(Period::Day.start(event), Event::DayBar),
        _ => unreachable!(),
    }
}

/// Delivers a script to a machine that was made at `boot`; answers what was told until the end.
fn told(boot: Nanos, script: &str) -> World {
    let mut world = World::new(LIMITS, boot);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let wall = if words[0].contains('T') { time(words[0]) } else { at(words[0]) };
        world.go_to(wall);
        world.deliver(&row(&words[1..]));
    }
    world.settle();
    world
}

/// What a case is, what comes, and what is told.
const TODAY: &[(&str, &str, &str)] = &[
    (
        "one minute and the next: at the mark, by the clock",
        "30:10 t 30:10 1 10
             30:20 t 30:20 2 11
             31:05 t 31:04.9 3 12",
        "31:00.05 b 30:00 11 200|31:00.05 d 11 200|32:00.05 b 31:00 12 100|32:00.05 d 12 300",
    ),
    (
        "late trades: 30 s after the mark, and 30 s later again",
        "30:10 t 30:10 1 10
             31:01 t 30:59 2 11
             31:29 t 30:58 3 12
             31:40 t 30:57 4 13",
        "31:00.05 b 30:00 10 100|31:00.05 d 10 100|31:30.05 u 30:00 11 300|31:30.05 d 11 300|\
             32:00.05 u 30:00 11 400|32:00.05 d 11 400",
    ),
    (
        "a copy changes nothing",
        "30:10 t 30:10 1 10
             30:11 t 30:10 1 10
             31:10 t 30:10 1 10",
        "31:00.05 b 30:00 10 100|31:00.05 d 10 100",
    ),
    (
        "a tick that is ahead closes nothing",
        "30:10 t 30:10 1 10
             30:57 t 31:01.5 2 11
             30:57.5 t 31:02.4 3 12
             30:58 t 30:58 4 13",
        "31:00.05 b 30:00 13 200|31:00.05 d 12 400|32:00.05 b 31:00 12 200",
    ),
    (
        "a minute that nobody traded in until it was over is told by the watermark",
        "31:01 t 30:59 1 10
             31:01.5 q 31:01.4
             31:02.5 q 31:02.4
             31:03 q 31:02.9",
        "31:03 b 30:00 10 100|31:03 d 10 100",
    ),
    (
        "a trade of a minute that was let go: history's, as an update",
        "30:10 t 30:10 1 10
             35:00 q 35:00
             35:01 q 35:01
             36:00 t 30:20 2 11",
        "31:00.05 b 30:00 10 100|31:00.05 d 10 100|36:30 u 30:00 11 200|36:30 d 11 200",
    ),
    (
        "a cancel within the minute, and one of a minute that was let go",
        "30:10 t 30:10 1 10
             30:20 t 30:20 2 11
             30:30 x 30:30 2 11
             40:00 t 40:00 3 12
             40:01 t 40:01 4 13
             45:00 x 45:00 3 12",
        "31:00.05 b 30:00 10 100|31:00.05 d 10 100|41:00.05 b 40:00 13 200|41:00.05 d 13 300|\
             45:00 d 13 200|45:30 u 40:00 13 100",
    ),
    (
        "a correction that comes before its trade",
        "30:05 t 30:05 1 9
             30:20 c 30:20 2 11
             30:25 t 30:10 2 11",
        "31:00.05 b 30:00 20 200|31:00.05 d 20 200",
    ),
    (
        "a copy that says something else: history knows which counts",
        "30:10 t 30:10 1 11
             30:20 t 30:10 1 10",
        "31:00.05 b 30:00 10 100|31:00.05 d 10 100",
    ),
    (
        "an ingested minute bar stands for the folded one, also where it comes after it",
        "30:10 t 30:10 1 10
             30:59 B 30:00
             31:10 t 31:10 2 11
             32:05 B 31:00
             32:06 t 31:20 3 12",
        "31:00.05 d 10 100|32:00.05 b 31:00 11 100|32:00.05 d 11 200|32:30.05 d 12 300",
    ),
    (
        "an ingested daily bar ends the folded ones",
        "30:10 t 30:10 1 10
             31:10 D 31:10
             31:20 t 31:20 2 11",
        "31:00.05 b 30:00 10 100|31:00.05 d 10 100|32:00.05 b 31:00 11 100",
    ),
];

#[test]
fn bars_of_today_by_the_clock() {
    // Made long before, so that nothing is asked of history.
    let boot = time("2024-01-05T04:00:00Z");
    for (name, script, expected) in TODAY {
        let world = told(boot, script);
        let expected: Vec<&str> = expected.split('|').collect();
        assert_eq!(world.lines(), expected, "{name}");
        let asks = world.asks.len();
        let folded = ["cancel", "correction", "copy that", "let go"].iter().all(|word| !name.contains(word));
        assert!(!folded || asks == 0, "{name}: {:?}", world.asks);
    }
}

#[test]
fn after_a_start_the_running_minute_and_the_day_are_asked_once() {
    let mut world = World::new(LIMITS, at("00:00"));
    world.wall = at("30:15");
    world.history = vec![trade_at(at("20:00"), 1, "5", 100), trade_at(at("30:01"), 2, "9", 100)];
    world.restart(LIMITS);
    for (wall, id) in [("30:20", 3), ("31:10", 4), ("32:10", 5), ("33:10", 6)] {
        world.go_to(at(wall));
        world.deliver(&trade_at(at(wall), id, "10", 100));
    }
    world.settle();
    let expected = [
        "31:00.05 b 30:00 10 200",
        "31:00.05 d 10 300",
        "32:00.05 b 31:00 10 100",
        "32:00.05 d 10 400",
        "33:00.05 b 32:00 10 100",
        "33:00.05 d 10 500",
        "34:00.05 b 33:00 10 100",
        "34:00.05 d 10 600",
    ];
    assert_eq!(world.lines(), expected);
    let asked: Vec<Period> = world.asks.iter().map(|query| query.period).collect();
    assert_eq!(asked, [Period::Minute, Period::Day]);
}

#[test]
fn a_failed_read_is_asked_again_thirty_seconds_later() {
    let mut world = World::new(LIMITS, at("30:15"));
    world.failing = [true, true].into();
    world.deliver(&trade_at(at("30:14"), 1, "9", 100));
    world.settle();
    assert_eq!(world.lines(), ["31:30.05 b 30:00 9 100", "31:30.05 d 9 100"]);
    assert_eq!(world.asks.len(), 4);
}

#[test]
fn what_nobody_wants_is_not_asked() {
    let mut world = World::new(LIMITS, at("30:15"));
    world.wanted = |symbol, period| symbol.as_str() == "MSFT" && period == Period::Minute;
    for name in ["AAPL", "MSFT"] {
        world.deliver(&of(name, trade_at(at("30:16"), 1, "9", 100)));
    }
    world.settle();
    assert_eq!(world.lines(), ["31:00.05 b 30:00 9 100"]);
    assert_eq!(world.told[0].1.symbol.as_str(), "MSFT");
    let mut whole = World::new(LIMITS, at("30:15"));
    whole.wanted = |_, _| false;
    whole.go_to(at("31:16"));
    whole.deliver(&trade_at(at("31:16"), 2, "9", 100));
    whole.settle();
    assert_eq!(whole.lines(), ["32:00.05 b 31:00 9 100"], "a fold that is whole is told all the same");
}

/// A day of 2018, 100 times as fast, six years later.
fn replayed(symbols: u64, limits: BarLimits, speed: i64) -> (World, Vec<Row>) {
    let (first, wall) = (time("2018-01-03T14:30:00Z"), time("2024-01-05T14:00:00Z"));
    let mut rows: Vec<Row> = Vec::new();
    for minute in 0..12_i64 {
        for name in 0..symbols {
            for trade in 0..4_i64 {
                let offset = (minute * 60 + trade * 14) * Nanos::SECOND + i64::try_from(name).unwrap();
                let id = u64::try_from(minute * 4 + trade).unwrap();
                let price = format!("{}.{}", 10 + name, 1 + (minute + trade) % 9);
                rows.push(of(&format!("S{name}"), trade_at(first.plus(offset), id, &price, 100)));
            }
        }
    }
    rows.sort_by_key(|row| row.tick.time);
    let mut world = World::new(limits, wall);
    for row in &rows {
        world.go_to(wall.plus((row.tick.time.0 - first.0) / speed));
        world.deliver(row);
        world.poll();
    }
    (world, rows)
}

#[test]
fn a_recorded_day_at_100_times_closes_its_minutes_by_its_own_time() {
    let (mut world, rows) = replayed(50, LIMITS, 100);
    let minutes = world.told.iter().filter(|(_, tick)| matches!(tick.event, Event::MinuteBar(_))).count();
    assert_eq!(minutes, 11 * 50, "all but the minute that is not over");
    world.settle();
    world.check(&rows);
    let updates = world.lines().iter().filter(|line| line.contains(" u ")).count();
    assert_eq!(updates, 0);
    let third = time("2018-01-03T14:32:00Z");
    let minutes = world.asks.iter().filter(|query| query.period == Period::Minute);
    assert!(minutes.clone().all(|query| query.start < third) && minutes.count() == 100);
    let days = world.asks.iter().filter(|query| query.period == Period::Day);
    let end = time("2018-01-04T05:00:00Z");
    assert!(days.clone().all(|query| query.until <= third || query.until == end));
    assert_eq!(days.count(), 100);
    let silence = world.told.last().unwrap().0.0 - world.told[0].0.0;
    assert!(silence < 20 * Nanos::SECOND, "the last minute closed by silence");
}

#[test]
fn one_wrong_stamp_closes_nothing() {
    let script = "
        2024-06-01T10:00:00Z t 30:10 1 10
        2024-06-01T10:00:01Z t 59:00 2 11
        2024-06-01T10:00:02Z t 30:20 3 12
        2024-06-01T10:00:03Z t 30:59 4 13
        2024-06-01T10:00:04Z t 31:10 5 14
        2024-06-01T10:00:05Z t 31:50 6 15";
    let world = told(at("00:00"), script);
    let minutes: Vec<String> = world.lines().into_iter().filter(|line| line.contains(" b ")).collect();
    assert_eq!(
        minutes,
        ["00:04 b 30:00 13 300", "00:15 b 31:00 15 200", "00:15 b 59:00 11 100"],
        "{:?}",
        world.lines()
    );
}

#[test]
fn memory_is_bounded_and_bars_are_right_all_the_same() {
    let (mut world, rows) = replayed(20, BarLimits { bytes_max: 40_000, ..LIMITS }, 100);
    world.settle();
    world.check(&rows);
    assert!(world.counts().shed > 0 && world.counts().refused == 0, "{:?}", world.counts());
    assert!(world.bytes <= 40_000, "{}", world.bytes);
}

#[test]
fn without_any_room_new_symbols_are_refused_and_counted() {
    let (world, _) = replayed(200, BarLimits { bytes_max: 40_000, ..LIMITS }, 100);
    assert!(world.counts().refused > 0 && world.bytes <= 40_000, "{:?}", world.counts());
}

#[test]
fn all_room_comes_back() {
    let (mut world, _) = replayed(20, LIMITS, 1_000);
    assert!(world.counts().bytes > 0);
    world.settle();
    world.go_to(world.wall.plus(2 * Nanos::HOUR));
    assert_eq!(world.counts().bytes, 0);
    assert_eq!(world.bars.room.folds, 0);
    assert!(world.bars.days.is_empty());
}

#[test]
fn more_days_than_are_held_are_told_as_they_stand() {
    let mut world = World::new(LIMITS, at("00:00"));
    world.wall = time("2024-06-03T00:00:00Z");
    let mut rows: Vec<Row> = Vec::new();
    for day in 0..2 * DAYS_MAX {
        let time = time("2024-01-05T15:00:00Z").plus(i64::try_from(day).unwrap() * 24 * Nanos::HOUR);
        rows.push(trade_at(time, 1, "10", 100));
    }
    for row in &rows {
        world.deliver(row);
        world.poll();
    }
    assert!(world.bars.days.len() <= DAYS_MAX);
    world.settle();
    let last = world.last();
    let held = &rows[DAYS_MAX..];
    for row in held {
        let start = Period::Day.start(row.tick.time);
        let bar = model(&world.history, symbol(), Period::Day, start);
        assert_eq!(last.get(&(symbol(), Period::Day, start)).copied(), bar, "{start}");
    }
}
