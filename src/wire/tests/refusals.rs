//! What is no good tick: field, value, why. And what is tolerated.

use super::{from_json, from_msgpack};
use crate::market::{Conditions, Event, Exchange, SipTape};
use crate::wire::{Refusal, json, msgpack};

const TRADE: &str =
    r#"{"T":"t","S":"AAPL","i":1,"x":"V","p":1.5,"s":10,"c":["@"],"z":"C","t":"2024-01-03T14:30:00Z"}"#;
const QUOTE: &str =
    r#"{"T":"q","S":"A","ax":"V","ap":2,"as":1,"bx":"V","bp":1,"bs":1,"c":["R"],"t":"2024-01-03T14:30:00Z"}"#;
const BAR: &str =
    r#"{"T":"b","S":"A","o":2,"h":3,"l":1,"c":2,"v":1,"n":1,"vw":2,"t":"2024-01-03T14:30:00Z"}"#;
const STATUS: &str =
    r#"{"T":"s","S":"A","sc":"H","sm":"Halt","rc":"T1","rm":"News","t":"2024-01-03T14:30:00Z","z":"C"}"#;
const CANCEL: &str =
    r#"{"T":"x","S":"A","i":1,"x":"V","p":2,"s":1,"a":"C","z":"C","t":"2024-01-03T14:30:00Z"}"#;
const CORRECTION: &str = r#"{"T":"c","S":"A","x":"V","oi":1,"op":2,"os":1,"oc":null,"ci":3,"cp":4,"cs":1,"cc":["I"],"t":"2024-01-03T14:30:00Z"}"#;

fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} in {text}");
    text.replacen(from, to, 1)
}

