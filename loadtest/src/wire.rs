//! Bytes of WebSocket, of the stream's messages, and of Redis, read in place.

use anyhow::bail;
use memchr::memmem;

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Text or binary, or a part of one.
    Data(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(&'a [u8]),
}

/// The first frame of what came and how long it is; `None` where it is not whole yet.
pub(crate) fn frame(bytes: &[u8]) -> anyhow::Result<Option<(Frame<'_>, usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        bail!("a server's frame is masked");
    }
    let (length, head) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
            None => return Ok(None),
        },
        length => (usize::from(length), 2),
    };
    let end = head + length;
    let Some(payload) = bytes.get(head..end) else { return Ok(None) };
    let frame = match first & 0x0f {
        0..=2 => Frame::Data(payload),
        8 => Frame::Close(payload),
        9 => Frame::Ping(payload),
        10 => Frame::Pong,
        other => bail!("opcode {other}"),
    };
    Ok(Some((frame, end)))
}

/// Appends a frame with an opcode. A client's is masked, by zeros, which change nothing.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8], masked: bool) {
    out.push(0x80 | opcode);
    let mask = if masked { 0x80 } else { 0 };
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => out.push(mask | short),
        (_, Ok(middle)) => {
            out.push(mask | 126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

/// The request that opens a WebSocket.
pub(crate) fn upgrade(path: &str, msgpack: bool) -> String {
    let kind = if msgpack { "application/msgpack" } else { "application/json" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Type: {kind}\r\n\r\n"
    )
}

/// The status of an answer and where its body begins; `None` while its head is not whole.
pub(crate) fn head(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Some((status.unwrap_or(0), end))
}

/// The length of an answer's body by its head.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    let lower = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, rest) = lower.split_once("\r\ncontent-length:")?;
    rest.lines().next()?.trim().parse().ok()
}

/// The trades' numbers in messages of JSON.
pub(crate) fn numbers_json(payload: &[u8], mut each: impl FnMut(u64)) {
    let finder = memmem::Finder::new(b"\"i\":");
    let mut rest = payload;
    while let Some(at) = finder.find(rest) {
        rest = rest.get(at + 4..).unwrap_or_default();
        let mut number = 0_u64;
        let mut digits = 0;
        for byte in rest.iter().take_while(|byte| byte.is_ascii_digit()) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            digits += 1;
        }
        // In a LULD band `i` is a text.
        if digits > 0 {
            each(number);
        }
    }
}

/// The same of MessagePack, whose trades begin `T` `t`, `S` symbol, `i` number.
pub(crate) fn numbers_msgpack(payload: &[u8], mut each: impl FnMut(u64)) {
    let finder = memmem::Finder::new(b"\xa1T\xa1t\xa1S");
    let mut rest = payload;
    while let Some(at) = finder.find(rest) {
        rest = rest.get(at + 6..).unwrap_or_default();
        let Some((header, after)) = rest.split_first() else { return };
        let after = after.get(usize::from(header & 0x1f)..).unwrap_or_default();
        if let Some(number) = after.strip_prefix(b"\xa1i").and_then(unsigned) {
            each(number);
        }
        rest = after;
    }
}

/// A MessagePack integer that is not negative.
fn unsigned(bytes: &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let big = |length: usize| -> Option<u64> {
        Some(rest.get(..length)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    match first {
        0..=0x7f => Some(u64::from(*first)),
        0xcc | 0xd0 => big(1),
        0xcd | 0xd1 => big(2),
        0xce | 0xd2 => big(4),
        0xcf | 0xd3 => big(8),
        _ => None,
    }
}

/// The cursor that a message tells, where one does.
pub(crate) fn cursor(payload: &[u8], msgpack: bool) -> Option<String> {
    if msgpack {
        let at = memmem::rfind(payload, b"\xa6cursor")? + 7;
        let rest = payload.get(at..)?;
        let (start, length) = match rest.first()? {
            0xd9 => (2, usize::from(*rest.get(1)?)),
            0xda => (3, usize::from(u16::from_be_bytes(*rest.get(1..)?.first_chunk()?))),
            short => (1, usize::from(short & 0x1f)),
        };
        return String::from_utf8(rest.get(start..start + length)?.to_vec()).ok();
    }
    let at = memmem::rfind(payload, b"\"cursor\":\"")? + 10;
    let rest = payload.get(at..)?;
    let end = memchr::memchr(b'"', rest)?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}

/// The time of a message (`t`, RFC 3339 in UTC) in milliseconds since 1970.
pub(crate) fn time_ms(payload: &[u8]) -> Option<u64> {
    let at = memmem::rfind(payload, b"\"t\":\"")? + 5;
    let text = std::str::from_utf8(payload.get(at..at + 19)?).ok()?;
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    // A fraction of nine digits at most.
    let fraction = payload.get(at + 19..)?.strip_prefix(b".").unwrap_or_default();
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| u64::from(byte - b'0'));
    let millis = digits.chain([0; 3]).take(3).fold(0, |sum, digit| sum * 10 + digit);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + millis)
}

