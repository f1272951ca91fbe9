//! Random deliveries: what is told last is what history says.

use proptest::prelude::*;

use super::world::{LIMITS, World, time};
use crate::history::testing::{cancel, correction, of, trade_at};
use crate::live::bars::BarLimits;
use crate::market::{Bar, Conditions, Event, Nanos, Origin, Price, RequestKey, Row, Tick};

/// A row and how long after its time it comes, in ms of the feed.
type Coming = (Row, i64);

/// What becomes of a trade.
#[derive(Clone, Debug)]
struct Fate {
    symbol: u8,
    ms: i64,
    cents: i64,
    code: &'static str,
    numbered: bool,
    lateness: i64,
    /// Copies: how late, and whether it says something else.
    copies: Vec<(i64, bool)>,
    /// A cancel (else a correction) after so long, so late.
    amended: Option<(bool, i64, i64)>,
    /// An ingested bar of its minute, so late.
    ingested: Option<i64>,
}

fn lateness() -> impl Strategy<Value = i64> {
    prop_oneof![6 => -4_000..500_i64, 2 => 0..20_000_i64, 1 => 0..200_000_i64]
}

fn fate() -> impl Strategy<Value = Fate> {
    let codes = prop::sample::select(vec!["@", "@", "@", "@I", "@T", "@Z", "9"]);
    let what = (0_u8..2, 0_i64..240_000, 1_i64..20, codes, prop::bool::weighted(0.9));
    let amended = prop::option::weighted(0.1, (any::<bool>(), 0..100_000_i64, lateness()));
    let copies = prop::collection::vec((lateness(), prop::bool::weighted(0.3)), 0..2);
    let ingested = prop::option::weighted(0.03, 0..90_000_i64);
    (what, lateness(), copies, amended, ingested).prop_map(|(what, lateness, copies, amended, ingested)| {
        let (symbol, ms, cents, code, numbered) = what;
        Fate { symbol, ms, cents, code, numbered, lateness, copies, amended, ingested }
    })
}

/// The rows of the fates, in the order in which they come.
fn rows(fates: &[Fate]) -> Vec<Coming> {
    let first = time("2018-01-03T14:30:00Z");
    let mut coming: Vec<Coming> = Vec::new();
    for (number, fate) in (1_u64..).zip(fates) {
        let name = ["A", "B"][usize::from(fate.symbol)];
        let at = first.plus(fate.ms * 1_000_000);
        let price = Price(fate.cents * Price::ONE).to_string();
        let mut row = of(name, trade_at(at, number, &price, 100));
        let Event::Trade(trade) = &mut row.tick.event else { unreachable!() };
        trade.conditions = Conditions::from_codes(fate.code.as_bytes()).unwrap();
        if !fate.numbered {
            trade.id = None;
            let index = u32::try_from(number).unwrap();
            row.origin = Origin { received: at, index, request: RequestKey([1; 16]) };
        }
        coming.push((row.clone(), fate.lateness));
        for (lateness, other) in &fate.copies {
            let mut copy = row.clone();
            if let (Event::Trade(trade), true) = (&mut copy.tick.event, *other) {
                trade.price = Price(trade.price.0 + Price::ONE);
            }
            coming.push((copy, *lateness));
        }
        if let Some((cancels, after, lateness)) = fate.amended.filter(|_| fate.numbered) {
            let when = at.plus(after * 1_000_000);
            let row = if cancels {
                cancel(when, number, &price, false)
            } else {
                correction(when, number, &price, 10_000 + number, "3.5")
            };
            coming.push((of(name, row), lateness));
        }
        if let Some(lateness) = fate.ingested {
            let (start, event) = (at.floor(Nanos::MINUTE), Event::MinuteBar(Bar::default()));
            let tick = Tick { symbol: row.tick.symbol, time: start, event };
            coming.push((Row { tick, origin: Origin::UNKNOWN }, 60_000 + lateness));
        }
    }
    coming.sort_by_key(|(row, lateness)| row.tick.time.0 + lateness * 1_000_000);
    coming
}

proptest! {
    #[test]
    fn what_is_told_last_is_what_history_says(
        fates in prop::collection::vec(fate(), 1..60),
        restart in prop_oneof![1 => Just(0), 2 => 0_usize..60],
        speed in prop::sample::select(vec![1_i64, 1, 100, 1_000]),
        answer_after in 0_usize..4,
        failing in prop::collection::vec(prop::bool::weighted(0.2), 0..12),
        bytes_max in prop::sample::select(vec![64_usize << 20, 30_000]),
        polled_each in 1_usize..6,
    ) {
        let limits = BarLimits { bytes_max, ..LIMITS };
        let coming = rows(&fates);
        let first = time("2018-01-03T14:30:00Z");
        // At its own speed it is a feed of today.
        let began = if speed == 1 { first } else { time("2024-01-05T14:00:00Z") };
        let wall = |(row, lateness): &Coming| {
            began.plus((row.tick.time.0 + lateness * 1_000_000 - first.0) / speed)
        };
        let mut world = World::new(limits, began.plus(-Nanos::HOUR));
        (world.answer_after, world.failing) = (answer_after, failing.into());
        let restart = restart.min(coming.len() - 1);
        for (at, one) in coming.iter().enumerate() {
            world.go_to(wall(one).max(world.wall));
            if at == restart && restart > 0 {
                world.restart(limits);
            }
            world.deliver(&one.0);
            if at % polled_each == 0 {
                world.poll();
            }
        }
        world.failing.clear();
        world.settle();
        let heard: Vec<Row> = coming[restart..].iter().map(|(row, _)| row.clone()).collect();
        prop_assert_eq!(world.counts().refused, 0);
        world.check(&heard);
    }
}
