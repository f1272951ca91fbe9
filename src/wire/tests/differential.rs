//! serde_json as the judge: what is JSON to one is JSON to the other, and says the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::value::RawValue;

use super::strategies;
use crate::market::{Event, Nanos, Price};
use crate::wire::json;

/// As deep as serde_json goes.
const DEPTH: usize = 127;

/// The same bytes, read by both.
fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let ours = json::read_tick(bytes, DEPTH);
    let text = String::from_utf8_lossy(bytes);
    let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
    // A number beyond a double stops serde_json before it has seen the rest; that is no matter of grammar.
    if theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
        return Ok(());
    }
    prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?} {:?}", text, ours, theirs);
    if let Ok(Ok(tick)) = ours {
        let raw: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes).unwrap();
        let string = |key: &str| serde_json::from_str::<String>(raw[key].get()).unwrap();
        prop_assert_eq!(tick.symbol.as_str(), string("S").to_ascii_uppercase());
        prop_assert_eq!(tick.time, Nanos::parse(string("t").as_bytes()).unwrap());
        if let Event::Trade(trade) = &tick.event {
            prop_assert_eq!(trade.price, Price::parse(raw["p"].get().as_bytes()).unwrap());
            let size: f64 = serde_json::from_str(raw["s"].get()).unwrap();
            prop_assert_eq!(f64::from(trade.size), size);
            let codes: Option<Vec<String>> =
                raw.get("c").and_then(|codes| serde_json::from_str(codes.get()).unwrap());
            let codes = codes.unwrap_or_default().concat();
            prop_assert_eq!(trade.conditions.codes(), codes.as_bytes());
        }
    }
    Ok(())
}

/// JSON of any shape, as text with white space where it may be.
fn any_json() -> impl Strategy<Value = String> {
    let space = || select(&["", "", " ", "\n\t"][..]);
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?";
    let string = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
    let escapes = "\"(\\\\[\"\\\\/bfnrtu]|[a-zA-Z0-9]|\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude00){0,6}\"";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number.prop_map(|text| text),
        string,
        escapes.prop_map(|text| text),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let pair = (inner.clone(), "[a-zA-Z]{1,2}", space());
        prop_oneof![
            (proptest::collection::vec(inner, 0..4), space())
                .prop_map(|(values, space)| format!("[{space}{}{space}]", values.join(&format!("{space},")))),
            proptest::collection::vec(pair, 0..4).prop_map(|pairs| {
                let pairs: Vec<String> = pairs
                    .into_iter()
                    .map(|(value, key, space)| format!("{space}\"{key}\"{space}:{space}{value}"))
                    .collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    })
}

/// A tick as text, with a few bytes changed.
fn damaged_tick() -> impl Strategy<Value = Vec<u8>> {
    let change =
        (any::<Index>(), 0_u8..3, select(&b"{}[]:,\"\\0123456789.-+eEtTsSpcnul \n\x01\x80\xc3\xff"[..]));
    (strategies::tick(), proptest::collection::vec(change, 0..3)).prop_map(|(tick, changes)| {
        let mut bytes = Vec::new();
        json::write_stream(&tick, &mut bytes);
        for (at, what, byte) in changes {
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn on_any_json(text in any_json()) {
        agree(text.as_bytes())?;
    }

    #[test]
    fn on_ticks_with_damage(bytes in damaged_tick()) {
        agree(&bytes)?;
    }

    #[test]
    fn on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        agree(&bytes)?;
    }
}

#[test]
fn on_depth() {
    for depth in [1, 126, 127, 128, 200] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        assert_eq!(json::read_tick(text.as_bytes(), DEPTH).is_ok(), theirs.is_ok(), "{depth}");
    }
}
