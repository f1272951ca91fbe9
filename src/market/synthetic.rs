//! A synthetic market: trades and quotes that look like the real thing, from a seed.
//!
//! Used by the demo, by tests and by load generators. It is a function of its settings: no
//! clock, no floating point in what it draws, the same ticks on every machine. An iterator
//! without end; each tick is later than the one before.
//!
//! - Symbols are made-up words of six letters, which no listed stock has. How often one is
//!   drawn follows Zipf's law with exponent 0.8: of 500 symbols the first has 8 % of the ticks.
//! - Prices walk at random, cent by cent, each symbol on its own, from 5 to 500 dollars.
//! - One tick in five is a trade, at or inside the quote. Trade ids ascend a symbol and exchange.
//! - Exchanges, odd lots, sweeps and trades off exchange come as often as on a usual day.
//! - In [`Profile::Session`] the rate follows the New York session: ten times at the opening,
//!   falling within half an hour, and double in the last ten minutes.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::calendar::{self, Session};
use super::{Conditions, Event, Exchange, Nanos, Price, Quote, SipTape, Symbol, Tick, Trade};

/// Symbols of a market when nothing else is asked for.
pub const SYMBOLS_DEFAULT: u32 = 500;
/// The most symbols of a market.
pub const SYMBOLS_MAX: u32 = 100_000;

/// Units of a cent.
const CENT: i64 = Price::ONE / 100;
/// A sub-penny step, as trades off exchange have.
const HUNDREDTH_CENT: i64 = CENT / 100;
const CENTS_MIN: i64 = 100;
const CENTS_MAX: i64 = 100_000;
/// One tick in so many is a trade.
const QUOTES_A_TRADE: u32 = 5;

/// How the rate goes over the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The same at all times, whatever the day.
    Steady,
    /// A burst at the opening of each New York session, more at its close, and a tenth outside.
    Session,
}

/// What a market is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The seed: all else equal, the same seed gives the same ticks.
    pub seed: u64,
    /// How many symbols, 1 to [`SYMBOLS_MAX`]; what lies outside is held to that.
    pub symbols: u32,
    /// No tick is before this time.
    pub start: Nanos,
    /// Ticks a second, on average, in the middle of the day; 1 to 10^9.
    pub ticks_per_second: u32,
    /// How the rate goes over the day.
    pub profile: Profile,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            symbols: SYMBOLS_DEFAULT,
            start: Nanos(1_704_292_200_000_000_000),
            ticks_per_second: 1_000,
            profile: Profile::Steady,
        }
    }
}

/// A market: an endless iterator of ticks in the order of time.
#[derive(Clone, Debug)]
pub struct SyntheticMarket {
    rng: ChaCha8Rng,
    time: Nanos,
    ticks_per_second: i64,
    profile: Profile,
    /// The session of the day that `time` is in, and when that day ends.
    session: Option<Session>,
    day_end: Nanos,
    /// Sums of the weights of the symbols up to each one.
    weights: Vec<u64>,
    stocks: Vec<Stock>,
}

#[derive(Clone, Debug)]
struct Stock {
    symbol: Symbol,
    tape: SipTape,
    /// The bid in cents, and by how many cents the ask is above it.
    bid: i64,
    spread: i64,
    /// The next trade id an exchange, in the order of [`EXCHANGES`].
    next_ids: [u64; EXCHANGES.len()],
}

/// Exchanges by how many of 100 trades they have. `D` is where trades off exchange are reported.
const EXCHANGES: [(u8, u32); 10] = [
    (b'D', 34),
    (b'Q', 17),
    (b'N', 12),
    (b'P', 9),
    (b'K', 9),
    (b'Z', 7),
    (b'V', 4),
    (b'U', 4),
    (b'J', 2),
    (b'Y', 2),
];
/// The first of [`EXCHANGES`] has no quotes.
const FIRST_QUOTED: u32 = 34;

