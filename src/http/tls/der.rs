//! The one field of a certificate that TLS itself does not tell: when it ends.

use chrono::NaiveDateTime;

use crate::market::Nanos;

/// Tag of the version, which is left out of the oldest certificates.
const VERSION: u8 = 0xa0;
/// Serial number, algorithm, issuer: what is between version and validity.
const BEFORE_VALIDITY: usize = 3;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate (RFC 5280, 4.1); `None` where it is none.
pub(super) fn not_after(certificate: &[u8]) -> Option<Nanos> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    for _ in 0..BEFORE_VALIDITY {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, validity) = element(validity)?;
    let (tag, time, _) = element(validity)?;
    let text = std::str::from_utf8(time).ok()?;
    let text = match tag {
        // Two digits of the year: 1950 to 2049.
        UTC_TIME if text < "5" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some(Nanos(time.and_utc().timestamp().saturating_mul(Nanos::SECOND)))
}

/// Tag and content of the element at the beginning, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    const LONG: u8 = 0x80;
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= LONG {
        let (digits, after) = rest.split_at_checked(usize::from(first - LONG))?;
        let digits = digits.iter().try_fold(0_usize, |length, digit| {
            length.checked_mul(256).map(|length| length + usize::from(*digit))
        });
        (length, rest) = (digits?, after);
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(version: &[u8], tag: u8, time: &str) -> Vec<u8> {
        let made = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
            [&head, content].concat()
        };
        let validity = [made(UTC_TIME, b"240101000000Z"), made(tag, time.as_bytes())].concat();
        let fields =
            [version, &made(2, b"1"), &made(0x30, &[]), &made(0x30, &[0; 90]), &made(0x30, &validity)];
        made(0x30, &made(0x30, &fields.concat()))
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        let versioned: &[u8] = &[VERSION, 3, 2, 1, 2];
        for (version, tag, time, expected) in [
            (versioned, UTC_TIME, "261224103000Z", Some("2026-12-24T10:30:00Z")),
            (&[], UTC_TIME, "261224103000Z", Some("2026-12-24T10:30:00Z")),
            (versioned, UTC_TIME, "991231235959Z", Some("1999-12-31T23:59:59Z")),
            (versioned, GENERALIZED_TIME, "20510101000000Z", Some("2051-01-01T00:00:00Z")),
            (versioned, GENERALIZED_TIME, "20510101", None),
            (versioned, 0x04, "261224103000Z", None),
        ] {
            let found = not_after(&certificate(version, tag, time)).map(|ends| ends.to_string());
            assert_eq!(found.as_deref(), expected, "{time}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            not_after(&bytes);
            let whole = certificate(&[], UTC_TIME, "261224103000Z");
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(not_after(&whole[..cut]), None);
        }
    }
}
