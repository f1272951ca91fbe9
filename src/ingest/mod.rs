//! Taking ticks in: from the bytes of a request to rows that are durable, and its answer.
//!
//! [`Intake::begin`] admits a request, [`Taking::feed`] takes its decompressed bytes as they
//! arrive, [`Taking::finish`] hands what is good to the tape and waits for it to be durable.
//! Nothing is stored before the whole body has been read: a body that turns out unreadable
//! leaves nothing behind.
//!
//! - **Verdicts.** A bad tick is refused by name and the others go on. A verdict depends on the
//!   tick, the static rules of [`verdict`] and, for the bound on the future, the time.
//! - **Identity.** The request's key is its `Idempotency-Key`, or the file that numbered lines
//!   name, or the stream of a connection that stays, or else the hash of its body. A tick's index is its position in the body (of numbered
//!   lines: its line in the file), whatever became of the ticks before it, so that a repeated
//!   request makes the same ticks. A key stands for one body from before the first of them is
//!   appended ([`claims`]): with another it is refused, with the same it is a repetition.
//! - **Memory.** What requests hold is counted in bytes against one budget ([`Admission`]): the
//!   ticks and refusals decoded so far with all their texts, and at least what the request
//!   announced. A full budget refuses at once. Undecoded bytes are one unfinished tick at most.
//!   Of an endless number of bad ticks the first are told, the others counted. What an answer
//!   holds counts until it is sent.
//! - **Outcome.** Durable, refused with nothing stored, or unknown. Unknown is never told as one
//!   of the others: the same request again is safe and tells.

mod admission;
mod claims;
mod lines;
pub mod verdict;
mod accept;

use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::market::{RequestKey, Row};
use crate::tape::{BodyHash, Receipt, Refusal, Remembered, WaitToken};

pub use accept::{
    Answer, Fate, Intake, IntakeConfig, KeyOf, Options, Request, RequestName, Standing, TakeError, Taking,
};
pub use admission::{Admission, Full, Share};
pub use lines::{BatchLimits, Cut, Lines, LinesError};

/// The prefix of the token by which an acknowledged request can be waited for.
pub const POSITION_PREFIX: &str = "w1.";

/// How far ticks must be durable before the request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// In this region.
    #[default]
    Region,
    /// In every region.
    Global,
}

/// The accepted ticks of one request.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The request.
    pub request: RequestKey,
    /// Its body.
    pub body: BodyHash,
    /// History takes the ticks; live streams and latest values do not.
    pub backfill: bool,
    /// All ticks in one frame.
    pub atomic: bool,
    /// How far they must be durable.
    pub ack: Ack,
    /// The ticks, ascending by `origin.index`; of the origin that and `origin.request` are filled in.
    pub rows: Vec<Row>,
}

/// Why a batch is not known to be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing of it is or will be stored.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may be stored, now or later.
    #[error("it is not known whether the ticks are stored")]
    Unknown,
    /// It is stored here; all regions were asked for, and not each is known to have it.
    #[error("the ticks are stored in this region, and not known to be in each")]
    RegionOnly,
}

/// What the memory of a node has of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What of it is delivered, where anything is.
    pub receipt: Option<Receipt>,
    /// How long ago the memory begins, in milliseconds: older requests may be forgotten.
    pub reaches_back_ms: u64,
}

/// This node's tape, as a request sees it.
#[async_trait]
pub trait Tape: Send + Sync {
    /// What the node has of this request.
    fn memory(&self, request: RequestKey) -> Memory;

    /// How the node remembers this request.
    fn remembered(&self, request: RequestKey, body: BodyHash) -> Remembered;

    /// Whether the ticks of an atomic request, of which the index is filled in, fit one frame.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`].
    fn check_one_frame(&self, rows: &[Row]) -> Result<(), Refusal>;

    /// Writes a batch. Ok: durable in this region. Dropping the future leaves the outcome unknown;
    /// the same batch again is safe.
    async fn append(&self, batch: Batch) -> Result<Durable, AppendError>;
}

/// A batch that is durable in this region.
pub struct Durable {
    /// By which a read can wait for it.
    pub position: WaitToken,
    /// With [`Ack::Global`]: whether each region has it, once that is known.
    pub everywhere: Option<BoxFuture<'static, bool>>,
}

impl From<WaitToken> for Durable {
    fn from(position: WaitToken) -> Self {
        Self { position, everywhere: None }
    }
}

#[cfg(test)]
mod tests;
