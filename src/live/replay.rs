//! What a client lacks and is given before it joins the hub.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Share;
use super::interest::Interest;
use super::place::Start;
use crate::market::Nanos;
use crate::store::StoreError;
use crate::tape::{Frame, Position, Resume};

/// A part of the interest that is to be given from some start before it joins the hub.
pub(super) struct Job {
    pub(super) interest: Interest,
    pub(super) start: Start,
}

pub(super) enum Replay {
    /// The Position of a time is looked for.
    Finding(Box<Finding>),
    Running(Box<Running>),
}

pub(super) struct Finding {
    pub(super) interest: Interest,
    pub(super) since: Nanos,
    pub(super) told: Nanos,
    pub(super) found: AbortOnDropHandle<Result<Position, StoreError>>,
}

pub(super) struct Running {
    pub(super) interest: Interest,
    pub(super) since: Nanos,
    /// The bars announced until then are not lacking.
    pub(super) told: Nanos,
    pub(super) resume: Resume,
    pub(super) read: Option<AbortOnDropHandle<Option<Vec<Arc<Frame>>>>>,
    pub(super) again: Option<Instant>,
    /// Its share of the memory of all replays.
    pub(super) _share: Share,
}
