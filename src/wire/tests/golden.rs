//! The bytes that SDKs read: keys, their order, and how values are written.

use super::{from_json, from_msgpack};
use crate::wire::{Mark, json, msgpack};

/// A message of the stream, and the object of history.
const GOLDEN: &[(&str, &str)] = &[
    (
        r#"{"T":"t","S":"AAPL","i":41,"x":"V","p":189.25,"s":100,"c":["@","I"],"z":"C","t":"2024-01-03T14:30:00.5Z"}"#,
        r#"{"t":"2024-01-03T14:30:00.5Z","x":"V","p":189.25,"s":100,"c":["@","I"],"i":41,"z":"C"}"#,
    ),
    (
        r#"{"T":"q","S":"AMD","bx":"Q","bp":0,"bs":0,"ax":" ","ap":138.000000001,"as":4,"c":["R"],"z":"C","t":"2024-01-03T14:30:00.123456789Z"}"#,
        r#"{"t":"2024-01-03T14:30:00.123456789Z","ax":" ","ap":138.000000001,"as":4,"bx":"Q","bp":0,"bs":0,"c":["R"],"z":"C"}"#,
    ),
    (
        r#"{"T":"b","S":"SPY","o":470.5,"h":471,"l":470.25,"c":470.75,"v":49378,"n":461,"vw":470.612345,"t":"2024-01-03T14:30:00Z"}"#,
        r#"{"t":"2024-01-03T14:30:00Z","o":470.5,"h":471,"l":470.25,"c":470.75,"v":49378,"n":461,"vw":470.612345}"#,
    ),
    (
        r#"{"T":"u","S":"SPY","o":1,"h":1,"l":1,"c":1,"v":7,"t":"2024-01-03T14:30:00Z"}"#,
        r#"{"t":"2024-01-03T14:30:00Z","o":1,"h":1,"l":1,"c":1,"v":7,"n":0,"vw":null}"#,
    ),
    (
        r#"{"T":"d","S":"SPY","o":1,"h":2,"l":1,"c":2,"v":18446744073709551615,"n":2,"vw":1.5,"t":"2024-01-03T05:00:00Z"}"#,
        r#"{"t":"2024-01-03T05:00:00Z","o":1,"h":2,"l":1,"c":2,"v":18446744073709551615,"n":2,"vw":1.5}"#,
    ),
    (
        r#"{"T":"s","S":"AAPL","sc":"H","sm":"Halt \"now\"\n","rc":"T12","rm":"ünknown\u0001","t":"2024-01-03T14:30:00Z","z":"C"}"#,
        r#"{"t":"2024-01-03T14:30:00Z","sc":"H","sm":"Halt \"now\"\n","rc":"T12","rm":"ünknown\u0001","z":"C"}"#,
    ),
    (
        r#"{"T":"l","S":"IONM","u":3.24,"d":2.65,"i":"B","t":"2024-01-03T14:30:00Z","z":"C"}"#,
        r#"{"t":"2024-01-03T14:30:00Z","u":3.24,"d":2.65,"i":"B","z":"C"}"#,
    ),
    (
        r#"{"T":"x","S":"GOOGL","i":465,"x":"D","p":1.5,"s":10,"a":"E","z":"C","t":"2024-01-03T14:30:00Z"}"#,
        r#"{"t":"2024-01-03T14:30:00Z","i":465,"x":"D","p":1.5,"s":10,"a":"E","z":"C"}"#,
    ),
    (
        r#"{"T":"c","S":"EEM","x":"M","oi":9223372036854775807,"op":39.15,"os":4294967295,"oc":[" ","7"],"ci":8,"cp":39.25,"cs":2,"cc":["\"","\\"],"z":"B","t":"2024-01-03T14:30:00Z"}"#,
        r#"{"t":"2024-01-03T14:30:00Z","x":"M","oi":9223372036854775807,"op":39.15,"os":4294967295,"oc":[" ","7"],"ci":8,"cp":39.25,"cs":2,"cc":["\"","\\"],"z":"B"}"#,
    ),
];

