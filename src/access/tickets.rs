//! What stands for a key where no header can carry one: a stream's ticket, and the cookie of the
//! chart adapter. Both are made for whoever has shown the key itself, carry no secret, and are
//! MACed by the region, so that making one costs no write.
//!
//! - A **ticket** opens one stream, within `access.ticket_s`: [`Tickets::redeem`] writes a row by
//!   compare-and-set, and of two who show it one gets in. The row goes when the ticket could no
//!   longer be redeemed anyway.
//! - A stream's cursor, MACed too, may name the ticket that opened the stream. Who comes back with
//!   it is let in by [`Tickets::recognise`], with the ticket used long ago, until its key ends.
//! - A **cookie** may be shown again, for `access.cookie_minutes`, and reads charts alone.
//!
//! Each is worth as much as its key at that moment: one that is revoked or has ended opens
//! nothing. Rows of used tickets are at most `access.tickets_max`, some 200 bytes each.
//!
//! A stream handler takes the ticket from its query and asks:
//!
//! ```text
//! let (ticket, (identity, allowance)) = gate.tickets.redeem(text, now).await?;   // the first time
//! // ... the cursors it sends carry ticket.id and ticket.key_id ...
//! let (identity, allowance) = gate.tickets.recognise(&ticket, now)?;             // a cursor of it
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{AccessError, Allowance, Denied, Identity, Keys, secret};
use crate::config;
use crate::market::Nanos;
use crate::seal::Keyring;
use crate::store::{Record, Records, Space, record_seal_key};

const TICKET_PREFIX: &str = "k1.";
const COOKIE_PREFIX: &str = "u1.";
/// A used ticket is remembered so long after its end: clocks of two nodes differ by less.
pub(crate) const CLOCKS_APART: i64 = 60 * Nanos::SECOND;

/// Which ticket, of which key: what a stream's cursor carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its random name.
    pub id: [u8; 16],
    /// The id of the key that it was made for.
    pub key_id: String,
}

/// Why a ticket does not open a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It is none, has ended, was used, or its key is good no more. Which of them is not told.
    #[error("the ticket is unknown, was used, or has ended; each opens one stream, for a short time")]
    Denied,
    /// As many tickets as `access.tickets_max` were used of late.
    #[error("too many tickets were used of late; access.tickets_max allows {0} at once")]
    Full(usize),
    /// Whether it was used before cannot be known.
    #[error(transparent)]
    Access(AccessError),
}

impl From<Denied> for TicketError {
    fn from(_: Denied) -> Self {
        Self::Denied
    }
}

/// Makes and takes them.
pub struct Tickets {
    records: Arc<dyn Records>,
    keyring: Arc<Keyring>,
    keys: Arc<Keys>,
    region: String,
    config: config::Access,
    /// When each row that this process wrote may go, in the order of writing.
    rows: Mutex<VecDeque<Nanos>>,
}

/// What is in a ticket's text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Issued {
    id: [u8; 16],
    ends: Nanos,
    region: String,
    key_id: String,
}

impl Tickets {
    /// Tickets of a region.
    #[must_use]
    pub fn new(
        records: Arc<dyn Records>,
        keyring: Arc<Keyring>,
        keys: Arc<Keys>,
        region: String,
        config: config::Access,
    ) -> Self {
        Self { records, keyring, keys, region, config, rows: Mutex::default() }
    }

    /// A ticket for whoever has shown this key, as its text, and how long it is good, in seconds.
    ///
    /// # Errors
    /// [`AccessError::NoRandomness`]
    pub fn issue(&self, identity: &Identity, now: Nanos) -> Result<(String, u64), AccessError> {
        let mut id = [0; 16];
        secret::random(&mut id)?;
        let ends = now.plus(nanos(self.config.ticket_s));
        let issued = Issued { id, ends, region: self.region.clone(), key_id: identity.key_id.clone() };
        Ok((self.keyring.token(TICKET_PREFIX, &issued.encode()), self.config.ticket_s))
    }

