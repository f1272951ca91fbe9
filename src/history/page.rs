//! Page tokens: where the next page starts.
//!
//! `docs/FORMATS.md` section 9 defines the bytes. A token binds the query it was given for,
//! holds the span as it was resolved on the first page (so that "now" does not move under
//! a client that pages), and is sealed: what was changed anywhere is refused.

use super::amend::Entry;
use super::merge::Key;
use crate::market::{Nanos, Ordinal, Place, Symbol, TickId};
use crate::store::{Order, Span};

/// The prefix of page tokens of ticks and bars.
pub const PAGE_PREFIX: &str = "p1.";

/// The prefix of page tokens of the list of symbols; they carry the last symbol's text.
pub const SYMBOLS_PREFIX: &str = "y1.";

/// The version byte in front.
const VERSION: u8 = 1;
const QUERY_DOMAIN: &[u8] = b"tapeline page query v1";

/// Where in a symbol the next page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// At its beginning.
    Start,
    /// After this tick.
    After(Key),
    /// After the bar of this time.
    AfterBar(Nanos),
}

/// Where the next page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The symbol.
    pub symbol: Symbol,
    /// Where in it.
    pub resume: Resume,
}

/// What a query asked for, as far as its pages depend on it. `limit` is not part of it: a
/// client may ask for the rest of what it wants with a smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryDigest(pub [u8; 16]);

/// The parts of a query that a page token is bound to.
#[derive(Clone, Debug)]
pub struct Bound<'a> {
    /// `trades`, `quotes`, or `bars` and the timeframe: `bars 1Min`.
    pub what: &'a str,
    /// The symbols, ascending.
    pub symbols: &'a [Symbol],
    /// The parameter `start`, if it was given.
    pub start: Option<Nanos>,
    /// The parameter `end`, if it was given.
    pub end: Option<Nanos>,
    /// The parameter `sort`.
    pub order: Order,
}

impl Bound<'_> {
    /// The digest of all parts.
    #[must_use]
    pub fn digest(&self) -> QueryDigest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(QUERY_DOMAIN);
        hasher.update(&(self.what.len() as u64).to_be_bytes()).update(self.what.as_bytes());
        for time in [self.start, self.end] {
            hasher.update(&[u8::from(time.is_some())]).update(&time.unwrap_or_default().0.to_be_bytes());
        }
        hasher.update(&[u8::from(self.order == Order::Descending)]);
        for symbol in self.symbols {
            hasher.update(symbol.padded());
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        QueryDigest(digest)
    }
}

/// Cuts a page of at most `limit` entries, which begin after `after`, from entries in ascending
/// order that hold whole nanoseconds; says where the rest starts, if there is more.
pub(super) fn cut(
    mut entries: Vec<Entry>,
    order: Order,
    after: Option<Key>,
    limit: usize,
) -> (Vec<Entry>, Option<Resume>) {
    if order == Order::Descending {
        entries.reverse();
    }
    if let Some(after) = after {
        entries.retain(|entry| match order {
            Order::Ascending => entry.key > after,
            Order::Descending => entry.key < after,
        });
    }
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().map(|entry| entry.key).or(after);
    (entries, has_more.then(|| last.map_or(Resume::Start, Resume::After)))
}

/// What a page token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// The query it belongs to.
    pub query: QueryDigest,
    /// The span, resolved when the first page was asked for.
    pub span: Span,
    /// Where the next page starts.
    pub cursor: Cursor,
}

/// Why a text is no page token of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// It was not made here, or not like this.
    #[error("invalid page_token")]
    Invalid,
    /// It belongs to a query with other symbols, times, kind, timeframe or order.
    #[error(
        "invalid page_token: it belongs to another query; symbols, start, end, timeframe and sort must stay the same"
    )]
    OtherQuery,
}

impl PageToken {
    /// The bytes, unsealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        out.push(VERSION);
        out.extend_from_slice(&self.query.0);
        for time in [self.span.start(), self.span.end()] {
            out.extend_from_slice(&time.0.to_be_bytes());
        }
        out.extend_from_slice(self.cursor.symbol.padded());
        match &self.cursor.resume {
            Resume::Start => out.push(0),
            Resume::After(key) => {
                out.push(1);
                put_key(key, &mut out);
            }
            Resume::AfterBar(time) => {
                out.push(2);
                out.extend_from_slice(&time.0.to_be_bytes());
            }
        }
        out
    }

    /// Reads [`Self::encode`] again, for a query.
    ///
    /// # Errors
    /// [`PageError`] when the bytes are no page token, or one of another query.
    pub fn decode(bytes: &[u8], query: QueryDigest) -> Result<Self, PageError> {
        let token = Reader(bytes).token().ok_or(PageError::Invalid)?;
        if token.query == query { Ok(token) } else { Err(PageError::OtherQuery) }
    }
}

