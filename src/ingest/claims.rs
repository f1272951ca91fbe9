//! Which body an `Idempotency-Key` stands for while its request is on its way to the memory of
//! the tape.
//!
//! The tape knows a key's body once its ticks are delivered. Until then a second request with
//! the key and another body would pass as well, and both bodies would be stored under one name.
//! So a request claims its key before it appends. The claim of a request whose ticks are or may
//! be stored outlasts it by [`LINGER`], in which the tape learns of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::market::RequestKey;
use crate::tape::BodyHash;

/// How long a claim outlasts its request.
const LINGER: Duration = Duration::from_secs(30);
/// Claims that outlast their requests, some 100 B each; above it the oldest ends early.
const LINGERING_MAX: usize = 65_536;

/// The claims of all requests. There are as many as requests under way, and those that linger.
#[derive(Debug, Default)]
pub(super) struct Claims(Arc<Mutex<Claimed>>);

#[derive(Debug, Default)]
struct Claimed {
    by_key: HashMap<RequestKey, Holders>,
    /// The ends of claims, in order.
    lingering: VecDeque<(Instant, RequestKey)>,
}

#[derive(Debug)]
struct Holders {
    body: BodyHash,
    under_way: usize,
    until: Option<Instant>,
    /// The last request that ended did so without knowing whether its ticks are stored.
    is_uncertain: bool,
}

impl Claims {
    /// Claims the key for this body, together with whoever has claimed it for the same; none
    /// where it is claimed for another body.
    pub(super) fn claim(&self, request: RequestKey, body: BodyHash) -> Option<Claim> {
        let mut claimed = self.0.lock();
        claimed.forget(Instant::now());
        let holders = claimed.by_key.entry(request).or_insert(Holders {
            body,
            under_way: 0,
            until: None,
            is_uncertain: false,
        });
        if holders.body != body {
            return None;
        }
        holders.under_way += 1;
        Some(Claim { claims: Arc::clone(&self.0), request, end: End::Uncertain })
    }

    /// Whether more of a request may be stored than is told: one with the key is under way, or the
    /// last one that ended does not know.
    pub(super) fn is_open(&self, request: RequestKey) -> bool {
        let mut claimed = self.0.lock();
        claimed.forget(Instant::now());
        claimed.by_key.get(&request).is_some_and(|holders| holders.under_way > 0 || holders.is_uncertain)
    }
}

impl Claimed {
    fn forget(&mut self, now: Instant) {
        while let Some((until, request)) = self.lingering.front().copied() {
            let is_over = until <= now;
            if !is_over && self.lingering.len() <= LINGERING_MAX {
                break;
            }
            self.lingering.pop_front();
            // A later request with the key may have prolonged the claim.
            if let Some(holders) = self.by_key.get_mut(&request)
                && holders.until == Some(until)
            {
                holders.until = None;
                if holders.under_way == 0 {
                    self.by_key.remove(&request);
                }
            }
        }
    }
}

/// A claim. Dropped, it lingers.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Mutex<Claimed>>,
    request: RequestKey,
    end: End,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its ticks may be stored.
    Uncertain,
    /// They are.
    Stored,
    /// Nothing of it is or will be stored.
    Void,
}

impl Claim {
    /// Ends the claim at once: nothing of the request is or will be stored.
    pub(super) fn give_back(mut self) {
        self.end = End::Void;
    }

    /// Ends the claim of a request whose ticks are stored; it lingers.
    pub(super) fn settle(mut self) {
        self.end = End::Stored;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.claims.lock();
        let now = Instant::now();
        let until = now + LINGER;
        let Some(holders) = claimed.by_key.get_mut(&self.request) else { return };
        holders.under_way = holders.under_way.saturating_sub(1);
        if self.end != End::Void {
            holders.is_uncertain = self.end == End::Uncertain;
            holders.until = Some(until);
            claimed.lingering.push_back((until, self.request));
        } else if holders.under_way == 0 && holders.until.is_none() {
            claimed.by_key.remove(&self.request);
        }
        claimed.forget(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RequestKey = RequestKey([7; 16]);
    const ONE: BodyHash = BodyHash([1; 16]);
    const OTHER: BodyHash = BodyHash([2; 16]);

    #[tokio::test(start_paused = true)]
    async fn a_key_stands_for_one_body_until_the_tape_has_learned_of_it() {
        let claims = Claims::default();
        let (first, same) = (claims.claim(KEY, ONE).unwrap(), claims.claim(KEY, ONE).unwrap());
        assert!(claims.claim(KEY, OTHER).is_none());
        first.give_back();
        assert!(claims.claim(KEY, OTHER).is_none(), "the other request is under way");
        drop(same);
        assert!(claims.claim(KEY, OTHER).is_none(), "it may be stored");
        tokio::time::advance(LINGER / 2).await;
        drop(claims.claim(KEY, ONE).unwrap());
        tokio::time::advance(LINGER / 2).await;
        assert!(claims.claim(KEY, OTHER).is_none(), "a repetition prolongs it");
        tokio::time::advance(LINGER).await;
        claims.claim(KEY, OTHER).unwrap().give_back();
        claims.claim(KEY, ONE).unwrap().give_back();
        assert!(claims.0.lock().by_key.is_empty() && claims.0.lock().lingering.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_open_until_one_with_its_key_is_known_to_be_stored() {
        let claims = Claims::default();
        assert!(!claims.is_open(KEY));
        let first = claims.claim(KEY, ONE).unwrap();
        assert!(claims.is_open(KEY), "it is under way");
        drop(first);
        assert!(claims.is_open(KEY), "it does not know");
        let (again, refused) = (claims.claim(KEY, ONE).unwrap(), claims.claim(KEY, ONE).unwrap());
        refused.give_back();
        again.settle();
        assert!(!claims.is_open(KEY), "the repetition knows");
        assert!(claims.claim(KEY, OTHER).is_none());
        drop(claims.claim(KEY, ONE).unwrap());
        tokio::time::advance(LINGER).await;
        assert!(!claims.is_open(KEY), "by then the tape has learned of it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_lingers_is_bounded() {
        let claims = Claims::default();
        for number in 0..=LINGERING_MAX as u128 {
            drop(claims.claim(RequestKey(number.to_be_bytes()), ONE).unwrap());
        }
        assert_eq!(claims.0.lock().by_key.len(), LINGERING_MAX);
        assert!(claims.claim(RequestKey(0_u128.to_be_bytes()), OTHER).is_some());
        assert!(
            claims.claim(RequestKey(1_u128.to_be_bytes()), OTHER).is_some(),
            "claimed after one more ended"
        );
        assert!(claims.claim(RequestKey(9_u128.to_be_bytes()), OTHER).is_none());
    }
}
