//! The reader over a store in memory: pages, bars, symbols, and what goes wrong.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::amend::{Entry, amend};
use super::merge::Merge;
use super::page::{Cursor, Resume};
use super::reader::{BarQuery, BarSpan, ReadError, ReadLimits, TickQuery};
use super::testing::{
    World, any_copies, blocks_of, cancel, correction, of, price, quote_at, time, trade, trade_at,
};
use crate::bars::{Folding, Timeframe};
use crate::market::{Bar, Bucket, Event, Kind, Nanos, Origin, RequestKey, Row, Symbol, Tick};
use crate::store::{BlockKey, BucketKey, Order, Record, Records, Space, Span, TapeId, record_seal_key};
use crate::tape::{GapReason, GapRow, WaitToken};
use crate::wire::Mark;

/// Small limits, so that little data already takes many steps.
fn small() -> ReadLimits {
    ReadLimits { blocks_bytes_max: 1, directory_rows: 2, fold_rows: 3, ..ReadLimits::default() }
}

fn symbols(texts: &[&str]) -> Vec<Symbol> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ever() -> Span {
    Nanos(0)..=Nanos::MAX.plus(-1)
}

fn ticks(symbols: Vec<Symbol>, order: Order, limit: usize) -> TickQuery {
    TickQuery { symbols, kind: Kind::Trade, span: ever(), order, limit, cursor: None }
}

fn bars(timeframe: &str, order: Order, limit: usize) -> BarQuery {
    let timeframe = Timeframe::parse(timeframe).unwrap();
    BarQuery { symbols: symbols(&["AAPL"]), timeframe, span: ever(), order, limit, cursor: None }
}

/// All pages of a query, one after the other; checks that a page is full unless it is the last.
async fn all_ticks(world: &World, mut query: TickQuery) -> Vec<(Symbol, Entry)> {
    let mut all = Vec::new();
    loop {
        let page = world.reader.ticks(&query).await.unwrap();
        let count: usize = page.series.iter().map(|(_, items)| items.len()).sum();
        assert!(count == query.limit || page.next.is_none());
        assert!(page.series.iter().all(|(_, items)| !items.is_empty()));
        for (symbol, items) in page.series {
            all.extend(items.into_iter().map(|item| (symbol, item)));
        }
        match page.next {
            Some(cursor) => query.cursor = Some(cursor),
            None => return all,
        }
    }
}