/// Text, what is changed in it, and the field, value and reason of the refusal.
const REFUSED: &[(&str, &str, &str, &str, &str, &str)] = &[
    (TRADE, "\"T\":\"t\",", "", "T", "", "is missing"),
    (TRADE, "\"T\":\"t\"", "\"T\":\"n\"", "T", "\"n\"", "is not a kind of tick"),
    (TRADE, "\"T\":\"t\"", "\"T\":\"tt\"", "T", "\"tt\"", "is not a kind of tick"),
    (TRADE, "\"T\":\"t\"", "\"T\":7", "T", "7", "is not a kind of tick"),
    (TRADE, "\"S\":\"AAPL\",", "", "S", "", "is missing"),
    (TRADE, "AAPL", "A B", "S", "\"A B\"", "is not a symbol"),
    (TRADE, "\"AAPL\"", "7", "S", "7", "is not a text"),
    (TRADE, "\"AAPL\"", "null", "S", "null", "is not a text"),
    (TRADE, "\"p\":1.5,", "", "p", "", "is missing"),
    (TRADE, "\"p\":1.5", "\"p\":\"1.5\"", "p", "\"1.5\"", "is not a number"),
    (TRADE, "\"p\":1.5", "\"p\":null", "p", "null", "is not a number"),
    (TRADE, "\"p\":1.5", "\"p\":1.0000000001", "p", "1.0000000001", "has more than nine decimals"),
    (TRADE, "\"p\":1.5", "\"p\":1e12", "p", "1e12", "is outside ±9223372036.854775807"),
    (TRADE, "\"s\":10", "\"s\":10.5", "s", "10.5", "has a fraction"),
    (TRADE, "\"s\":10", "\"s\":-10", "s", "-10", "is below zero"),
    (TRADE, "\"s\":10", "\"s\":4294967296", "s", "4294967296", "is too large"),
    (TRADE, "\"s\":10", "\"s\":true", "s", "true", "is not a number"),
    (TRADE, "\"i\":1", "\"i\":9223372036854775808", "i", "9223372036854775808", "is too large"),
    (TRADE, "\"i\":1", "\"i\":\"1\"", "i", "\"1\"", "is not a number"),
    (TRADE, "\"x\":\"V\"", "\"x\":\"VV\"", "x", "\"VV\"", "is not one printable ASCII character"),
    (TRADE, "\"x\":\"V\"", "\"x\":\"\"", "x", "\"\"", "is not one printable ASCII character"),
    (TRADE, "\"x\":\"V\"", "\"x\":\"é\"", "x", "\"é\"", "is not one printable ASCII character"),
    (TRADE, "\"z\":\"C\"", "\"z\":\"D\"", "z", "\"D\"", "is not one of A, B, C, N, O"),
    (TRADE, "[\"@\"]", "\"@\"", "c", "\"@\"", "is not an array"),
    (TRADE, "[\"@\"]", "[\"@\",7]", "c", "[\"@\",7]", "is not one printable ASCII character"),
    (TRADE, "[\"@\"]", "[[\"@\"]]", "c", "[[\"@\"]]", "is not one printable ASCII character"),
    (TRADE, "[\"@\"]", "[\"@\",\"TT\"]", "c", "[\"@\",\"TT\"]", "is not one printable ASCII character"),
    (
        TRADE,
        "[\"@\"]",
        "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"]",
        "c",
        "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"]",
        "has more than seven conditions",
    ),
    (TRADE, "\"2024-01-03T14:30:00Z\"", "\"2024-01-03\"", "t", "\"2024-01-03\"", "is not a time"),
    (
        TRADE,
        "30:00Z",
        "30:00.1234567891Z",
        "t",
        "\"2024-01-03T14:30:00.1234567891Z\"",
        "is finer than a nanosecond",
    ),
    (TRADE, "\"2024-01-03T14:30:00Z\"", "1704292200000000000", "t", "1704292200000000000", "is not a text"),
    (TRADE, "\"i\":1", "\"u\":\"corrected\"", "u", "\"corrected\"", "is not a field of this kind of tick"),
    (TRADE, "\"i\":1", "\"price\":1", "price", "1", "is not a field of this kind of tick"),
    (TRADE, "\"i\":1", "\"\":1", "", "1", "is not a field of this kind of tick"),
    (TRADE, "\"i\":1", "\"s\":1", "s", "10", "is given twice"),
    (TRADE, "\"i\":1", "\"T\":\"t\"", "T", "\"t\"", "is given twice"),
    (QUOTE, "\"bs\":1,", "", "bs", "", "is missing"),
    (QUOTE, "\"as\":1", "\"as\":1.5", "as", "1.5", "has a fraction"),
    (QUOTE, "\"T\":\"q\"", "\"p\":1,\"T\":\"q\"", "p", "1", "is not a field of this kind of tick"),
    (BAR, "\"v\":1", "\"v\":1.5", "v", "1.5", "has a fraction"),
    (BAR, "\"v\":1", "\"v\":18446744073709551616", "v", "18446744073709551616", "is too large"),
    (BAR, "\"n\":1", "\"z\":\"C\"", "z", "\"C\"", "is not a field of this kind of tick"),
    (BAR, "\"vw\":2", "\"vw\":{\"a\":[1]}", "vw", "{\"a\":[1]}", "is not a number"),
    (STATUS, "\"sc\":\"H\",", "", "sc", "", "is missing"),
    (STATUS, "\"H\"", "false", "sc", "false", "is not a text"),
    (CANCEL, "\"a\":\"C\"", "\"a\":\"X\"", "a", "\"X\"", "is not an action"),
    (CANCEL, "\"a\":\"C\",", "", "a", "", "is missing"),
    (CORRECTION, "\"ci\":3,", "", "ci", "", "is missing"),
    (CORRECTION, "\"oi\":1", "\"oi\":1.25", "oi", "1.25", "has a fraction"),
];

#[test]
fn a_refusal_names_field_value_and_reason() {
    for (text, from, to, field, value, why) in REFUSED {
        let text = with(text, from, to);
        let refusal = from_json(&text).expect_err(&text);
        assert_eq!((&*refusal.field, &*refusal.value, &*refusal.why), (*field, *value, *why), "{text}");
        assert!(!refusal.expected.is_empty(), "{text}");
    }
}

/// The same value as MessagePack.
fn to_msgpack(value: &serde_json::Value, out: &mut Vec<u8>) {
    use rmp::encode;
    match value {
        serde_json::Value::Null => encode::write_nil(out).unwrap(),
        serde_json::Value::Bool(value) => encode::write_bool(out, *value).unwrap(),
        serde_json::Value::Number(number) => {
            if let Some(whole) = number.as_u64() {
                encode::write_uint(out, whole).map(|_| ()).unwrap();
            } else if let Some(whole) = number.as_i64() {
                encode::write_sint(out, whole).map(|_| ()).unwrap();
            } else {
                encode::write_f64(out, number.as_f64().unwrap()).unwrap();
            }
        }
        serde_json::Value::String(text) => encode::write_str(out, text).unwrap(),
        serde_json::Value::Array(values) => {
            encode::write_array_len(out, u32::try_from(values.len()).unwrap()).map(|_| ()).unwrap();
            values.iter().for_each(|value| to_msgpack(value, out));
        }
        serde_json::Value::Object(fields) => {
            encode::write_map_len(out, u32::try_from(fields.len()).unwrap()).map(|_| ()).unwrap();
            for (key, value) in fields {
                encode::write_str(out, key).unwrap();
                to_msgpack(value, out);
            }
        }
    }
}