#[test]
fn json_is_written_as_it_is_read() {
    for (stream, history) in GOLDEN {
        let tick = from_json(stream).unwrap_or_else(|refusal| panic!("{refusal} in {stream}"));
        let mut out = Vec::new();
        json::write_stream(&tick, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), *stream);
        let mut out = Vec::new();
        json::write_history(&tick, None, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), *history);
    }
}

#[test]
fn a_marked_trade_says_so_at_its_end() {
    let tick = from_json(r#"{"T":"t","S":"A","p":1,"s":2,"t":"2024-01-03T14:30:00Z"}"#).unwrap();
    for (mark, text) in
        [(Mark::Canceled, "canceled"), (Mark::Incorrect, "incorrect"), (Mark::Corrected, "corrected")]
    {
        let mut out = Vec::new();
        json::write_history(&tick, Some(mark), &mut out);
        let expected = format!(r#"{{"t":"2024-01-03T14:30:00Z","x":" ","p":1,"s":2,"c":[],"u":"{text}"}}"#);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn a_line_ends_with_a_line_feed() {
    let (stream, _) = GOLDEN[0];
    let mut out = Vec::new();
    json::write_line(&from_json(stream).unwrap(), &mut out);
    assert_eq!(out, format!("{stream}\n").as_bytes());
}

/// The first golden trade, byte by byte.
const TRADE: &[&str] = &[
    "89",
    "a154 a174",
    "a153 a44141504c",
    "a169 29",
    "a178 a156",
    "a170 cb4067a80000000000",
    "a173 64",
    "a163 92 a140 a149",
    "a17a a143",
    "a174 d7ff 7735940065956f68",
];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|character| !character.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn msgpack_has_kind_first_whole_sizes_and_timestamps() {
    let tick = from_json(GOLDEN[0].0).unwrap();
    let mut out = Vec::new();
    rmp::encode::write_array_len(&mut out, 1).unwrap();
    msgpack::write_stream(&tick, &mut out);
    let trade = unhex(&TRADE.concat());
    assert_eq!(out, [&[0x91], trade.as_slice()].concat());
    assert_eq!(from_msgpack(&trade), Ok(tick));
}

#[test]
fn msgpack_carries_what_json_does() {
    for (stream, _) in GOLDEN {
        let tick = from_json(stream).unwrap();
        let mut out = Vec::new();
        msgpack::write_stream(&tick, &mut out);
        assert_eq!(from_msgpack(&out), Ok(tick), "{stream}");
    }
}

#[test]
fn msgpack_times_and_numbers_in_their_other_forms() {
    let form = |time: &str, price: &str, size: &str| {
        unhex(&format!("85 a154a174 a153a141 a174 {time} a170 {price} a173 {size}"))
    };
    let good = [
        ("d6ff 65956f68", "cd00bd", "64", "2024-01-03T14:30:00Z", "189"),
        ("c70cff 1dcd6500 0000000065956f68", "ca433d4000", "cc64", "2024-01-03T14:30:00.5Z", "189.25"),
        (
            "b8 323032342d30312d30335431343a33303a30302e3132335a",
            "00",
            "ce00000064",
            "2024-01-03T14:30:00.123Z",
            "0",
        ),
        ("d6ff 00000000", "d0ff", "cb4059000000000000", "1970-01-01T00:00:00Z", "-1"),
        ("d6ff 00000000", "ca3dcccccd", "64", "1970-01-01T00:00:00Z", "0.1"),
        ("d6ff 00000000", "d1ff00", "d164 00", "1970-01-01T00:00:00Z", "-256"),
    ];
    for (time, price, size, expected_time, expected_price) in good {
        let tick =
            from_msgpack(&form(time, price, size)).unwrap_or_else(|refusal| panic!("{refusal}: {time}"));
        assert_eq!(tick.time.to_string(), expected_time);
        let crate::market::Event::Trade(trade) = tick.event else { panic!("a trade") };
        assert_eq!(trade.price.to_string(), expected_price);
        assert!(trade.size == 100 || size == "d164 00", "{size}");
    }
}
