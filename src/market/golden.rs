//! The golden examples of `docs/FORMATS.md`, for the tests of all modules.
//!
//! [`block`] finds a fenced block by its name and gives its bytes. The tests here hold
//! sections 1 to 3 against the code.

use super::*;

const FORMATS: &str = include_str!("../../docs/FORMATS.md");

/// The bytes of the block that opens with ```` ```golden NAME ````.
///
/// Blanks and line ends between hex digits do not count; `#` begins a remark.
///
/// # Panics
/// When there is not exactly one such block, or when it holds what is not hex.
#[must_use]
pub(crate) fn block(name: &str) -> Vec<u8> {
    block_in(FORMATS, name)
}

/// The text of the block that opens with ```` ```golden-text NAME ````: one line.
///
/// # Panics
/// When there is not exactly one such block.
#[must_use]
pub(crate) fn text(name: &str) -> &'static str {
    lines_of(FORMATS, &format!("```golden-text {name}")).into_iter().next().unwrap_or_default()
}

fn lines_of<'a>(text: &'a str, opening: &str) -> Vec<&'a str> {
    let mut blocks = text.lines().enumerate().filter(|(_, line)| line.trim_end() == opening);
    let (at, _) = blocks.next().unwrap_or_else(|| panic!("docs/FORMATS.md has no block `{opening}`"));
    assert!(blocks.next().is_none(), "docs/FORMATS.md has two blocks `{opening}`");
    text.lines().skip(at + 1).take_while(|line| !line.starts_with("```")).collect()
}

fn block_in(text: &str, name: &str) -> Vec<u8> {
    let opening = format!("```golden {name}");
    let lines = lines_of(text, &opening);
    let digits: String =
        lines.iter().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2) && digits.is_ascii(), "half a byte in the block `{opening}`");
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).unwrap();
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair} in `{opening}` is not hex"))
        })
        .collect()
}

/// The ticks of section 1, by the names of their blocks.
#[must_use]
pub(crate) fn ticks() -> Vec<(&'static str, Tick)> {
    let mut all = trades_and_bars();
    all.extend(others());
    all
}

fn tick(symbol: &str, time: &str, event: Event) -> Tick {
    Tick { symbol: symbol.parse().unwrap(), time: Nanos::parse(time.as_bytes()).unwrap(), event }
}

fn price(text: &str) -> Price {
    Price::parse(text.as_bytes()).unwrap()
}

fn conditions(codes: &str) -> Conditions {
    Conditions::from_codes(codes.as_bytes()).unwrap()
}

fn trades_and_bars() -> Vec<(&'static str, Tick)> {
    let trade = Trade {
        id: Some(96_921),
        exchange: Exchange(b'D'),
        price: price("126.55"),
        size: 1,
        conditions: conditions("@I"),
        tape: SipTape::C,
    };
    let unnumbered = Trade { price: price("363.0001"), size: 100, ..Trade::default() };
    let quote = Quote {
        ask_exchange: Exchange(b'Q'),
        ask_price: price("87.68"),
        ask_size: 4,
        bid_exchange: Exchange(b'U'),
        bid_price: price("87.66"),
        bid_size: 1,
        conditions: conditions("R"),
        tape: SipTape::C,
    };
    let minute = Bar {
        open: price("388.985"),
        high: price("389.13"),
        low: price("388.975"),
        close: price("389.12"),
        volume: 49_378,
        trades: 461,
        vwap: Some(price("389.062639")),
        updated: false,
    };
    let day = Bar {
        open: price("170.16"),
        high: price("172.3"),
        low: price("169.26"),
        close: price("172.26"),
        volume: 25_555_934,
        ..Bar::default()
    };
    vec![
        ("canonical-trade", tick("AAPL", "2021-02-22T15:51:44.208Z", Event::Trade(trade))),
        (
            "canonical-trade-unnumbered",
            tick("BRK.B", "2024-01-03T14:30:00.000000001Z", Event::Trade(unnumbered)),
        ),
        ("canonical-quote", tick("AMD", "2021-02-22T15:51:45.335689322Z", Event::Quote(quote))),
        ("canonical-minute-bar", tick("SPY", "2021-02-22T19:15:00Z", Event::MinuteBar(minute))),
        ("canonical-day-bar", tick("AAPL", "2018-01-02T05:00:00Z", Event::DayBar(day))),
    ]
}