#[test]
fn msgpack_refuses_the_same_fields() {
    for (text, from, to, field, _, why) in REFUSED {
        // A tree keeps one of two keys, and a double not every digit.
        if *why == "is given twice" || *field == "v" {
            continue;
        }
        let text = with(text, from, to);
        let mut bytes = Vec::new();
        to_msgpack(&serde_json::from_str(&text).unwrap(), &mut bytes);
        let refusal = from_msgpack(&bytes).expect_err(&text);
        assert_eq!((&*refusal.field, &*refusal.why), (*field, *why), "{text}");
    }
}

#[test]
fn msgpack_shows_values_as_text() {
    let cases: &[(&[u8], &str, &str)] = &[
        (b"\x82\xa1T\xa1t\xa1S\xc0", "S", "null"),
        (b"\x82\xa1T\xa1t\xa1S\x93\x01\x02\x03", "S", "bytes 93010203"),
        (b"\x82\xa1T\xa1t\x07\xc0", "7", "null"),
        (b"\x82\xa1T\xa1t\xa1p\xd6\xff\x00\x00\x00\x01", "p", "1970-01-01T00:00:01Z"),
        (b"\x82\xa1T\xa1t\xa1p\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "p", "NaN"),
        (b"\x82\xa1T\xa1t\xa1p\xca\x7f\x80\x00\x00", "p", "inf"),
        (b"\x82\xa1T\xa1t\xa1t\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff", "t", "bytes d7ffffffffffffffffff"),
        (b"\x83\xa1T\xa1t\xa1s\x01\xa1s\x02", "s", "2"),
    ];
    for (bytes, field, value) in cases {
        let refusal = from_msgpack(bytes).unwrap_err();
        assert_eq!((&*refusal.field, &*refusal.value), (*field, *value), "{bytes:02x?}");
    }
}

#[test]
fn what_is_no_object_is_refused_as_a_whole() {
    for (text, value) in [("7", "7"), (" null ", "null"), ("[1, 2]", "[1, 2]"), ("\"t\"", "\"t\"")] {
        let refusal = from_json(text).unwrap_err();
        assert_eq!((&*refusal.field, &*refusal.value, &*refusal.why), ("tick", value, "is not an object"));
    }
    assert_eq!(&*from_json("{}").unwrap_err().field, "T");
    assert_eq!(&*from_msgpack(b"\x07").unwrap_err().value, "7");
}

#[test]
fn values_and_names_in_a_refusal_are_short() {
    let long = "ü".repeat(500);
    for text in [with(TRADE, "AAPL", &long), with(TRADE, "\"i\"", &format!("\"{long}\""))] {
        let refusal = from_json(&text).unwrap_err();
        assert!(
            refusal.value.len() <= Refusal::VALUE_BYTES_MAX
                && refusal.field.len() <= Refusal::VALUE_BYTES_MAX
        );
        assert!(refusal.value.ends_with('…') || refusal.field.ends_with('…'), "{refusal}");
    }
    let text = with(STATUS, "Halt", &"x".repeat(256));
    assert_eq!(&*from_json(&text).unwrap_err().why, "is longer than 255 bytes");
    assert!(from_json(&with(STATUS, "Halt", &"x".repeat(255))).is_ok());
}

#[test]
fn what_may_be_left_out_has_its_default() {
    let tick = from_json(r#"{"T":"t","S":"a","p":1,"s":2.0,"t":"2024-01-03T14:30:00Z"}"#).unwrap();
    assert_eq!(tick.symbol.as_str(), "A");
    let Event::Trade(trade) = tick.event else { panic!("a trade") };
    assert_eq!((trade.id, trade.exchange, trade.size), (None, Exchange::BLANK, 2));
    assert_eq!((trade.conditions, trade.tape), (Conditions::default(), SipTape::ABSENT));
    let nulls =
        r#"{"T":"t","S":"A","p":1,"s":2,"t":"2024-01-03T14:30:00Z","i":null,"x":null,"c":null,"z":null}"#;
    assert_eq!(from_json(nulls).unwrap().event, Event::Trade(trade));
    let bar =
        from_json(r#"{"T":"b","S":"A","o":1,"h":1,"l":1,"c":1,"v":1e2,"t":"2024-01-03T14:30:00Z"}"#).unwrap();
    let Event::MinuteBar(bar) = bar.event else { panic!("a bar") };
    assert_eq!((bar.volume, bar.trades, bar.vwap), (100, 0, None));
    from_json(r#"{"T":"q","S":"A","ap":0,"as":0,"bp":1,"bs":0,"t":"2024-01-03T14:30:00Z"}"#).unwrap();
    from_json(r#"{"T":"s","S":"A","sc":"H","t":"2024-01-03T14:30:00Z"}"#).unwrap();
    from_json(r#"{"T":"l","S":"A","u":1,"d":1,"t":"2024-01-03T14:30:00Z"}"#).unwrap();
}

#[test]
fn keys_come_in_any_order_and_with_escapes() {
    let usual = from_json(TRADE).unwrap();
    let other = r#" {"t":"2024-01-03T14:30:00Z","z":"C","c":["\u0040"],"s":10,"p":15e-1,"x":"\u0056","i":1.0,"\u0053":"\u0041APL","\u0054":"t"} "#;
    assert_eq!(from_json(other).unwrap(), usual);
    let mut bytes = Vec::new();
    to_msgpack(&serde_json::from_str(TRADE).unwrap(), &mut bytes);
    assert_eq!(from_msgpack(&bytes).unwrap(), usual);
}

#[test]
fn what_is_not_well_formed_has_a_position() {
    let cases: &[(&str, usize, &str)] = &[
        ("", 0, "ends in the middle"),
        ("{", 1, "ends in the middle"),
        ("{\"T\":\"t\",}", 9, "a key in quotes is missing"),
        ("{\"T\" 7}", 5, "a colon is missing"),
        ("{\"T\":7 \"S\":1}", 7, "a comma or } is missing"),
        ("[1 2]", 3, "a comma or ] is missing"),
        ("01", 1, "begins with 0"),
        ("1.", 2, "ends in the middle"),
        ("-x", 1, "a digit is missing"),
        ("1e+", 3, "ends in the middle"),
        ("nul", 3, "ends in the middle"),
        ("nulx", 0, "is not a JSON value"),
        ("'t'", 0, "is not a JSON value"),
        ("\"\u{1}\"", 1, "control character"),
        ("\"\\n\u{1}\"", 3, "control character"),
        ("\"\\x\"", 2, "is not an escape"),
        ("\"\\ud800\"", 1, "half of a surrogate pair"),
        ("\"\\udc00\"", 1, "half of a surrogate pair"),
        ("\"\\ud800\\u0041\"", 1, "half of a surrogate pair"),
        ("\"\\u00g0\"", 5, "hexadecimal"),
        ("{} {}", 3, "more follows"),
    ];
    for (text, offset, why) in cases {
        let malformed = json::read_tick(text.as_bytes(), 32).unwrap_err();
        assert_eq!(malformed.offset, *offset, "{text}: {malformed}");
        assert!(malformed.why.contains(why), "{text}: {malformed}");
    }
    assert_eq!(json::read_tick(b"\"\xff\"", 32).unwrap_err().why, "is not UTF-8");
    assert_eq!(json::read_tick(b"\"\\n\xff\"", 32).unwrap_err().why, "the text before is not UTF-8");
    assert_eq!(msgpack::read_tick(b"\xa1\xff", 32).unwrap_err().why, "is not UTF-8");
    assert_eq!(msgpack::read_tick(b"\xc1", 32).unwrap_err().offset, 0);
    assert_eq!(msgpack::read_tick(b"\xc0\xc0", 32).unwrap_err().offset, 1);
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(json::read_tick(nested(8).as_bytes(), 8).is_ok());
    assert_eq!(json::read_tick(nested(9).as_bytes(), 8).unwrap_err().why, "is nested too deep");
    let deep = format!("{{\"T\":\"t\",\"a\":{}}}", nested(8));
    assert_eq!(json::read_tick(deep.as_bytes(), 8).unwrap_err().why, "is nested too deep");
    assert!(msgpack::read_tick(&[&[0x91; 8][..], &[0xc0]].concat(), 8).is_ok());
    assert_eq!(msgpack::read_tick(&[0x91; 9], 8).unwrap_err().why, "is nested too deep");
    assert_eq!(msgpack::read_tick(&[0x81; 1000], 8).unwrap_err().why, "is nested too deep");
}