fn put_key(key: &Key, out: &mut Vec<u8>) {
    out.extend_from_slice(&key.place.time.0.to_be_bytes());
    match key.place.order {
        Ordinal::Numbered(number) => {
            out.push(0);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Ordinal::Arrived(received, index) => {
            out.push(1);
            out.extend_from_slice(&received.0.to_be_bytes());
            out.extend_from_slice(&index.to_be_bytes());
        }
    }
    out.extend_from_slice(&key.place.id.0);
    out.extend_from_slice(&key.version.to_be_bytes());
}

/// Reads bytes from the front; `None` once there are too few, or they are not valid.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn time(&mut self) -> Option<Nanos> {
        self.take().map(i64::from_be_bytes).map(Nanos)
    }

    fn token(mut self) -> Option<PageToken> {
        if self.take()? != [VERSION] {
            return None;
        }
        let query = QueryDigest(self.take()?);
        let span = self.time()?..=self.time()?;
        let padded: [u8; Symbol::MAX_LEN] = self.take()?;
        let length = padded.iter().position(|byte| *byte == 0).unwrap_or(Symbol::MAX_LEN);
        let symbol = Symbol::parse(padded.get(..length)?).ok().filter(|symbol| *symbol.padded() == padded)?;
        let resume = match self.take()? {
            [0] => Resume::Start,
            [1] => Resume::After(self.key()?),
            [2] => Resume::AfterBar(self.time()?),
            _ => return None,
        };
        self.0.is_empty().then_some(PageToken { query, span, cursor: Cursor { symbol, resume } })
    }

    fn key(&mut self) -> Option<Key> {
        let time = self.time()?;
        let order = match self.take()? {
            [0] => Ordinal::Numbered(u64::from_be_bytes(self.take()?)),
            [1] => Ordinal::Arrived(self.time()?, u32::from_be_bytes(self.take()?)),
            _ => return None,
        };
        let place = Place { time, order, id: TickId(self.take()?) };
        Some(Key { place, version: u32::from_be_bytes(self.take()?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::market::golden;

    fn symbol(text: &str) -> Symbol {
        text.parse().unwrap()
    }

    fn query() -> QueryDigest {
        let symbols = [symbol("AAPL"), symbol("MSFT")];
        let start = Some(Nanos::parse(b"2024-01-03T14:30:00Z").unwrap());
        Bound { what: "trades", symbols: &symbols, start, end: None, order: Order::Ascending }.digest()
    }

    fn token(resume: Resume) -> PageToken {
        let (start, end) = ("2024-01-03T14:30:00Z", "2024-01-03T21:00:00.5Z");
        let span = Nanos::parse(start.as_bytes()).unwrap()..=Nanos::parse(end.as_bytes()).unwrap();
        PageToken { query: query(), span, cursor: Cursor { symbol: symbol("AAPL"), resume } }
    }

    fn key(order: Ordinal) -> Key {
        let time = Nanos::parse(b"2024-01-03T14:30:00.000000001Z").unwrap();
        Key { place: Place { time, order, id: TickId([0xab; 16]) }, version: 1 }
    }

    #[test]
    fn the_golden_tokens() {
        let numbered = Resume::After(key(Ordinal::Numbered(96_921)));
        let arrived = Resume::After(key(Ordinal::Arrived(Nanos(1_000_000), 4)));
        let bar = Resume::AfterBar(Nanos::parse(b"2024-01-03T14:31:00Z").unwrap());
        for (name, resume) in [
            ("page-token-start", Resume::Start),
            ("page-token-numbered", numbered),
            ("page-token-arrived", arrived),
            ("page-token-bar", bar),
        ] {
            let bytes = token(resume).encode();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(bytes, golden::block(name), "{name}: {hex}");
            assert_eq!(PageToken::decode(&bytes, query()), Ok(token(resume)), "{name}");
        }
    }

    #[test]
    fn a_token_belongs_to_one_query() {
        let symbols = [symbol("AAPL"), symbol("MSFT")];
        let start = Some(Nanos::parse(b"2024-01-03T14:30:00Z").unwrap());
        let same = Bound { what: "trades", symbols: &symbols, start, end: None, order: Order::Ascending };
        assert_eq!(same.digest(), query());
        let others = [
            Bound { what: "quotes", ..same.clone() },
            Bound { symbols: &symbols[..1], ..same.clone() },
            Bound { start: None, ..same.clone() },
            Bound { end: start, ..same.clone() },
            Bound { start: None, end: start, ..same.clone() },
            Bound { order: Order::Descending, ..same.clone() },
        ];
        let bytes = token(Resume::Start).encode();
        for other in others {
            let error = PageToken::decode(&bytes, other.digest()).unwrap_err();
            assert_eq!(error, PageError::OtherQuery, "{other:?}");
            assert!(error.to_string().starts_with("invalid page_token"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..130)) {
            prop_assert_eq!(PageToken::decode(&bytes, query()), Err(PageError::Invalid));
        }

        #[test]
        fn a_cut_token_is_none(length in 0_usize..200) {
            let bytes = token(Resume::After(key(Ordinal::Arrived(Nanos(5), 6)))).encode();
            let cut = &bytes[..length.min(bytes.len() - 1)];
            prop_assert_eq!(PageToken::decode(cut, query()), Err(PageError::Invalid));
        }
    }
}
