//! Which price fields of a bar a trade may update, by its sale conditions.
//!
//! The table follows the market data FAQ of Alpaca, whose rules are those of the consolidated
//! tape plans. The strictest condition of a trade wins. A code that the table does not name
//! restricts nothing.

use crate::market::{SipTape, Trade};

use super::Period;

/// Whether a trade may set the open and close of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenClose {
    /// It may not.
    Never,
    /// Only where no trade before it has set them.
    IfFirst,
    /// It may.
    Always,
}

/// What a trade may update in a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updates {
    /// Open and close.
    pub open_close: OpenClose,
    /// High and low.
    pub high_low: bool,
    /// Volume and number of trades.
    pub volume: bool,
}

impl Updates {
    const ALL: Self = Self { open_close: OpenClose::Always, high_low: true, volume: true };
    const VOLUME: Self = Self { open_close: OpenClose::Never, high_low: false, volume: true };
    const NOTHING: Self = Self { open_close: OpenClose::Never, high_low: false, volume: false };
    /// High, low and volume; open and close where nothing came before.
    const LATE: Self = Self { open_close: OpenClose::IfFirst, high_low: true, volume: true };
    /// Prices without volume.
    const PRICE: Self = Self { open_close: OpenClose::Always, high_low: true, volume: false };

    /// What both allow.
    fn and(self, other: Self) -> Self {
        Self {
            open_close: self.open_close.min(other.open_close),
            high_low: self.high_low && other.high_low,
            volume: self.volume && other.volume,
        }
    }
}

/// The tapes on which a letter has the meaning of a row.
#[derive(Clone, Copy)]
enum On {
    Any,
    AOrB,
}

struct Rule {
    codes: &'static [u8],
    on: On,
    minute: Updates,
    day: Updates,
}

/// The conditions that restrict. Not listed, because they update everything: regular sales
/// (blank, `@`), `A D E F K L O S X Y 1 5 6`, and `B` on tape C (a bunched trade).
const RULES: &[Rule] = &[
    // Cash, price variation, odd lot, next day, seller, extended hours out of sequence,
    // contingent, average price, qualified contingent.
    Rule { codes: b"CHINRUVW7", on: On::Any, minute: Updates::VOLUME, day: Updates::VOLUME },
    // Average price; on tape C the letter is a bunched trade.
    Rule { codes: b"B", on: On::AOrB, minute: Updates::VOLUME, day: Updates::VOLUME },
    // Extended hours: their minutes show their prices, the day does not.
    Rule { codes: b"T", on: On::Any, minute: Updates::ALL, day: Updates::VOLUME },
    // Bunched sold, prior reference price, sold out of sequence, derivatively priced.
    Rule { codes: b"GPZ4", on: On::Any, minute: Updates::VOLUME, day: Updates::LATE },
    // Official close and open repeat what the auction's own trade has said.
    Rule { codes: b"MQ", on: On::Any, minute: Updates::NOTHING, day: Updates::NOTHING },
    // Corrected consolidated close.
    Rule { codes: b"9", on: On::Any, minute: Updates::NOTHING, day: Updates::PRICE },
];

/// What a trade may update in a bar of a period.
#[must_use]
pub fn updates(trade: &Trade, period: Period) -> Updates {
    let a_or_b = matches!(trade.tape, SipTape::A | SipTape::B);
    trade.conditions.codes().iter().fold(Updates::ALL, |allowed, code| {
        let mut rules = RULES.iter().filter(|rule| match rule.on {
            On::Any => true,
            On::AOrB => a_or_b,
        });
        rules.find(|rule| rule.codes.contains(code)).map_or(allowed, |rule| {
            allowed.and(match period {
                Period::Minute => rule.minute,
                Period::Day => rule.day,
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::{Conditions, meta};

    /// `o` open and close, `f` only if first, `h` high and low, `v` volume, `-` nothing.
    fn allowed(codes: &[u8], tape: SipTape, period: Period) -> String {
        let trade = Trade { conditions: Conditions::from_codes(codes).unwrap(), tape, ..Trade::default() };
        let updates = updates(&trade, period);
        let mut text = String::new();
        text.push_str(match updates.open_close {
            OpenClose::Always => "o",
            OpenClose::IfFirst => "f",
            OpenClose::Never => "",
        });
        text.push_str(if updates.high_low { "h" } else { "" });
        text.push_str(if updates.volume { "v" } else { "" });
        if text.is_empty() { "-".to_owned() } else { text }
    }

    #[test]
    fn every_condition_of_every_tape() {
        // Code, then minute and day on tapes A and B, then minute and day on tape C.
        let expected = "\
            ' ohv ohv ohv ohv|@ ohv ohv ohv ohv|A ohv ohv ohv ohv|B v v ohv ohv|C v v v v|D ohv ohv ohv ohv|\
            E ohv ohv ohv ohv|F ohv ohv ohv ohv|G v fhv v fhv|H v v v v|I v v v v|K ohv ohv ohv ohv|\
            L ohv ohv ohv ohv|M - - - -|N v v v v|O ohv ohv ohv ohv|P v fhv v fhv|Q - - - -|R v v v v|\
            S ohv ohv ohv ohv|T ohv v ohv v|U v v v v|V v v v v|W v v v v|X ohv ohv ohv ohv|\
            Y ohv ohv ohv ohv|Z v fhv v fhv|1 ohv ohv ohv ohv|4 v fhv v fhv|5 ohv ohv ohv ohv|\
            6 ohv ohv ohv ohv|7 v v v v|8 ohv ohv ohv ohv|9 - oh - oh";
        let mut seen = Vec::new();
        for row in expected.split('|') {
            let (code, rest) = row.split_at(1);
            let code = if code == "'" { b" " } else { code.as_bytes() };
            let got = [SipTape::A, SipTape::B, SipTape::C].map(|tape| {
                [Period::Minute, Period::Day].map(|period| allowed(code, tape, period)).join(" ")
            });
            assert_eq!(got[0], got[1], "{row}");
            assert_eq!(format!("{} {}", got[0], got[2]), rest.trim_start(), "{row}");
            seen.extend_from_slice(code);
        }
        for tape in [SipTape::A, SipTape::C] {
            for (code, name) in meta::trade_conditions(tape).unwrap() {
                assert!(seen.contains(code), "{name} has no rule");
            }
        }
    }

    #[test]
    fn the_strictest_condition_wins() {
        let cases: &[(&[u8], Period, &str)] = &[
            (b"", Period::Minute, "ohv"),
            (b"@FTI", Period::Minute, "v"),
            (b"FT", Period::Day, "v"),
            (b" Z", Period::Day, "fhv"),
            (b"Z9", Period::Day, "fh"),
            (b"9Z", Period::Day, "fh"),
            (b"4I", Period::Day, "v"),
            (b"I9", Period::Day, "-"),
            (b"OM", Period::Day, "-"),
            (b"T4", Period::Minute, "v"),
        ];
        for (codes, period, expected) in cases {
            assert_eq!(allowed(codes, SipTape::C, *period), *expected, "{codes:?} {period:?}");
        }
        let unknown_tape = [SipTape::ABSENT, SipTape::parse(b"O").unwrap()];
        assert!(unknown_tape.iter().all(|tape| allowed(b"B", *tape, Period::Minute) == "ohv"));
    }
}
