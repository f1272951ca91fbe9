//! Admission by bytes: what all requests hold at once while they are taken in.
//!
//! There is no queue. What does not fit is refused at once, so that accepted work keeps
//! its latency and the client comes again later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The budget in bytes that all requests share.
#[derive(Clone, Debug)]
pub struct Admission {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests being taken in hold {max} bytes already, the most they may")]
pub struct Full {
    /// The budget.
    pub max: usize,
}

impl Admission {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(0)), max }
    }

    /// A share for one request, of which it is known that it needs `expected` bytes or none.
    ///
    /// # Errors
    /// [`Full`] when they are not there.
    pub fn admit(&self, expected: usize) -> Result<Share, Full> {
        let mut share = Share { budget: self.clone(), held: 0, used: 0 };
        // One that promises nothing still needs a place, so that a full budget refuses it at once.
        share.hold(expected.max(1))?;
        Ok(share)
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one request holds; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Admission,
    held: usize,
    used: usize,
}

impl Share {
    /// How much is taken at a time, so that growing tick by tick costs little.
    const STEP: usize = 64 * 1024;

    /// Counts `bytes` more as used.
    ///
    /// # Errors
    /// [`Full`] when the budget has no more.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        self.used = self.used.saturating_add(bytes);
        let short = self.used.saturating_sub(self.held);
        if short == 0 { Ok(()) } else { self.hold(short.max(Self::STEP)).or_else(|_| self.hold(short)) }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let over = self.held.saturating_sub(bytes);
        self.budget.used.fetch_sub(over, Ordering::Relaxed);
        self.held -= over;
        self.used = self.used.min(bytes);
    }

    /// What its refusal says.
    #[must_use]
    pub const fn full(&self) -> Full {
        Full { max: self.budget.max }
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let max = self.budget.max;
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= max);
        // Nothing else is ordered by this number.
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.map_err(|_| Full { max })?;
        self.held += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_ends_gives_back() {
        let budget = Admission::new(200_000);
        let first = budget.admit(150_000).unwrap();
        assert_eq!(budget.admit(60_000).unwrap_err(), Full { max: 200_000 });
        let mut second = budget.admit(0).unwrap();
        second.grow(40_000).unwrap();
        assert_eq!(second.grow(60_000), Err(Full { max: 200_000 }));
        drop(first);
        second.grow(0).unwrap();
        assert!(budget.held() >= 100_000, "{}", budget.held());
        drop(second);
        assert_eq!(budget.held(), 0);
        budget.admit(200_000).unwrap();
    }

    #[test]
    fn a_full_budget_refuses_even_what_promises_nothing() {
        let budget = Admission::new(10);
        let _all = budget.admit(10).unwrap();
        assert!(budget.admit(0).is_err());
    }

    #[test]
    fn the_last_bytes_can_be_had_too() {
        let budget = Admission::new(1_000);
        let mut share = budget.admit(0).unwrap();
        share.grow(1_000).unwrap();
        assert_eq!(budget.held(), 1_000);
        assert!(share.grow(1).is_err());
        share.shrink_to(10);
        assert_eq!(budget.held(), 10);
        share.grow(5).unwrap();
        share.shrink_to(1_000);
        assert!(budget.held() >= 15, "shrinking never grows");
        drop(share);
        assert_eq!(budget.held(), 0);
    }
}