impl SyntheticMarket {
    /// The market of these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let count = settings.symbols.clamp(1, SYMBOLS_MAX);
        let mut sum = 0;
        let weights = (1..=count).map(|rank| {
            sum += zipf_weight(rank);
            sum
        });
        Self {
            time: settings.start,
            ticks_per_second: i64::from(settings.ticks_per_second.clamp(1, 1_000_000_000)),
            profile: settings.profile,
            session: None,
            day_end: Nanos::MIN,
            weights: weights.collect(),
            stocks: (0..count).filter_map(|rank| Stock::new(rank, &mut rng)).collect(),
            rng,
        }
    }

    /// The symbols, the most traded first.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> {
        self.stocks.iter().map(|stock| stock.symbol)
    }

    /// The time of the next tick: a gap drawn evenly around the mean at the present rate.
    fn advance(&mut self) -> Nanos {
        let rate = self.ticks_per_second.saturating_mul(self.tenths());
        let mean = Nanos::SECOND.saturating_mul(10) / rate.max(1);
        let gap = self.rng.random_range(0..=mean.saturating_mul(2)).max(1);
        self.time = self.time.plus(gap);
        self.time
    }

    /// The rate now, in tenths of that in the middle of the day.
    fn tenths(&mut self) -> i64 {
        if self.profile == Profile::Steady {
            return 10;
        }
        let session = self.session_now();
        let Some(session) = session.filter(|at| at.open <= self.time && self.time < at.close) else {
            return 1;
        };
        let opened_s = (self.time.0 - session.open.0) / Nanos::SECOND;
        let left_s = (session.close.0 - self.time.0) / Nanos::SECOND;
        match opened_s {
            ..10 => 100,
            10..30 => 70,
            30..60 => 50,
            60..300 => 30,
            300..1_800 => 15,
            _ if left_s < 600 => 20,
            _ => 10,
        }
    }

    fn session_now(&mut self) -> Option<Session> {
        if self.time > self.day_end {
            let day = calendar::new_york_date(self.time);
            self.session = calendar::session(day);
            self.day_end = calendar::new_york_day(day).1;
        }
        self.session
    }

    /// Whether trades are in the regular session; a steady market is always.
    fn regular_hours(&mut self) -> bool {
        self.profile == Profile::Steady
            || self.session_now().is_some_and(|at| at.open <= self.time && self.time < at.close)
    }
}

impl Iterator for SyntheticMarket {
    type Item = Tick;

    fn next(&mut self) -> Option<Tick> {
        let time = self.advance();
        let regular = self.regular_hours();
        let drawn = self.rng.random_range(0..self.weights.last().copied().unwrap_or(1));
        let rank = self.weights.partition_point(|sum| *sum <= drawn);
        let trades = self.rng.random_range(0..QUOTES_A_TRADE) == 0;
        let stock = self.stocks.get_mut(rank)?;
        let event = if trades {
            Event::Trade(stock.trade(regular, &mut self.rng))
        } else {
            Event::Quote(stock.quote(&mut self.rng))
        };
        Some(Tick { symbol: stock.symbol, time, event })
    }
}

impl Stock {
    fn new(rank: u32, rng: &mut ChaCha8Rng) -> Option<Self> {
        let tape = match rank % 5 {
            0 | 1 => SipTape::C,
            2 | 3 => SipTape::A,
            _ => SipTape::B,
        };
        Some(Self {
            symbol: made_up(rank)?,
            tape,
            bid: rng.random_range(500..50_000),
            spread: rng.random_range(1..=4),
            next_ids: [1; EXCHANGES.len()],
        })
    }

    /// A quote after a step of the walk.
    fn quote(&mut self, rng: &mut ChaCha8Rng) -> Quote {
        let step = match rng.random_range(0..10) {
            0..=2 => -1,
            3..=5 => 1,
            _ => 0,
        };
        self.bid = (self.bid + step).clamp(CENTS_MIN, CENTS_MAX);
        if rng.random_range(0..8) == 0 {
            self.spread = rng.random_range(1..=4);
        }
        let (_, bid_exchange) = exchange_at(rng.random_range(FIRST_QUOTED..100));
        let (_, ask_exchange) = exchange_at(rng.random_range(FIRST_QUOTED..100));
        Quote {
            ask_exchange,
            ask_price: Price((self.bid + self.spread) * CENT),
            ask_size: 100 * rng.random_range(1..=12),
            bid_exchange,
            bid_price: Price(self.bid * CENT),
            bid_size: 100 * rng.random_range(1..=12),
            conditions: codes(b"R"),
            tape: self.tape,
        }
    }