fn others() -> Vec<(&'static str, Tick)> {
    let status = Status {
        status_code: "H".into(),
        status_message: "Trading Halt".into(),
        reason_code: "T12".into(),
        reason_message: "".into(),
        tape: SipTape::C,
    };
    let luld =
        Luld { limit_up: price("3.24"), limit_down: price("2.65"), indicator: Code(b'B'), tape: SipTape::C };
    let correction = Correction {
        exchange: Exchange(b'M'),
        original_id: 52_983_525_033_527,
        original_price: price("39.1582"),
        original_size: 440_000,
        original_conditions: conditions(" 7"),
        corrected_id: 52_983_525_034_326,
        corrected_price: price("39.1809"),
        corrected_size: 440_000,
        corrected_conditions: conditions(" 7"),
        tape: SipTape::B,
    };
    let cancel = Cancel {
        id: 465,
        exchange: Exchange(b'D'),
        price: price("1.5"),
        size: 10,
        error: false,
        tape: SipTape::C,
    };
    vec![
        ("canonical-status", tick("AAPL", "2024-01-03T15:00:00Z", Event::Status(Box::new(status)))),
        ("canonical-luld", tick("IONM", "2024-01-03T15:00:00.5Z", Event::Luld(luld))),
        (
            "canonical-correction",
            tick("EEM", "2024-01-03T16:00:00Z", Event::Correction(Box::new(correction))),
        ),
        ("canonical-cancel", tick("GOOGL", "2024-01-03T16:00:01Z", Event::Cancel(cancel))),
    ]
}

mod tests {
    use sha2::Digest as _;

    use super::*;

    fn batch_7() -> RequestKey {
        RequestKey::of_idempotency_key("acct_1", "batch-7")
    }

    fn row(tick: Tick, received: i64, index: u32) -> Row {
        Row { tick, origin: Origin { received: Nanos(received), index, request: batch_7() } }
    }

    #[test]
    fn canonical_bytes_of_every_kind() {
        let mut kinds = std::collections::BTreeSet::new();
        for (name, tick) in ticks() {
            assert_eq!(canonical::bytes(&tick), block(name), "{name}");
            kinds.insert(tick.kind());
        }
        assert!(Kind::ALL.iter().all(|kind| kinds.contains(kind)), "every kind has an example");
    }

    #[test]
    fn request_keys() {
        assert_eq!(batch_7().0[..], block("request-key-named"));
        let body = RequestKey::of_body("acct_1", blake3::hash(b"[]").as_bytes());
        assert_eq!(body.0[..], block("request-key-body"));
        let digest: [u8; 32] = sha2::Sha256::digest(b"[]").into();
        let lines = RequestKey::of_lines("acct_1", "file", &digest);
        assert_eq!(lines.0[..], block("request-key-lines"));
        let stream = RequestKey::of_stream("acct_1", "feed-a");
        assert_eq!(stream.0[..], block("request-key-stream"));
    }

    #[test]
    fn tick_ids() {
        let ticks = ticks();
        for kind in ["trade", "minute-bar", "correction", "cancel", "quote"] {
            let name = format!("canonical-{kind}");
            let (_, tick) = ticks.iter().find(|(named, _)| *named == name).unwrap();
            let id = row(tick.clone(), 5, 3).id();
            assert_eq!(id.0[..], block(&format!("tick-id-{kind}")), "{kind}");
        }
    }

    #[test]
    fn total_order_of_five_trades() {
        let trade = |exchange: u8, id| Trade {
            id,
            exchange: Exchange(exchange),
            price: price("100"),
            size: 10,
            conditions: conditions("@"),
            tape: SipTape::C,
        };
        let at = "2024-01-03T14:30:00Z";
        let aapl = |time, trade| tick("AAPL", time, Event::Trade(trade));
        let mut rows = [
            row(aapl(at, trade(b'Q', None)), 2_000_000, 0),
            row(aapl(at, trade(b'D', Some(90))), 1_000_000, 1),
            row(aapl("2024-01-03T14:29:59.999999999Z", trade(b'Q', Some(90))), 3_000_000, 2),
            row(aapl(at, trade(b'Q', None)), 1_000_000, 4),
            row(aapl(at, trade(b'Q', Some(7))), 9_000_000, 3),
        ];
        rows.sort_by_key(Row::place);
        let ids: Vec<u8> = rows.iter().flat_map(|row| row.id().0).collect();
        assert_eq!(ids, block("total-order"));
    }

    #[test]
    fn a_block_is_found_by_its_whole_name_and_read_without_remarks() {
        let text = "x\n```golden ab\n00 ff # 11\n  7f\n```\n```golden abc\n01\n```\n";
        assert_eq!(block_in(text, "ab"), [0, 0xff, 0x7f]);
        assert_eq!(block_in(text, "abc"), [1]);
        for (text, name) in [
            (text, "a"),
            ("```golden a\n0\n```", "a"),
            ("```golden a\nzz\n```", "a"),
            ("```golden a\n```\n```golden a\n```", "a"),
        ] {
            assert!(std::panic::catch_unwind(|| block_in(text, name)).is_err(), "{text}");
        }
    }
}