async fn all_bars(world: &World, mut query: BarQuery) -> Vec<BarSpan> {
    let mut all = Vec::new();
    loop {
        let page = world.reader.bars(&query).await.unwrap();
        all.extend(page.series.into_iter().flat_map(|(_, items)| items));
        match page.next {
            Some(cursor) => query.cursor = Some(cursor),
            None => return all,
        }
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

/// What the model makes of all rows at once.
fn model(rows: &[Row]) -> Vec<Entry> {
    let mut merge = Merge::new(Order::Ascending, ever(), None, usize::MAX / 4);
    let (actions, trades): (Vec<Row>, Vec<Row>) =
        rows.iter().cloned().partition(|row| row.tick.kind().corrects());
    trades.into_iter().for_each(|row| merge.push(row));
    let ids: BTreeSet<_> = actions.iter().map(Row::id).collect();
    let actions = ids.iter().map(|id| actions.iter().find(|row| row.id() == *id).unwrap().clone()).collect();
    amend(merge.finish(), actions)
}

/// Trades over two hours with corrections and cancels of some of them, and where each copy
/// lies: 0 in the tail, else in the blocks of that flush.
fn any_history() -> impl Strategy<Value = Vec<(Row, u8)>> {
    let hour = time("2024-01-05T15:59:59.999999990Z");
    let trades = any_copies().prop_map(move |rows| {
        let shift = |mut row: Row| {
            row.tick.time = hour.plus(row.tick.time.0);
            row
        };
        rows.into_iter().map(shift).collect::<Vec<Row>>()
    });
    let actions = prop::collection::vec((0_u64..4, 0_u64..4, any::<bool>(), 0_i64..30), 0..4);
    let actions = actions.prop_map(move |actions| {
        let action = |(id, to, is_cancel, after): (u64, u64, bool, i64)| {
            let at = hour.plus(after * Nanos::SECOND);
            if is_cancel { cancel(at, id, "1", false) } else { correction(at, id, "1", to, "2") }
        };
        actions.into_iter().map(action).collect::<Vec<Row>>()
    });
    (trades, actions).prop_flat_map(|(trades, actions)| {
        let rows = [trades, actions].concat();
        let places = prop::collection::vec(0_u8..4, rows.len());
        (Just(rows), places).prop_map(|(rows, places)| rows.into_iter().zip(places).collect())
    })
}

fn world_of(history: &[(Row, u8)]) -> World {
    let world = World::new(small());
    for place in 0..4 {
        let rows: Vec<Row> =
            history.iter().filter(|(_, at)| *at == place).map(|(row, _)| row.clone()).collect();
        match place {
            0 => world.put_tail(&rows),
            _ => world.put_blocks(&rows),
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pages_of_any_split_over_tail_and_blocks_are_the_model(
        history in any_history(),
        limit in 1_usize..6,
        descending in any::<bool>(),
    ) {
        let world = world_of(&history);
        let rows: Vec<Row> = history.into_iter().map(|(row, _)| row).collect();
        let order = if descending { Order::Descending } else { Order::Ascending };
        let mut expected = model(&rows);
        if descending {
            expected.reverse();
        }
        let read = run(all_ticks(&world, ticks(symbols(&["AAPL"]), order, limit)));
        let read: Vec<Entry> = read.into_iter().map(|(_, entry)| entry).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn bars_of_any_split_are_the_fold_of_the_model(
        history in any_history(),
        limit in 1_usize..4,
        descending in any::<bool>(),
        day in any::<bool>(),
    ) {
        let world = world_of(&history);
        let rows: Vec<Row> = history.into_iter().map(|(row, _)| row).collect();
        let timeframe = if day { "1Day" } else { "1Min" };
        let mut folding = Folding::new(Timeframe::parse(timeframe).unwrap().base());
        let mut folded = Vec::new();
        for entry in model(&rows) {
            folded.extend(match entry.mark {
                None | Some(Mark::Corrected) => folding.push(entry.key.place, &entry.tick),
                Some(_) => folding.push_struck(entry.key.place, &entry.tick),
            });
        }
        folded.extend(folding.finish());
        let bar = |folded: crate::bars::Folded| folded.bar.map(|bar| BarSpan { time: folded.start, bar });
        let mut expected: Vec<BarSpan> = folded.into_iter().filter_map(bar).collect();
        let order = if descending { Order::Descending } else { Order::Ascending };
        if descending {
            expected.reverse();
        }
        prop_assert_eq!(run(all_bars(&world, bars(timeframe, order, limit))), expected);
    }
}

#[test]
fn tail_before_blocks() {
    // While the directory is read, the keeper moves the tail's ticks into a block and the tail is
    // trimmed. Read in the other order, the ticks would be in neither.
    let world = World::new(small());
    let rows = [trade(1, 1, "10"), trade(2, 2, "11")];
    world.put_tail(&rows);
    let (store, tail, blocks) = (world.store.clone(), world.tail.clone(), blocks_of(&world.keyring, &rows));
    *world.store.meanwhile.lock() = Some(Box::new(move || {
        blocks.into_iter().for_each(|(key, block)| store.put_block(key, block));
        tail.rows.lock().clear();
    }));
    let read = run(all_ticks(&world, ticks(symbols(&["AAPL"]), Order::Ascending, 10)));
    assert_eq!(read.len(), 2);
    assert!(world.tail.rows.lock().is_empty());
}

#[test]
fn the_limit_is_over_all_symbols_and_they_ascend_also_where_times_descend() {
    let world = World::new(small());
    for (symbol, times) in [("AAA", 1..4), ("BBB", 1..2), ("CCC", 1..1), ("DDD", 1..3)] {
        for time in times {
            world.put_blocks(&[of(symbol, trade(time, u64::try_from(time).unwrap(), "10"))]);
        }
    }
    let all = symbols(&["AAA", "BBB", "CCC", "DDD"]);
    for limit in 1..=7 {
        let read = run(all_ticks(&world, ticks(all.clone(), Order::Descending, limit)));
        let read: Vec<String> =
            read.iter().map(|(symbol, entry)| format!("{symbol}{}", entry.tick.time.0)).collect();
        assert_eq!(read, ["AAA3", "AAA2", "AAA1", "BBB1", "DDD2", "DDD1"], "limit {limit}");
    }
    let page = run(world.reader.ticks(&ticks(all.clone(), Order::Ascending, 4))).unwrap();
    let next = page.next.unwrap();
    assert_eq!(next, Cursor { symbol: all[3], resume: Resume::Start }, "where there is data, not CCC");
    let page = run(world.reader.ticks(&ticks(all, Order::Ascending, 6))).unwrap();
    assert_eq!(page.next, None, "a full page that is the last says so");
}

#[test]
fn spans_from_before_1970_to_the_end_of_time_are_read() {
    let world = World::new(small());
    world.put_blocks(&[trade(0, 1, "10"), trade(Nanos::MAX.0, 2, "11")]);
    for order in [Order::Ascending, Order::Descending] {
        let mut query = ticks(symbols(&["AAPL"]), order, 1);
        query.span = Nanos::MIN..=Nanos::MAX;
        assert_eq!(run(all_ticks(&world, query.clone())).len(), 2);
        query.span = Nanos::MIN..=Nanos(-1);
        assert_eq!(run(all_ticks(&world, query)), []);
        for timeframe in ["1Min", "1Day", "1Week", "12Month"] {
            let mut query = bars(timeframe, order, 1);
            query.span = Nanos::MIN..=Nanos::MAX;
            assert!(!run(all_bars(&world, query)).is_empty(), "{timeframe}");
        }
    }
}

#[test]
fn damage_is_an_error_by_name() {
    let world = World::new(small());
    world.put_blocks(&[trade(1, 1, "10")]);
    world.store.damage();
    let error = run(world.reader.ticks(&ticks(symbols(&["AAPL"]), Order::Ascending, 10))).unwrap_err();
    let ReadError::Corrupt(detail) = error else { panic!("{error:?}") };
    assert!(detail.contains("block of trades of AAPL") && detail.contains("integrity"), "{detail}");

    // A block that is whole, but stands in another row.
    let world = World::new(small());
    for (mut key, block) in blocks_of(&world.keyring, &[trade(1, 1, "10")]) {
        key.symbol = "MSFT".parse().unwrap();
        world.store.put_block(key, block);
    }
    let error = run(world.reader.ticks(&ticks(symbols(&["MSFT"]), Order::Ascending, 10))).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt(_)), "{error:?}");
}

#[test]
fn a_tail_that_has_shed_answers_nothing_rather_than_a_hole() {
    let world = World::new(small());
    world.put_blocks(&[trade(1, 1, "10")]);
    *world.tail.shed.lock() = true;
    let query = ticks(symbols(&["AAPL"]), Order::Ascending, 10);
    assert_eq!(run(world.reader.ticks(&query)), Err(ReadError::CatchingUp));
}

#[test]
fn a_page_ends_early_rather_than_read_more_than_its_budget() {
    let limits = ReadLimits { page_read_bytes_max: 1, ..small() };
    let world = World::new(limits);
    for symbol in ["AAA", "BBB", "CCC"] {
        world.put_blocks(&[of(symbol, trade(1, 1, "10"))]);
    }
    let mut query = ticks(symbols(&["AAA", "BBB", "CCC"]), Order::Ascending, 10);
    for symbol in &query.symbols.clone() {
        let page = run(world.reader.ticks(&query)).unwrap();
        assert_eq!(page.series.len(), 1);
        assert_eq!(page.series[0].0, *symbol);
        assert_eq!(page.next.is_none(), symbol.as_str() == "CCC");
        query.cursor = page.next;
    }

    for minute in 0..3 {
        world.put_blocks(&[trade(minute * Nanos::MINUTE, 1, "10")]);
    }
    let mut query = bars("1Min", Order::Ascending, 10);
    query.span = Nanos(0)..=Nanos(Nanos::HOUR);
    assert_eq!(run(all_bars(&world, query)).len(), 3);
}

fn ingested(at: &str, close: &str, updated: bool, day: bool) -> Row {
    let one = price(close);
    let bar = Bar { open: one, high: one, low: one, close: one, volume: 5, trades: 1, vwap: None, updated };
    let event = if day { Event::DayBar(bar) } else { Event::MinuteBar(bar) };
    Row { tick: Tick { symbol: "AAPL".parse().unwrap(), time: time(at), event }, origin: Origin::UNKNOWN }
}

fn closes(bars: &[BarSpan]) -> Vec<String> {
    bars.iter().map(|bar| format!("{} {}", bar.time, bar.bar.close)).collect()
}

#[test]
fn ingested_bars_win_over_folded_ones() {
    let world = World::new(small());
    world.put_blocks(&[
        trade_at(time("2024-01-05T15:00:10Z"), 1, "10", 100),
        trade_at(time("2024-01-05T15:01:10Z"), 2, "11", 100),
        trade_at(time("2024-01-05T15:07:00Z"), 3, "12", 100),
        trade_at(time("2024-01-08T15:07:00Z"), 4, "13", 100),
        ingested("2024-01-05T15:01:00Z", "90", false, false),
        ingested("2024-01-05T15:02:00Z", "91", false, false),
        ingested("2024-01-05T05:00:00Z", "92", false, true),
        ingested("2024-01-03T05:00:00Z", "93", false, true),
    ]);
    world.put_tail(&[ingested("2024-01-05T15:01:00Z", "89", true, false)]);
    let cases: &[(&str, &[&str])] = &[
        (
            "1Min",
            &[
                "2024-01-05T15:00:00Z 10",
                "2024-01-05T15:01:00Z 89",
                "2024-01-05T15:02:00Z 91",
                "2024-01-05T15:07:00Z 12",
                "2024-01-08T15:07:00Z 13",
            ],
        ),
        ("5Min", &["2024-01-05T15:00:00Z 91", "2024-01-05T15:05:00Z 12", "2024-01-08T15:05:00Z 13"]),
        ("1Day", &["2024-01-03T05:00:00Z 93", "2024-01-05T05:00:00Z 92", "2024-01-08T05:00:00Z 13"]),
        ("1Week", &["2024-01-01T05:00:00Z 92", "2024-01-08T05:00:00Z 13"]),
        ("1Month", &["2024-01-01T05:00:00Z 13"]),
    ];
    for (timeframe, expected) in cases {
        for limit in [1, 2, 10] {
            let read = run(all_bars(&world, bars(timeframe, Order::Ascending, limit)));
            assert_eq!(&closes(&read), expected, "{timeframe} {limit}");
            let mut read = run(all_bars(&world, bars(timeframe, Order::Descending, limit)));
            read.reverse();
            assert_eq!(&closes(&read), expected, "{timeframe} {limit} descending");
        }
    }
}

#[test]
fn bars_are_those_that_begin_in_the_span_and_each_is_whole() {
    let world = World::new(small());
    for minute in 0..10 {
        let at = time("2024-01-05T15:00:30Z").plus(minute * Nanos::MINUTE);
        world.put_blocks(&[trade_at(
            at,
            u64::try_from(minute).unwrap(),
            &minute.to_string().replace('0', "20"),
            100,
        )]);
    }
    let mut query = bars("5Min", Order::Ascending, 10);
    query.span = time("2024-01-05T15:00:00Z")..=time("2024-01-05T15:05:00Z");
    let read = run(all_bars(&world, query.clone()));
    assert_eq!(closes(&read), ["2024-01-05T15:00:00Z 4", "2024-01-05T15:05:00Z 9"]);
    query.span = time("2024-01-05T15:00:01Z")..=time("2024-01-05T15:09:00Z");
    assert_eq!(closes(&run(all_bars(&world, query.clone()))), ["2024-01-05T15:05:00Z 9"]);
    query.span = time("2024-01-05T15:00:01Z")..=time("2024-01-05T15:04:59Z");
    assert_eq!(run(all_bars(&world, query)), []);
}

#[test]
fn a_daily_bar_that_was_ingested_spares_reading_its_trades() {
    let world = World::new(small());
    world.put_blocks(&[trade_at(time("2024-01-05T16:00:10Z"), 2, "11", 100)]);
    world.store.damage();
    world.put_blocks(&[
        trade_at(time("2024-01-05T15:00:10Z"), 1, "10", 100),
        ingested("2024-01-05T05:00:00Z", "92", false, true),
    ]);
    // The first trade is read to know its day; what lies behind it in that day is not.
    let read = run(all_bars(&world, bars("1Day", Order::Ascending, 5)));
    assert_eq!(closes(&read), ["2024-01-05T05:00:00Z 92"]);
    let minutes = run(world.reader.bars(&bars("1Min", Order::Ascending, 5)));
    assert!(matches!(minutes, Err(ReadError::Corrupt(_))), "minute bars need all trades");
}

#[test]
fn symbols_of_blocks_and_tail_with_times_and_kinds() {
    let world = World::new(small());
    world.put_blocks(&[
        of("AAA", trade(5, 1, "10")),
        of("AB", trade(6, 1, "10")),
        of("B", trade(7, 1, "10")),
    ]);
    world.put_tail(&[
        of("AAA", quote_at(9, 1, 0, 1)),
        of("AAB", trade(3, 1, "10")),
        of("AAB", trade(4, 2, "10")),
    ]);
    let list = |prefix: &str, after: Option<&str>, limit| {
        let after = after.map(|text| text.parse().unwrap());
        let page = run(world.reader.symbols(prefix, after, limit)).unwrap();
        let line = |row: &crate::store::SymbolRow| {
            format!("{} {} {} {}", row.symbol, row.kinds, row.first.0, row.last.0)
        };
        (page.symbols.iter().map(line).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(
        list("", None, 9),
        (vec!["AAA 6 5 9".into(), "AAB 2 3 4".into(), "AB 2 6 6".into(), "B 2 7 7".into()], false)
    );
    assert_eq!(list("", None, 2), (vec!["AAA 6 5 9".into(), "AAB 2 3 4".into()], true));
    assert_eq!(list("", Some("AAB"), 2), (vec!["AB 2 6 6".into(), "B 2 7 7".into()], false));
    assert_eq!(list("AA", None, 9), (vec!["AAA 6 5 9".into(), "AAB 2 3 4".into()], false));
    assert_eq!(list("AA", Some("AAA"), 9), (vec!["AAB 2 3 4".into()], false));
    assert_eq!(list("Z", None, 9), (vec![], false));
}

#[test]
fn gaps_that_touch_the_span_are_told() {
    let world = World::new(small());
    let (from, to) = (time("2024-01-05T15:00:00Z"), time("2024-01-05T15:10:00Z"));
    let gap = GapRow { tape: TapeId(1), first: 1, last: 2, reason: GapReason::Expired, from, to };
    let key = gap.key();
    let sealed = record_seal_key(Space::Gaps, "local", &key, 3);
    let body = world.keyring.seal(&sealed, &gap.encode());
    let is_incomplete = |span: Span| run(world.reader.is_incomplete(&span));
    assert_eq!(is_incomplete(ever()), Ok(false));
    run(world.store.put(Space::Gaps, "local", Record { key: key.clone(), version: 3, body: body.clone() }))
        .unwrap();
    assert_eq!(is_incomplete(from..=from), Ok(true));
    assert_eq!(is_incomplete(to.plus(5 * Nanos::SECOND)..=Nanos::MAX), Ok(true));
    assert_eq!(is_incomplete(to.plus(6 * Nanos::SECOND)..=Nanos::MAX), Ok(false));
    assert_eq!(is_incomplete(Nanos(0)..=from.plus(-25 * Nanos::HOUR)), Ok(false));
    run(world.store.put(Space::Gaps, "local", Record { key, version: 4, body })).unwrap();
    assert!(is_incomplete(ever()).is_err(), "a row that was sealed as another");
}

#[test]
fn a_read_waits_for_what_it_names() {
    let world = World::new(small());
    world.tail.followed.lock().insert(TapeId(1), 5);
    let token = |seq| WaitToken([(TapeId(1), seq)].into());
    assert!(run(world.reader.wait_for(&token(5))));
    assert!(!run(world.reader.wait_for(&token(6))));
}

#[tokio::test(start_paused = true)]
async fn one_more_read_than_there_may_be_is_refused_and_the_next_is_served() {
    let world = World::new(ReadLimits { reads_max: 1, ..ReadLimits::default() });
    let query = ticks(symbols(&["AAPL"]), Order::Ascending, 10);
    let turn = world.reader.turn().await.unwrap();
    assert_eq!(world.reader.ticks(&query).await.unwrap_err(), ReadError::Busy(1));
    drop(turn);
    assert_eq!(world.reader.ticks(&query).await.unwrap().series, Vec::new());
}

#[tokio::test]
async fn a_bar_opens_and_closes_by_arrival_where_trades_have_no_number() {
    for turn in 0..8_u8 {
        let world = World::new(ReadLimits::default());
        let unnumbered = |index: u32, text: &str| {
            let mut row = trade(5, 1, text);
            if let Event::Trade(trade) = &mut row.tick.event {
                trade.id = None;
            }
            row.origin = Origin { received: Nanos(9), index, request: RequestKey([turn; 16]) };
            row
        };
        let rows = [unnumbered(0, "10"), unnumbered(1, "11"), unnumbered(2, "12")];
        world.put_tail(&rows);
        let bars = all_bars(&world, bars("1Min", Order::Ascending, 10)).await;
        let told: Vec<_> = bars.iter().map(|bar| (bar.bar.open, bar.bar.close)).collect();
        assert_eq!(told, [(price("10"), price("12"))], "turn {turn}");
    }
}

#[test]
fn the_golden_row_key_of_a_block() {
    let symbol: Symbol = "AAPL".parse().unwrap();
    let first = time("2024-01-03T14:30:00.5Z");
    let bucket = BucketKey { symbol, bucket: Bucket::of(Kind::Trade, first) };
    let key = BlockKey { kind: Kind::Trade, first, id: [0xab; 16] };
    let sealed = super::block_seal_key(&bucket, &key, first.plus(1), 300);
    assert_eq!(sealed.as_bytes(), crate::market::golden::block("seal-key-block"));
}