    /// A trade at the bid or the ask; off exchange also between them.
    fn trade(&mut self, regular: bool, rng: &mut ChaCha8Rng) -> Trade {
        let (slot, exchange) = exchange_at(rng.random_range(0..100));
        let off_exchange = slot == 0;
        let mut price = if rng.random() { self.bid } else { self.bid + self.spread } * CENT;
        if off_exchange && rng.random_range(0..3) == 0 {
            price = self.bid * CENT + rng.random_range(1..100) * HUNDREDTH_CENT;
        }
        let odd_lot = rng.random_range(0..100) < 45;
        let size = if odd_lot { rng.random_range(1..100) } else { 100 * rng.random_range(1..=8) };
        let regular_sale = if self.tape == SipTape::C { b'@' } else { b' ' };
        let sweep = !off_exchange && rng.random_range(0..100) < 30;
        let flags = [(true, regular_sale), (sweep, b'F'), (!regular, b'T'), (odd_lot, b'I')];
        let given: Vec<u8> = flags.into_iter().filter(|(set, _)| *set).map(|(_, code)| code).collect();
        let id = self.next_ids.get_mut(slot).map(|next| {
            *next += rng.random_range(1..20);
            *next
        });
        Trade { id, exchange, price: Price(price), size, conditions: codes(&given), tape: self.tape }
    }
}

/// The exchange that holds the share `percent` of trades, and its slot.
fn exchange_at(percent: u32) -> (usize, Exchange) {
    let mut sum = 0;
    for (slot, (code, share)) in EXCHANGES.into_iter().enumerate() {
        sum += share;
        if percent < sum {
            return (slot, Exchange(code));
        }
    }
    (0, Exchange(b'D'))
}

fn codes(codes: &[u8]) -> Conditions {
    Conditions::from_codes(codes).unwrap_or_default()
}

/// 2^20 by the rank to the power 0.8, rounded down: the largest w with w^5 * rank^4 <= 2^100.
fn zipf_weight(rank: u32) -> u64 {
    let limit = (1_u128 << 100) / u128::from(rank.max(1)).pow(4);
    let (mut low, mut high) = (1_u64, 1_u64 << 20);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if u128::from(middle).pow(5) <= limit { low = middle } else { high = middle - 1 }
    }
    low
}

