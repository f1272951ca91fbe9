//! Cursors: where a client is, as a token that any node of any region reads (`docs/FORMATS.md`,
//! section 6).

use std::sync::Arc;

use super::place::Place;
use crate::market::Nanos;
use crate::seal::Keyring;
use crate::tape::Position;

/// The prefix of a cursor.
pub const CURSOR_PREFIX: &str = "c1.";

const VERSION: u8 = 1;
const FLAG_TICKET: u8 = 1;
const FLAG_TOLD: u8 = 2;
/// The number of a one-time ticket.
const TICKET_BYTES: usize = 16;

/// Everything that a client has had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// How far on every tape.
    pub position: Position,
    /// When it was given, by the clock of the node that gave it.
    pub at: Nanos,
    /// The bars announced until then were given too; `None`: until about when it was given.
    pub told: Option<Nanos>,
    /// The one-time ticket by which the client came, and the id of the key that it stands for.
    pub ticket: Option<([u8; TICKET_BYTES], String)>,
}

/// A text is no cursor of these keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor of this service")]
pub struct CursorError;

impl Cursor {
    /// The token.
    #[must_use]
    pub fn token(&self, keyring: &Keyring) -> String {
        keyring.token(CURSOR_PREFIX, &self.encode())
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`CursorError`]
    pub fn open(text: &str, keyring: &Keyring) -> Result<Self, CursorError> {
        let bytes = keyring.open_token(CURSOR_PREFIX, text).map_err(|_| CursorError)?;
        Self::decode(&bytes).ok_or(CursorError)
    }

    /// The place that it names.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { position: Arc::new(self.position.clone()), told: self.told.unwrap_or(self.at) }
    }

    fn encode(&self) -> Vec<u8> {
        let flag = |is_there, flag| if is_there { flag } else { 0 };
        let flags = flag(self.ticket.is_some(), FLAG_TICKET) | flag(self.told.is_some(), FLAG_TOLD);
        let mut out = vec![VERSION, flags];
        for time in [Some(self.at), self.told].into_iter().flatten() {
            out.extend_from_slice(&time.0.to_be_bytes());
        }
        if let Some((ticket, key_id)) = &self.ticket {
            out.extend_from_slice(ticket);
            // An id of a key is short.
            out.push(u8::try_from(key_id.len()).unwrap_or_default());
            out.extend_from_slice(key_id.as_bytes());
        }
        out.extend_from_slice(&self.position.encode());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([version, flags], rest) = bytes.split_first_chunk::<2>()?;
        let (at, mut rest) = rest.split_first_chunk::<8>()?;
        let (mut ticket, mut told) = (None, None);
        if *version != VERSION || flags & !(FLAG_TICKET | FLAG_TOLD) != 0 {
            return None;
        }
        if flags & FLAG_TOLD != 0 {
            let (time, after) = rest.split_first_chunk::<8>()?;
            told = Some(Nanos(i64::from_be_bytes(*time)));
            rest = after;
        }
        if flags & FLAG_TICKET != 0 {
            let (number, after) = rest.split_first_chunk::<TICKET_BYTES>()?;
            let (length, after) = after.split_first()?;
            let (key_id, after) = after.split_at_checked(usize::from(*length))?;
            ticket = Some((*number, String::from_utf8(key_id.to_vec()).ok()?));
            rest = after;
        }
        let position = Position::decode(rest).ok()?;
        Some(Self { position, at: Nanos(i64::from_be_bytes(*at)), told, ticket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;
    use crate::store::TapeId;
    use crate::tape::Progress;

    fn cursor(ticket: bool, told: bool) -> Cursor {
        let progress = Progress { next: 300, voids: [7, 9].into() };
        Cursor {
            position: Position { tapes: [(TapeId(0x0102), progress)].into(), ..Position::default() },
            at: Nanos(1_700_000_000_000_000_000),
            told: told.then_some(Nanos(1_699_999_980_050_000_001)),
            ticket: ticket.then(|| ([5; 16], "TLKEY".to_owned())),
        }
    }

    #[test]
    fn a_cursor_is_read_again_and_only_by_its_keys() {
        let ring = Keyring::from_secret([1; 32]);
        for (ticket, told) in [(false, false), (true, false), (false, true), (true, true)] {
            let token = cursor(ticket, told).token(&ring);
            assert_eq!(Cursor::open(&token, &ring), Ok(cursor(ticket, told)));
            assert_eq!(Cursor::open(&token, &Keyring::from_secret([2; 32])), Err(CursorError));
            assert_eq!(Cursor::open(&token[1..], &ring), Err(CursorError));
        }
    }

    /// The payloads of `docs/FORMATS.md`, section 6.
    #[test]
    fn the_golden_cursors() {
        assert_eq!(cursor(false, false).encode(), golden::block("cursor"));
        assert_eq!(cursor(true, false).encode(), golden::block("cursor-of-a-ticket"));
        assert_eq!(cursor(false, true).encode(), golden::block("cursor-with-bars"));
    }

    #[test]
    fn short_and_strange_bytes_are_no_cursor() {
        let bytes = cursor(true, true).encode();
        for length in 0..bytes.len() {
            assert_eq!(Cursor::decode(&bytes[..length]), None, "{length}");
        }
        let mut strange = bytes;
        strange[1] = 4;
        assert_eq!(Cursor::decode(&strange), None);
    }
}