    /// Takes a ticket, once. The use counts in the rate of its key.
    ///
    /// # Errors
    /// [`TicketError`]. After one of the store the ticket may be used: the client gets another.
    pub async fn redeem(
        &self,
        text: &str,
        now: Nanos,
    ) -> Result<(Ticket, (Arc<Identity>, Allowance)), TicketError> {
        let payload = self.keyring.open_token(TICKET_PREFIX, text).map_err(|_| TicketError::Denied)?;
        let issued = Issued::decode(&payload).filter(|issued| now < issued.ends);
        let issued = issued.ok_or(TicketError::Denied)?;
        let admitted = self.keys.vouched(&issued.key_id, now)?;
        let ticket = Ticket { id: issued.id, key_id: issued.key_id.clone() };
        if admitted.1.retry_after_s.is_some() {
            // Its key comes too often: the caller refuses, and the ticket stays good.
            return Ok((ticket, admitted));
        }
        let until = issued.ends.plus(CLOCKS_APART);
        self.make_room(until, now)?;
        let (part, key) = (issued.region.as_str(), issued.row_key());
        let body = self.keyring.seal(&record_seal_key(Space::Tickets, part, &key, 1), &issued.encode());
        let record = Record { key, version: 1, body };
        match self.records.put_if(Space::Tickets, part, record, 0).await {
            Ok(true) => Ok((ticket, admitted)),
            Ok(false) => {
                self.give_back(until);
                Err(TicketError::Denied)
            }
            Err(error) => Err(TicketError::Access(AccessError::Store(error))),
        }
    }

    /// Who a used ticket stands for, named by a cursor whose MAC the caller has verified: such a
    /// cursor was sent on a stream that the ticket had opened.
    ///
    /// # Errors
    /// [`Denied`] once the key is revoked or has ended.
    pub fn recognise(&self, ticket: &Ticket, now: Nanos) -> Result<(Arc<Identity>, Allowance), Denied> {
        self.keys.vouched(&ticket.key_id, now)
    }

    /// The value of a cookie for whoever has shown this key, and how long it is good, in seconds.
    #[must_use]
    pub fn cookie(&self, identity: &Identity, now: Nanos) -> (String, u64) {
        let seconds = self.config.cookie_minutes.saturating_mul(60);
        let payload = [&now.plus(nanos(seconds)).0.to_be_bytes(), identity.key_id.as_bytes()].concat();
        (self.keyring.token(COOKIE_PREFIX, &payload), seconds)
    }

    /// Who a cookie stands for. The caller takes it for what a cookie may do, and for no more.
    ///
    /// # Errors
    /// [`Denied`]
    pub fn of_cookie(&self, value: &str, now: Nanos) -> Result<(Arc<Identity>, Allowance), Denied> {
        let payload = self.keyring.open_token(COOKIE_PREFIX, value).map_err(|_| Denied)?;
        let (ends, key_id) = payload.split_first_chunk::<8>().ok_or(Denied)?;
        if Nanos(i64::from_be_bytes(*ends)) <= now {
            return Err(Denied);
        }
        self.keys.vouched(std::str::from_utf8(key_id).map_err(|_| Denied)?, now)
    }

    /// Which ticket a text is, also one that was used or has ended: a cursor that names the same
    /// one was sent on the stream that it opened.
    ///
    /// # Errors
    /// [`Denied`] where it is none.
    pub fn name_of(&self, text: &str) -> Result<Ticket, Denied> {
        let payload = self.keyring.open_token(TICKET_PREFIX, text).map_err(|_| Denied)?;
        let issued = Issued::decode(&payload).ok_or(Denied)?;
        Ok(Ticket { id: issued.id, key_id: issued.key_id })
    }

    /// No row was written after all.
    fn give_back(&self, until: Nanos) {
        let mut rows = self.rows.lock();
        if let Some(at) = rows.iter().rposition(|row| *row == until) {
            rows.remove(at);
        }
    }

    fn make_room(&self, until: Nanos, now: Nanos) -> Result<(), TicketError> {
        let mut rows = self.rows.lock();
        while rows.front().is_some_and(|until| *until <= now) {
            rows.pop_front();
        }
        if rows.len() >= self.config.tickets_max {
            return Err(TicketError::Full(self.config.tickets_max));
        }
        rows.push_back(until);
        Ok(())
    }
}

