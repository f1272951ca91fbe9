//! Bodies in pieces: the pieces do not matter, the limits do.

use proptest::prelude::*;
use proptest::sample::select;

use super::strategies;
use crate::wire::{BodyError, BodyReader, Format, ReadLimits, Verdict, json, msgpack};

type Read = Result<(Vec<(u32, Verdict)>, u32), BodyError>;

fn read(format: Format, limits: ReadLimits, pieces: &[&[u8]]) -> Read {
    let mut reader = BodyReader::new(format, limits);
    let mut verdicts = Vec::new();
    for piece in pieces {
        reader.feed(piece, &mut |index, verdict| verdicts.push((index, verdict)))?;
    }
    let count = reader.finish(&mut |index, verdict| verdicts.push((index, verdict)))?;
    Ok((verdicts, count))
}

fn read_whole(format: Format, body: &[u8]) -> Read {
    read(format, ReadLimits::default(), &[body])
}

/// The body cut at these places.
fn pieces<'b>(body: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &body[ends[0]..ends[1]]).collect()
}

const A: &str = r#"{"T":"t","S":"A","p":1,"s":1,"t":"2024-01-03T14:30:00Z"}"#;
const BAD: &str = r#"{"T":"t","S":"A","p":1,"s":1.5,"t":"2024-01-03T14:30:00Z"}"#;

/// Which positions were good.
fn good(read: Read) -> Vec<(u32, bool)> {
    read.unwrap().0.into_iter().map(|(index, verdict)| (index, verdict.is_ok())).collect()
}

#[test]
fn positions_count_every_element() {
    let body = format!(" [ {A} , {BAD},7 ,\n{A}] \n");
    assert_eq!(
        good(read_whole(Format::Json, body.as_bytes())),
        [(0, true), (1, false), (2, false), (3, true)]
    );
    assert_eq!(good(read_whole(Format::Json, b"[]")), []);
}

#[test]
fn positions_of_lines_are_their_numbers() {
    let body = format!("{A}\r\n\n  \n{BAD}\n{A}");
    assert_eq!(good(read_whole(Format::NdJson, body.as_bytes())), [(0, true), (3, false), (4, true)]);
    assert_eq!(read_whole(Format::NdJson, body.as_bytes()).unwrap().1, 5);
    assert_eq!(read_whole(Format::NdJson, b"").unwrap(), (vec![], 0));
}

#[test]
fn msgpack_is_an_array_or_maps_in_a_row() {
    let mut map = Vec::new();
    msgpack::write_stream(&super::from_json(A).unwrap(), &mut map);
    let array = [&[0x93], map.as_slice(), &[0x07], map.as_slice()].concat();
    let expected = [(0, true), (1, false), (2, true)];
    assert_eq!(good(read_whole(Format::MsgPack, &array)), expected);
    assert_eq!(good(read_whole(Format::MsgPack, &array[1..])), expected);
    let long = [&[0xdc, 0, 2], map.as_slice(), map.as_slice()].concat();
    assert_eq!(good(read_whole(Format::MsgPack, &long)), [(0, true), (1, true)]);
    assert_eq!(good(read_whole(Format::MsgPack, &[0x90])), []);
}

#[test]
fn what_cannot_be_read_is_named_by_byte_or_line() {
    type Case = (Format, &'static [u8], u64, Option<u64>, &'static str);
    let cases: &[Case] = &[
        (Format::Json, b"", 0, None, "the body is empty"),
        (Format::Json, b" {}", 1, None, "the body is not an array: [ is missing"),
        (Format::Json, b"[{},", 4, None, "the array is not closed"),
        (Format::Json, b"[", 1, None, "the array is not closed"),
        (Format::Json, b"[{}", 3, None, "the array is not closed"),
        (Format::Json, b"[{},]", 4, None, "is not a JSON value"),
        (Format::Json, b"[{} {}]", 4, None, "a comma or ] is missing behind a tick"),
        (Format::Json, b"[{}]x", 4, None, "more follows behind the array"),
        (Format::Json, b"[{\"a\":", 6, None, "ends in the middle of a value"),
        (Format::NdJson, b"{}\n{]\n{}", 4, Some(2), "a key in quotes is missing in an object"),
        (Format::NdJson, b"{}\n\n{} {}", 7, Some(3), "more follows behind the value"),
        (Format::NdJson, b"{}\n{\"a\"", 7, Some(2), "ends in the middle of a value"),
        (Format::MsgPack, b"", 0, None, "the body is empty"),
        (Format::MsgPack, b"\x92\x80", 2, None, "the array ends before its last tick"),
        (Format::MsgPack, b"\x91\x80\x80", 2, None, "more follows behind the array"),
        (Format::MsgPack, b"\x91\xc1", 1, None, "is a byte that MessagePack never uses"),
        (Format::MsgPack, b"\x80\x81", 2, None, "ends in the middle of a value"),
    ];
    for (format, body, byte, line, why) in cases {
        let expected = BodyError::Malformed { byte: *byte, line: *line, why };
        for pieces in [vec![*body], body.chunks(1).collect()] {
            assert_eq!(read(*format, ReadLimits::default(), &pieces).unwrap_err(), expected, "{body:?}");
        }
    }
    let told = BodyError::Malformed { byte: 4, line: Some(2), why: "x" }.to_string();
    assert_eq!(told, "the body cannot be read at line 2, byte 4: x");
}

