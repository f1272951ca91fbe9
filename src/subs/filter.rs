//! Which ticks of a subscription's channels go out.

use std::collections::HashMap;

use crate::market::{Conditions, Event, Price, Quote, Symbol, Tick, Trade};

/// How far a price must have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// By at least so much.
    Price(Price),
    /// By at least so many percent of the price before, at nine decimals.
    Percent(Price),
}

impl Move {
    /// Whether a price that was `before` has moved so far.
    fn reached(self, before: Price, price: Price) -> bool {
        let moved = i128::from(price.0) - i128::from(before.0);
        let moved = moved.abs();
        moved > 0
            && match self {
                Self::Price(least) => moved >= i128::from(least.0),
                Self::Percent(least) => {
                    let of = i128::from(before.0).abs() * i128::from(least.0);
                    moved * 100 * i128::from(Price::ONE) >= of
                }
            }
    }
}

/// The rules of a filter. They are for trades and quotes; everything else goes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Shares of a trade, or of one side of a quote, at least; 0: any.
    pub min_size: u32,
    /// How far the price of a trade, or one side of a quote, must be from that of the last one
    /// of the symbol that went out. The first goes out.
    pub min_move: Option<Move>,
    /// One of these condition codes must be on it; empty: any or none.
    pub conditions: Vec<u8>,
}

impl FilterSpec {
    /// Whether everything goes out.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.min_size == 0 && self.min_move.is_none() && self.conditions.is_empty()
    }

    fn allows(&self, conditions: &Conditions) -> bool {
        self.conditions.is_empty() || conditions.codes().iter().any(|code| self.conditions.contains(code))
    }
}

/// What went out last of a symbol.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    trade: Option<Price>,
    /// Ask and bid.
    quote: Option<(Price, Price)>,
}

/// The rules, and what they remember.
///
/// Above its number of symbols it has no memory of new ones: their ticks pass the rule of the price
/// move as if each were the first.
#[derive(Debug)]
pub struct Filter {
    spec: FilterSpec,
    symbols_max: usize,
    last: HashMap<Symbol, Last>,
}

impl Filter {
    /// A filter that remembers so many symbols.
    #[must_use]
    pub fn new(spec: FilterSpec, symbols_max: usize) -> Self {
        Self { spec, symbols_max, last: HashMap::new() }
    }

    /// Whether a tick goes out. One that does is what the next of its symbol is compared with.
    pub fn admits(&mut self, tick: &Tick) -> bool {
        match &tick.event {
            Event::Trade(trade) => self.admits_trade(tick.symbol, trade),
            Event::Quote(quote) => self.admits_quote(tick.symbol, quote),
            _ => true,
        }
    }

    fn admits_trade(&mut self, symbol: Symbol, trade: &Trade) -> bool {
        if trade.size < self.spec.min_size || !self.spec.allows(&trade.conditions) {
            return false;
        }
        let Some(least) = self.spec.min_move else { return true };
        let Some(last) = self.last(symbol) else { return true };
        let moved = last.trade.is_none_or(|before| least.reached(before, trade.price));
        if moved {
            last.trade = Some(trade.price);
        }
        moved
    }

    fn admits_quote(&mut self, symbol: Symbol, quote: &Quote) -> bool {
        let size = quote.ask_size.max(quote.bid_size);
        if size < self.spec.min_size || !self.spec.allows(&quote.conditions) {
            return false;
        }
        let Some(least) = self.spec.min_move else { return true };
        let Some(last) = self.last(symbol) else { return true };
        let moved = last.quote.is_none_or(|(ask, bid)| {
            least.reached(ask, quote.ask_price) || least.reached(bid, quote.bid_price)
        });
        if moved {
            last.quote = Some((quote.ask_price, quote.bid_price));
        }
        moved
    }