/// How many bytes the first value of a Redis stream has; `None` while it is not whole.
pub(crate) fn resp(bytes: &[u8]) -> Option<usize> {
    let line = memmem::find(bytes, b"\r\n")? + 2;
    let number = || std::str::from_utf8(bytes.get(1..line - 2)?).ok()?.parse::<i64>().ok();
    match bytes.first()? {
        b'$' => {
            let end = usize::try_from(number()?).map_or(line, |length| line + length + 2);
            (bytes.len() >= end).then_some(end)
        }
        b'*' => {
            let mut end = line;
            for _ in 0..number()? {
                end += resp(bytes.get(end..)?)?;
            }
            Some(end)
        }
        _ => Some(line),
    }
}

/// A Redis command.
pub(crate) fn put_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A trade that carries its number, as a node sends it in an array: 124 bytes where `number` has
/// ten digits and `time` nine of a second.
pub(crate) fn put_trade(out: &mut Vec<u8>, symbol: &str, number: u64, time: &str) {
    out.extend_from_slice(b"{\"T\":\"t\",\"S\":\"");
    out.extend_from_slice(symbol.as_bytes());
    out.extend_from_slice(
        format!(
            "\",\"i\":{number},\"x\":\"V\",\"p\":1234.5678,\"s\":10000,\"c\":[\"@\"],\"z\":\"C\",\"t\":\""
        )
        .as_bytes(),
    );
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_whole_or_not_at_all() {
        for length in [0, 5, 125, 126, 300, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            put_frame(&mut bytes, 1, &payload, false);
            let whole = bytes.len();
            for cut in [0, 1, 2, 3, whole - 1] {
                if cut < whole {
                    assert_eq!(frame(&bytes[..cut]).unwrap(), None, "{length} {cut}");
                }
            }
            bytes.extend_from_slice(b"more");
            assert_eq!(frame(&bytes).unwrap(), Some((Frame::Data(&payload[..]), whole)));
        }
        assert!(frame(&[0x81, 0x80, 0, 0]).is_err());
        assert_eq!(frame(&[0x89, 1, 7]).unwrap(), Some((Frame::Ping(&[7]), 3)));
    }

    #[test]
    fn numbers_and_cursors_of_both_codecs() {
        let mut json = b"[".to_vec();
        put_trade(&mut json, "AAPL", 1_000_001, "2024-01-05T15:04:05.123456Z");
        json.push(b',');
        put_trade(&mut json, "AAPL", 2, "2024-01-05T15:04:05Z");
        json.extend_from_slice(
            br#",{"T":"l","S":"A","u":1,"d":1,"i":"B"},{"T":"hb","t":"x","cursor":"abc_-"}]"#,
        );
        let mut numbers = Vec::new();
        numbers_json(&json, |number| numbers.push(number));
        assert_eq!(numbers, [1_000_001, 2]);
        assert_eq!(cursor(&json, false).as_deref(), Some("abc_-"));

        let mut msgpack = b"\x93\x83\xa1T\xa1t\xa1S\xa4AAPL\xa1i\xcd\x01\x00".to_vec();
        msgpack.extend_from_slice(b"\x83\xa1T\xa1t\xa1S\xa1A\xa1i\x07\x82\xa1T\xa2hb\xa6cursor\xd9\x03xyz");
        numbers.clear();
        numbers_msgpack(&msgpack, |number| numbers.push(number));
        assert_eq!(numbers, [256, 7]);
        assert_eq!(cursor(&msgpack, true).as_deref(), Some("xyz"));
    }

    #[test]
    fn times_of_messages() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T12:34:56.789012345Z", 1_709_210_096_789),
            ("2024-12-31T23:59:59.5Z", 1_735_689_599_500),
        ] {
            let payload = format!("[{{\"T\":\"hb\",\"t\":\"{text}\",\"cursor\":\"x\"}}]");
            assert_eq!(time_ms(payload.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_trade_has_the_size_that_the_rows_name() {
        let mut trade = Vec::new();
        put_trade(&mut trade, "AAPL", 1_000_000_001, "2024-01-05T15:04:05.123456007Z");
        assert_eq!(trade.len() + 2, 124);
    }

    #[test]
    fn redis_values_are_read_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        put_command(&mut bytes, &[b"message", b"c", b"hello"]);
        assert_eq!(resp(&bytes), Some(bytes.len()));
        assert!((0..bytes.len()).all(|cut| resp(&bytes[..cut]).is_none()));
        assert_eq!((resp(b":12\r\n+OK"), resp(b"$-1\r\n")), (Some(5), Some(5)));
    }

    #[test]
    fn heads_of_answers() {
        let bytes = b"HTTP/1.1 101 Switching\r\nContent-Length: 12\r\n\r\nbody";
        let (status, end) = head(bytes).unwrap();
        assert_eq!((status, &bytes[end..], content_length(&bytes[..end])), (101, &b"body"[..], Some(12)));
        assert_eq!(head(b"HTTP/1.1 101"), None);
    }
}