#[test]
fn limits_on_ticks_and_on_the_bytes_of_one() {
    let limits = ReadLimits { tick_bytes_max: 100, ticks_max: 2, depth_max: 8 };
    let spaces = " ".repeat(60);
    let long = A.replacen("\"A\"", &format!("{spaces}\"A\""), 1);
    for format in [Format::Json, Format::NdJson] {
        let body = |ticks: &[&str]| match format {
            Format::Json => format!("[{}]", ticks.join(",")),
            _ => ticks.join("\n"),
        };
        for size in [1, 7, 1000] {
            let read = |ticks: &[&str]| {
                let body = body(ticks);
                read(format, limits, &body.as_bytes().chunks(size).collect::<Vec<_>>())
            };
            assert_eq!(read(&[A, A]).unwrap().1, 2);
            assert_eq!(read(&[A, A, A]).unwrap_err(), BodyError::TooManyTicks { ticks_max: 2 });
            assert_eq!(read(&[A, &long]).unwrap_err(), BodyError::TickTooLong { index: 1, bytes_max: 100 });
        }
    }
    let text = [&[0xdb, 0xff, 0xff, 0xff, 0xff], [0x41; 5000].as_slice()].concat();
    let endless = read(Format::MsgPack, limits, &text.chunks(7).collect::<Vec<_>>());
    assert_eq!(endless.unwrap_err(), BodyError::TickTooLong { index: 0, bytes_max: 100 });
}

#[test]
fn a_line_is_given_as_soon_as_it_ends() {
    let mut reader = BodyReader::new(Format::NdJson, ReadLimits::default());
    let mut given = 0;
    let body = format!("{A}\n{A}\n");
    for (at, byte) in body.bytes().enumerate() {
        reader.feed(&[byte], &mut |_, verdict| given += u32::from(verdict.is_ok())).unwrap();
        assert_eq!(given, if at < A.len() { 0 } else { 1 } + u32::from(at + 1 == body.len()), "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pieces_do_not_matter(
        ticks in proptest::collection::vec(strategies::coarse_tick(), 0..12),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        for format in [Format::Json, Format::NdJson, Format::MsgPack] {
            let mut body = Vec::new();
            match format {
                Format::Json => body.push(b'['),
                Format::NdJson => {}
                Format::MsgPack => {
                    rmp::encode::write_array_len(&mut body, u32::try_from(ticks.len()).unwrap()).map(|_| ()).unwrap();
                }
            }
            for (at, tick) in ticks.iter().enumerate() {
                match format {
                    Format::Json => {
                        if at > 0 {
                            body.push(b',');
                        }
                        json::write_stream(tick, &mut body);
                    }
                    Format::NdJson => json::write_line(tick, &mut body),
                    Format::MsgPack => msgpack::write_stream(tick, &mut body),
                }
            }
            if format == Format::Json {
                body.push(b']');
            }
            let (verdicts, count) = read(format, ReadLimits::default(), &pieces(&body, &cuts)).unwrap();
            prop_assert_eq!(count as usize, ticks.len());
            let read_back: Vec<_> = verdicts.into_iter().map(|(_, verdict)| verdict.unwrap()).collect();
            prop_assert_eq!(&read_back, &ticks);
        }
    }

    #[test]
    fn any_bytes_in_any_pieces_are_answered_alike(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::collection::vec(select(&b"[]{},:\"\\tTSpxu0189.-e \n\r\x81\x91\xa1\xc0\xcb\xd7\xff"[..]), 0..60),
        ],
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        for format in [Format::Json, Format::NdJson, Format::MsgPack] {
            let whole = read_whole(format, &body);
            prop_assert_eq!(read(format, ReadLimits::default(), &pieces(&body, &cuts)), whole);
        }
    }
}