    /// What went out last; none where there is no room to remember it.
    fn last(&mut self, symbol: Symbol) -> Option<&mut Last> {
        if self.last.len() >= self.symbols_max && !self.last.contains_key(&symbol) {
            return None;
        }
        Some(self.last.entry(symbol).or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::testing::{of, price, quote_at, symbol, time, trade, trade_at};
    use crate::market::{Luld, Nanos};

    fn filter(spec: FilterSpec) -> Filter {
        Filter::new(spec, 10)
    }

    fn with_move(least: Move) -> FilterSpec {
        FilterSpec { min_move: Some(least), ..FilterSpec::default() }
    }

    #[test]
    fn size_and_conditions() {
        let sized = |size| trade_at(time("2024-01-03T14:30:00Z"), 1, "10", size).tick;
        let mut by_size = filter(FilterSpec { min_size: 100, ..FilterSpec::default() });
        assert!(!by_size.admits(&sized(99)) && by_size.admits(&sized(100)));
        assert!(!by_size.admits(&quote_at(1, 1, 0, 99).tick) && by_size.admits(&quote_at(1, 1, 0, 100).tick));
        let mut by_code = filter(FilterSpec { conditions: b"I4".to_vec(), ..FilterSpec::default() });
        assert!(!by_code.admits(&sized(1)), "it has @ alone");
        let mut odd = sized(1);
        if let Event::Trade(trade) = &mut odd.event {
            trade.conditions = Conditions::from_codes(b"@I").unwrap();
        }
        assert!(by_code.admits(&odd));
        let luld = Tick { symbol: symbol(), time: Nanos(1), event: Event::Luld(Luld::default()) };
        assert!(by_code.admits(&luld) && by_size.admits(&luld), "other kinds go out");
        assert!(FilterSpec::default().is_open() && filter(FilterSpec::default()).admits(&odd));
    }

    #[test]
    fn a_move_counts_from_the_last_that_went_out() {
        let mut cents = filter(with_move(Move::Price(price("0.05"))));
        let passed: Vec<bool> = ["10", "10.04", "10.05", "10.09", "10.01", "10"]
            .into_iter()
            .map(|at| cents.admits(&trade(1, 1, at).tick))
            .collect();
        assert_eq!(passed, [true, false, true, false, false, true]);
        let mut percent = filter(with_move(Move::Percent(price("0.5"))));
        let passed: Vec<bool> = ["200", "200.99", "201", "199.995", "199.994"]
            .into_iter()
            .map(|at| percent.admits(&trade(1, 1, at).tick))
            .collect();
        assert_eq!(passed, [true, false, true, true, false]);
        assert!(percent.admits(&of("MSFT", trade(1, 1, "1")).tick), "each symbol for itself");
        assert!(percent.admits(&quote_at(1, 1, 0, 1).tick), "quotes and trades apart");
        assert!(!percent.admits(&quote_at(2, 2, 0, 5).tick), "a quote whose prices stand still");
    }

    #[test]
    fn a_side_that_comes_or_goes_has_moved() {
        let mut any = filter(with_move(Move::Percent(price("50"))));
        let quote = |ask: &str, bid: &str| {
            let quote = Quote { ask_price: price(ask), bid_price: price(bid), ..Quote::default() };
            Tick { symbol: symbol(), time: Nanos(1), event: Event::Quote(quote) }
        };
        let passed: Vec<bool> = [("10", "0"), ("10", "0"), ("10", "9"), ("10.1", "9.1"), ("10", "0")]
            .into_iter()
            .map(|(ask, bid)| any.admits(&quote(ask, bid)))
            .collect();
        assert_eq!(passed, [true, false, true, false, true]);
    }

    #[test]
    fn its_memory_is_bounded_and_beyond_it_all_go_out() {
        let mut two = Filter::new(with_move(Move::Price(price("1"))), 2);
        for name in ["A", "B", "C", "D"] {
            let tick = of(name, trade(1, 1, "10")).tick;
            assert!(two.admits(&tick));
            assert_eq!(two.admits(&tick), name > "B", "{name}");
        }
        assert_eq!(two.last.len(), 2);
    }

    proptest! {
        #[test]
        fn neighbours_that_went_out_are_a_move_apart(cents in prop::collection::vec(1_i64..2_000, 1..60)) {
            let least = 37 * Price::ONE / 100;
            let mut filter = filter(with_move(Move::Price(Price(least))));
            let prices: Vec<i64> = cents.iter().map(|cent| cent * Price::ONE / 100).collect();
            let mut last: Option<i64> = None;
            for units in prices {
                let mut tick = trade(1, 1, "1").tick;
                if let Event::Trade(trade) = &mut tick.event {
                    trade.price = Price(units);
                }
                let far = last.is_none_or(|last: i64| (units - last).abs() >= least);
                prop_assert_eq!(filter.admits(&tick), far);
                if far {
                    last = Some(units);
                }
            }
        }
    }
}
