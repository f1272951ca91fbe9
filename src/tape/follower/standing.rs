//! How a node stands with each tape, for people.

use super::super::frame::Region;
use super::super::time::Mono;
use super::Follower;
use crate::store::TapeId;

/// Whether its writer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapeState {
    /// Something new came a short while ago.
    Live,
    /// Nothing new comes; its writer may be gone.
    Silent,
    /// Its writer has left it for another one.
    Closed,
    /// Its writer has ended it.
    Ended,
}

/// How a node stands with a tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The tape.
    pub tape: TapeId,
    /// The region that writes it, where it is known.
    pub home: Option<Region>,
    /// Whether its writer goes on.
    pub state: TapeState,
    /// Whether the region has it on its list of those that have ended.
    pub is_retired: bool,
    /// All frames below were followed, or given up on.
    pub next: u64,
    /// Those of them that were given up on, and are asked for again now and then.
    pub voids: usize,
    /// The highest seq that was ever seen.
    pub top: u64,
    /// The highest seq that is known to be acknowledged.
    pub low: u64,
    /// How long nothing new has come.
    pub silent_ms: u64,
    /// How long `next` is waited for, where later frames are there.
    pub hole_ms: Option<u64>,
    /// Frames that are there and wait for it.
    pub held: usize,
    /// Whether it was once read to its end.
    pub reached_end: bool,
    /// Whether the last read of it failed.
    pub read_failed: bool,
}

impl Standing {
    /// Frames that are known of and not followed yet.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.top.max(self.low).saturating_sub(self.next - 1)
    }

    /// Why this node is behind, or may be; `None` where it is not.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let Self { next, held, .. } = self;
        let home = self.home.map_or_else(|| "its region".to_owned(), |home| format!("region {home}"));
        if self.read_failed {
            return Some(format!("frames from {next} on cannot be read: the store does not answer"));
        }
        if let Some(ms) = self.hole_ms {
            return Some(format!(
                "frame {next} has not come for {ms} ms, {held} after it wait; {home} is asked"
            ));
        }
        if !self.reached_end {
            return Some("it is being read to its end for the first time".to_owned());
        }
        if self.voids > 0 {
            return Some(format!("{} frames were given up on and are asked for again", self.voids));
        }
        (self.behind() > 0).then(|| "the next frames are on their way".to_owned())
    }
}

impl Follower {
    /// How this node stands with each tape.
    #[must_use]
    pub fn standings(&self, now: Mono) -> Vec<Standing> {
        let standing = |(tape, state): (&TapeId, &super::Followed)| Standing {
            tape: *tape,
            home: state.home,
            state: if state.fin {
                TapeState::Ended
            } else if state.closed {
                TapeState::Closed
            } else if state.is_silent(now, &self.config) {
                TapeState::Silent
            } else {
                TapeState::Live
            },
            is_retired: self.lists.entry(*tape).is_some(),
            next: state.progress.next,
            voids: state.progress.voids.len(),
            top: state.top,
            low: state.low,
            silent_ms: now.since(state.heard),
            hole_ms: state.hole_since.map(|since| now.since(since)),
            held: state.held.len(),
            reached_end: state.reached_end,
            read_failed: state.is_failing,
        };
        self.tapes.iter().map(standing).collect()
    }
}