/// A word of three syllables, another for each rank below 10^6: rank times a number without
/// a common factor, read in syllables.
fn made_up(rank: u32) -> Option<Symbol> {
    const CONSONANTS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
    const VOWELS: &[u8; 5] = b"AEIOU";
    const WORDS: u64 = 1_000_000;
    let mut number = (u64::from(rank) * 387_423 + 271_828) % WORDS;
    let mut text = Vec::with_capacity(6);
    for _ in 0..3 {
        for letters in [CONSONANTS.as_slice(), VOWELS.as_slice()] {
            let count = letters.len() as u64;
            let at = usize::try_from(number % count).unwrap_or_default();
            text.extend(letters.get(at));
            number /= count;
        }
    }
    Symbol::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashSet};

    use super::*;
    use crate::market::{Origin, Row};

    fn market(settings: Settings) -> SyntheticMarket {
        SyntheticMarket::new(settings)
    }

    #[test]
    fn the_same_seed_gives_the_same_ticks_and_another_seed_others() {
        let first: Vec<Tick> = market(Settings::default()).take(2_000).collect();
        let again: Vec<Tick> = market(Settings::default()).take(2_000).collect();
        let other: Vec<Tick> = market(Settings { seed: 1, ..Settings::default() }).take(2_000).collect();
        assert_eq!(first, again);
        assert_ne!(first, other);
    }

    #[test]
    fn ticks_ascend_at_the_rate_asked_for() {
        let settings = Settings { ticks_per_second: 50_000, ..Settings::default() };
        let ticks: Vec<Tick> = market(settings).take(100_000).collect();
        assert!(ticks.is_sorted_by(|a, b| a.time < b.time));
        assert!(ticks[0].time > settings.start);
        let seconds_hundredths = (ticks[99_999].time.0 - settings.start.0) / 10_000_000;
        assert!((190..210).contains(&seconds_hundredths), "{seconds_hundredths}");
    }

    #[test]
    fn eight_thousand_symbols_each_once_and_drawn_by_zipf() {
        let settings = Settings { symbols: 8_000, ..Settings::default() };
        let symbols: Vec<Symbol> = market(settings).symbols().collect();
        assert_eq!(symbols.iter().collect::<BTreeSet<_>>().len(), 8_000);
        let mut counts: BTreeMap<Symbol, u32> = BTreeMap::new();
        for tick in market(settings).take(100_000) {
            *counts.entry(tick.symbol).or_default() += 1;
        }
        // 10^0.8 is 6.3.
        let (first, tenth) = (counts[&symbols[0]], counts[&symbols[9]]);
        assert!((5 * tenth..8 * tenth).contains(&first), "{first} {tenth}");
        assert!(counts.len() > 6_000, "{}", counts.len());
        assert_eq!(zipf_weight(1), 1 << 20);
        assert_eq!(zipf_weight(32), 1 << 16);
    }

    #[test]
    fn every_made_up_symbol_is_one() {
        let all: HashSet<Symbol> = (0..SYMBOLS_MAX).filter_map(made_up).collect();
        assert_eq!(all.len(), 100_000);
        assert!(all.iter().all(|symbol| symbol.as_str().len() == 6));
    }

    #[test]
    fn trades_and_quotes_are_plausible_and_ids_ascend() {
        let mut last_ids: BTreeMap<(Symbol, Exchange), u64> = BTreeMap::new();
        let mut ids = HashSet::new();
        let (mut trades, mut odd_lots) = (0_u32, 0_u32);
        for tick in market(Settings { symbols: 20, ..Settings::default() }).take(20_000) {
            match &tick.event {
                Event::Trade(trade) => {
                    trades += 1;
                    assert!(trade.price > Price(0) && trade.size > 0);
                    let last = last_ids.insert((tick.symbol, trade.exchange), trade.id.unwrap());
                    assert!(last < trade.id);
                    let odd = trade.conditions.codes().contains(&b'I');
                    assert_eq!(odd, trade.size < 100);
                    odd_lots += u32::from(odd);
                    assert_eq!(trade.tape == SipTape::C, trade.conditions.codes()[0] == b'@');
                    assert!(ids.insert(Row { tick: tick.clone(), origin: Origin::UNKNOWN }.id()));
                }
                Event::Quote(quote) => {
                    assert!(quote.bid_price < quote.ask_price && quote.bid_price > Price(0));
                    assert_eq!([quote.bid_price.0 % CENT, quote.ask_price.0 % CENT], [0, 0]);
                    assert_ne!(quote.bid_exchange, Exchange(b'D'));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((3_500..4_500).contains(&trades), "{trades}");
        assert!((35..55).contains(&(odd_lots * 100 / trades)), "{odd_lots} of {trades}");
    }

    #[test]
    fn a_session_bursts_at_its_opening_and_rests_on_holidays() {
        let count = |from: &str, seconds: i64| {
            let start = Nanos::parse(from.as_bytes()).unwrap();
            let settings = Settings { start, profile: Profile::Session, ..Settings::default() };
            let end = start.plus(seconds * Nanos::SECOND);
            market(settings).take_while(|tick| tick.time < end).count()
        };
        let opening = count("2024-01-03T14:30:00Z", 5);
        let noon = count("2024-01-03T17:00:00Z", 5);
        let night = count("2024-01-03T07:00:00Z", 5);
        let holiday = count("2024-01-01T17:00:00Z", 5);
        assert!(
            opening > 9 * noon && noon > 8 * night && holiday < 2 * night,
            "{opening} {noon} {night} {holiday}"
        );
    }

    #[test]
    fn out_of_hours_trades_say_so() {
        let start = Nanos::parse(b"2024-01-03T07:00:00Z").unwrap();
        let settings = Settings { start, profile: Profile::Session, ..Settings::default() };
        for tick in market(settings).take(500) {
            if let Event::Trade(trade) = tick.event {
                assert!(trade.conditions.codes().contains(&b'T'));
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_held_to_it() {
        let settings = Settings { symbols: 0, ticks_per_second: 0, ..Settings::default() };
        assert_eq!(market(settings).symbols().count(), 1);
        assert_eq!(market(settings).take(3).count(), 3);
    }
}