/// Whether the row under this key may be forgotten.
pub(crate) fn is_over(row_key: &str, now: Nanos) -> bool {
    row_key < ends_as_key(now.plus(-CLOCKS_APART)).as_str()
}

/// Sorts as the times do.
fn ends_as_key(ends: Nanos) -> String {
    format!("{:020}", ends.0.max(0))
}

impl Issued {
    fn row_key(&self) -> String {
        format!("{}-{:032x}", ends_as_key(self.ends), u128::from_be_bytes(self.id))
    }

    fn encode(&self) -> Vec<u8> {
        let region = self.region.as_bytes();
        let length = u8::try_from(region.len()).unwrap_or(u8::MAX);
        [&self.id[..], &self.ends.0.to_be_bytes(), &[length], region, self.key_id.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (ends, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first()?;
        let (region, key_id) = rest.split_at_checked(usize::from(*length))?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        Some(Self {
            id: *id,
            ends: Nanos(i64::from_be_bytes(*ends)),
            region: text(region)?,
            key_id: text(key_id)?,
        })
    }
}

fn nanos(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(Nanos::SECOND)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::testing::{keys_over, moved_clock, tickets_over};
    use super::super::{Actor, KeyAsk, Scope};
    use super::*;
    use crate::market::golden;
    use crate::store::memory::MemoryStore;

    const NOW: Nanos = Nanos(1_704_292_200_000_000_000);

    struct World {
        records: Arc<MemoryStore>,
        keys: Arc<Keys>,
        identity: Arc<Identity>,
        tickets: Tickets,
    }

    async fn world(sets: &[&str]) -> World {
        let records = Arc::new(MemoryStore::default());
        let (keys, _) = keys_over(&records, sets, moved_clock().1).await;
        let ask = KeyAsk {
            label: String::new(),
            scopes: vec![Scope::MarketDataRead],
            account: None,
            requests_per_minute: None,
            expires: None,
        };
        let key = keys.create(ask, &Actor::node(), NOW).await.unwrap();
        let (identity, _) = keys.vouched(&key.row.id, NOW).unwrap();
        let tickets = tickets_over(&records, &keys, sets);
        World { records, keys, identity, tickets }
    }

    #[tokio::test]
    async fn a_ticket_opens_one_stream() {
        let world = world(&[]).await;
        let (text, seconds) = world.tickets.issue(&world.identity, NOW).unwrap();
        assert!(seconds == 30 && !text.contains(&world.identity.key_id), "{text}");
        let elsewhere = tickets_over(&world.records, &world.keys, &[]);
        let (one, two) = tokio::join!(world.tickets.redeem(&text, NOW), elsewhere.redeem(&text, NOW));
        let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
        let (ticket, (identity, _)) = won.unwrap();
        assert_eq!((&identity.key_id, &ticket.key_id), (&world.identity.key_id, &world.identity.key_id));
        assert_eq!(lost.unwrap_err(), TicketError::Denied);
        assert_eq!(world.tickets.redeem(&text, NOW).await.unwrap_err(), TicketError::Denied);
    }

    #[tokio::test]
    async fn what_is_no_good_ticket_is_refused_by_one_error() {
        let world = world(&[]).await;
        let (text, _) = world.tickets.issue(&world.identity, NOW).unwrap();
        let (cookie, _) = world.tickets.cookie(&world.identity, NOW);
        let mut stranger = tickets_over(&world.records, &world.keys, &[]);
        stranger.keyring = Arc::new(Keyring::from_secret([8; 32]));
        let (of_stranger, _) = stranger.issue(&world.identity, NOW).unwrap();
        let mut changed = text.clone().into_bytes();
        changed[60] ^= 1;
        let changed = String::from_utf8_lossy(&changed).into_owned();
        for other in ["", "k1.", &text[..40], &changed, &of_stranger, &cookie] {
            assert_eq!(world.tickets.redeem(other, NOW).await.unwrap_err(), TicketError::Denied, "{other}");
        }
        let ended = NOW.plus(30 * Nanos::SECOND);
        assert_eq!(world.tickets.redeem(&text, ended).await.unwrap_err(), TicketError::Denied);
        world.keys.revoke(&world.identity.key_id, &Actor::node(), NOW).await.unwrap();
        assert_eq!(world.tickets.redeem(&text, NOW).await.unwrap_err(), TicketError::Denied);
    }

    #[tokio::test]
    async fn a_used_ticket_is_recognised_until_its_key_is_revoked() {
        let world = world(&[]).await;
        let (text, _) = world.tickets.issue(&world.identity, NOW).unwrap();
        let (ticket, _) = world.tickets.redeem(&text, NOW).await.unwrap();
        let later = NOW.plus(24 * Nanos::HOUR);
        assert_eq!(world.tickets.recognise(&ticket, later).unwrap().0, world.identity);
        world.keys.revoke(&world.identity.key_id, &Actor::node(), later).await.unwrap();
        assert_eq!(world.tickets.recognise(&ticket, later).unwrap_err(), Denied);
    }

    #[tokio::test]
    async fn a_store_that_fails_opens_nothing() {
        let world = world(&[]).await;
        let (text, _) = world.tickets.issue(&world.identity, NOW).unwrap();
        world.records.refuses.store(true, Ordering::Relaxed);
        let failed = world.tickets.redeem(&text, NOW).await.unwrap_err();
        assert!(matches!(failed, TicketError::Access(AccessError::Store(_))), "{failed}");
    }

    #[tokio::test]
    async fn used_tickets_are_bounded_and_make_room_after_their_end() {
        let world = world(&["access.tickets_max=2"]).await;
        let ticket = |now| world.tickets.issue(&world.identity, now).unwrap().0;
        for _ in 0..2 {
            world.tickets.redeem(&ticket(NOW), NOW).await.unwrap();
        }
        let full = world.tickets.redeem(&ticket(NOW), NOW).await.unwrap_err();
        assert_eq!(full, TicketError::Full(2));
        let later = NOW.plus(30 * Nanos::SECOND + CLOCKS_APART);
        world.tickets.redeem(&ticket(later), later).await.unwrap();
        let keys: Vec<String> = world
            .records
            .scan(Space::Tickets, "east", None, 10)
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.key)
            .collect();
        let over: Vec<bool> = keys.iter().map(|key| is_over(key, later.plus(1))).collect();
        assert_eq!(over, [true, true, false], "{keys:?}");
        assert!(keys.iter().all(|key| !is_over(key, later.plus(-1))));
    }

    #[tokio::test]
    async fn a_cookie_is_good_again_and_again_for_its_time() {
        let world = world(&["access.cookie_minutes=2"]).await;
        let (cookie, seconds) = world.tickets.cookie(&world.identity, NOW);
        assert_eq!(seconds, 120);
        for now in [NOW, NOW.plus(2 * Nanos::MINUTE - 1)] {
            assert_eq!(world.tickets.of_cookie(&cookie, now).unwrap().0, world.identity);
        }
        assert_eq!(world.tickets.of_cookie(&cookie, NOW.plus(2 * Nanos::MINUTE)), Err(Denied));
        let (ticket, _) = world.tickets.issue(&world.identity, NOW).unwrap();
        assert_eq!(world.tickets.of_cookie(&ticket, NOW), Err(Denied));
        world.keys.revoke(&world.identity.key_id, &Actor::node(), NOW).await.unwrap();
        assert_eq!(world.tickets.of_cookie(&cookie, NOW), Err(Denied));
    }

    #[test]
    fn the_golden_ticket() {
        let issued = Issued {
            id: *b"0123456789abcdef",
            ends: NOW.plus(30 * Nanos::SECOND),
            region: "east".to_owned(),
            key_id: "TLXXXXXXXXXXXXXXXXXX".to_owned(),
        };
        let golden = golden::block("stream-ticket");
        assert_eq!(issued.encode(), golden);
        assert_eq!(Issued::decode(&golden), Some(issued.clone()));
        assert_eq!(issued.row_key(), golden::text("record-ticket-key"));
        for length in 0..29 {
            assert_eq!(Issued::decode(&golden[..length]), None, "{length}");
        }
    }
}
