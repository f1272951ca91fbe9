//! FAKEPACA: the symbol of the feed of made-up data, which is always open.

use super::{Bar, Conditions, Event, Exchange, Nanos, Price, Quote, SipTape, Symbol, Tick, Trade};

/// The symbol.
pub const FAKEPACA: &[u8] = b"FAKEPACA";

/// Two cents wide, around a price that goes up and down by a dollar.
const MIDDLE: i64 = 133_850_000_000;
const CENT: i64 = 10_000_000;
/// How often there are ticks.
pub const FAKE_EVERY_NANOS: i64 = Nanos::SECOND / 2;

/// The ticks of one moment: a trade, a quote, and after a minute its bar. `number` counts moments.
#[must_use]
pub fn fakepaca(number: u64, now: Nanos) -> Vec<Tick> {
    let Ok(symbol) = Symbol::parse(FAKEPACA) else { return Vec::new() };
    let step = i64::try_from(number % 200).unwrap_or_default();
    let price = |cents: i64| Price(MIDDLE + ((step - 100).abs() + cents) * CENT);
    let exchange = Exchange::parse(b"V").unwrap_or_default();
    let tape = SipTape::parse(b"C").unwrap_or_default();
    let conditions = Conditions::default().with(b"@").unwrap_or_default();
    let size = u32::try_from(1 + number % 97).unwrap_or(1);
    let trade = Trade { id: Some(number), exchange, price: price(0), size, conditions, tape };
    let quote = Quote {
        ask_exchange: exchange,
        ask_price: price(1),
        ask_size: size,
        bid_exchange: exchange,
        bid_price: price(-1),
        bid_size: size,
        conditions: Conditions::default().with(b"R").unwrap_or_default(),
        tape,
    };
    let mut ticks = vec![
        Tick { symbol, time: now, event: Event::Trade(trade) },
        Tick { symbol, time: now, event: Event::Quote(quote) },
    ];
    if now.0 - now.floor(Nanos::MINUTE).0 < FAKE_EVERY_NANOS {
        let bar = Bar {
            open: price(-30),
            high: price(30),
            low: price(-60),
            close: price(0),
            volume: 5_880,
            trades: 120,
            vwap: Some(price(-10)),
            updated: false,
        };
        let time = now.plus(-Nanos::MINUTE).floor(Nanos::MINUTE);
        ticks.push(Tick { symbol, time, event: Event::MinuteBar(bar) });
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_has_ticks_and_every_minute_a_bar() {
        let mut kinds = [0; 3];
        for number in 0..240_u64 {
            let now =
                Nanos(1_700_000_000 * Nanos::SECOND + i64::try_from(number).unwrap() * FAKE_EVERY_NANOS);
            for tick in fakepaca(number, now) {
                match tick.event {
                    Event::Trade(trade) => kinds[0] += usize::from(trade.price.0 > 0 && trade.size > 0),
                    Event::Quote(quote) => kinds[1] += usize::from(quote.bid_price < quote.ask_price),
                    Event::MinuteBar(bar) => kinds[2] += usize::from(bar.low <= bar.high),
                    _ => panic!("another kind"),
                }
            }
        }
        assert_eq!(kinds, [240, 240, 2]);
    }
}
