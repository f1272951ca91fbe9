//! One request from its first byte to its answer.

use std::sync::Arc;
use std::time::Duration;

use super::admission::{Admission, Full, Share};
use super::{Ack, AppendError, Batch, POSITION_PREFIX, Tape, verdict};
use crate::market::{Nanos, Origin, RequestKey, Row};
use crate::seal::Keyring;
use crate::tape::BodyHash;
use crate::wire::{BodyError, BodyReader, Format, ReadLimits, Refusal, Verdict};

/// What requests may hold.
#[derive(Clone, Copy, Debug)]
pub struct IntakeConfig {
    /// What a body may be.
    pub limits: ReadLimits,
    /// The most bytes that all requests hold at once.
    pub in_flight_bytes_max: usize,
    /// How far in the future a tick's time may be.
    pub future_ms: u64,
    /// After this an append that is not known to be durable is answered as unknown.
    pub answer_ms: u64,
}

/// By what a request is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestName {
    /// Its body.
    Body,
    /// An `Idempotency-Key`.
    Key(String),
    /// Lines of a file, by their numbers.
    Lines {
        /// The producer's name for the import.
        key: String,
        /// SHA-256 of the decompressed file.
        digest: [u8; 32],
        /// The number of the first line in this request.
        first: u32,
    },
}

/// What the client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// All ticks or none, in one frame.
    pub atomic: bool,
    /// History takes the ticks; live streams and latest values do not.
    pub backfill: bool,
    /// Verdicts only, nothing is stored.
    pub validate: bool,
    /// How far the ticks must be durable.
    pub ack: Ack,
}

/// A request before its body.
#[derive(Clone, Debug)]
pub struct Request {
    /// The producer's account.
    pub account: String,
    /// By what it is known again.
    pub name: RequestName,
    /// How its body is written.
    pub format: Format,
    /// What it asks for.
    pub options: Options,
    /// Bytes that it is known to need; 0 where nothing is known.
    pub expected_bytes: usize,
}

/// What became of a request whose body could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Ticks in the body.
    pub received: usize,
    /// Good ones.
    pub accepted: usize,
    /// Bad ones, by their index.
    pub refused: Vec<(u32, Box<Refusal>)>,
    /// By which a read can wait for the ticks; none where nothing was stored.
    pub position: Option<String>,
}

/// Why a request is not answered with verdicts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TakeError {
    /// The body cannot be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Too much is being taken in.
    #[error(transparent)]
    Full(#[from] Full),
    /// The key came with another body before.
    #[error("this Idempotency-Key came with another body before")]
    KeyReused,
    /// The numbers of the lines leave the range.
    #[error("line {0} and those behind it cannot be numbered: at most {max}", max = u32::MAX - 1)]
    Numbering(u64),
    /// All or nothing was asked for, and some are bad.
    #[error("{} of {} ticks are refused, so none is stored", .0.refused.len(), .0.received)]
    NotAll(Answer),
    /// The tape has not taken the ticks, or it is not known.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The door through which ticks come in.
pub struct Intake {
    tape: Arc<dyn Tape>,
    keys: Arc<Keyring>,
    admission: Admission,
    config: IntakeConfig,
}

impl Intake {
    /// A door to a tape; `keys` make the tokens of positions.
    #[must_use]
    pub fn new(tape: Arc<dyn Tape>, keys: Arc<Keyring>, config: IntakeConfig) -> Self {
        Self { tape, keys, admission: Admission::new(config.in_flight_bytes_max), config }
    }

    /// Bytes that requests hold now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.admission.held()
    }

    /// Admits a request; `now` is the wall clock.
    ///
    /// # Errors
    /// [`TakeError::Full`].
    pub fn begin(&self, request: Request, now: Nanos) -> Result<Taking<'_>, TakeError> {
        let share = self.admission.admit(request.expected_bytes)?;
        let first = match &request.name {
            RequestName::Lines { first, .. } => *first,
            RequestName::Body | RequestName::Key(_) => 0,
        };
        let sorting = Sorting {
            now,
            future_ms: self.config.future_ms,
            first,
            received: 0,
            rows: Vec::new(),
            refused: Vec::new(),
            share,
            failed: None,
        };
        let reader = BodyReader::new(request.format, self.config.limits);
        Ok(Taking { intake: self, request, reader, hasher: blake3::Hasher::new(), sorting })
    }
}

/// A request being taken in.
pub struct Taking<'i> {
    intake: &'i Intake,
    request: Request,
    reader: BodyReader,
    hasher: blake3::Hasher,
    sorting: Sorting,
}

impl Taking<'_> {
    /// Holds `bytes` more of the budget, for what the caller needs to decode the body.
    ///
    /// # Errors
    /// [`TakeError::Full`].
    pub fn hold(&mut self, bytes: usize) -> Result<(), TakeError> {
        Ok(self.sorting.share.grow(bytes)?)
    }

    /// Takes the next bytes of the decompressed body.
    ///
    /// # Errors
    /// [`TakeError`]; nothing of the request is stored then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), TakeError> {
        self.hasher.update(bytes);
        let sorting = &mut self.sorting;
        self.reader.feed(bytes, &mut |position, verdict| sorting.take(position, verdict))?;
        self.sorting.failure()
    }

    /// Ends the body, hands the good ticks to the tape and waits until they are durable.
    ///
    /// # Errors
    /// [`TakeError`]; something is or may be stored in case of [`AppendError::Unknown`] alone.
    pub async fn finish(mut self) -> Result<Answer, TakeError> {
        let sorting = &mut self.sorting;
        self.reader.finish(&mut |position, verdict| sorting.take(position, verdict))?;
        self.sorting.failure()?;
        let Sorting { received, mut rows, refused, share, .. } = self.sorting;
        let mut answer = Answer { received, accepted: rows.len(), refused, position: None };
        let options = self.request.options;
        if options.atomic && !answer.refused.is_empty() {
            return Err(TakeError::NotAll(answer));
        }
        let (request, body) = names(&self.request, self.hasher.finalize().as_bytes());
        if self.intake.tape.is_reused(request, body) {
            return Err(TakeError::KeyReused);
        }
        if options.validate || rows.is_empty() {
            return Ok(answer);
        }
        for row in &mut rows {
            row.origin.request = request;
        }
        let batch = Batch {
            request,
            body,
            backfill: options.backfill,
            atomic: options.atomic,
            ack: options.ack,
            rows,
        };
        let limit = Duration::from_millis(self.intake.config.answer_ms);
        let appended = tokio::time::timeout(limit, self.intake.tape.append(batch)).await;
        let token = appended.unwrap_or(Err(AppendError::Unknown))?;
        answer.position = Some(self.intake.keys.token(POSITION_PREFIX, &token.encode()));
        drop(share);
        Ok(answer)
    }
}

/// The request key, and the body by which a second use of it is told from a repetition.
fn names(request: &Request, digest: &[u8; 32]) -> (RequestKey, BodyHash) {
    let account = &request.account;
    let body = BodyHash::of_digest(digest);
    match &request.name {
        RequestName::Body => (RequestKey::of_body(account, digest), body),
        RequestName::Key(key) => (RequestKey::of_idempotency_key(account, key), body),
        RequestName::Lines { key, digest, .. } => {
            (RequestKey::of_lines(account, key, digest), BodyHash::LINES)
        }
    }
}

/// Ticks on their way into good ones and bad ones.
struct Sorting {
    now: Nanos,
    future_ms: u64,
    first: u32,
    received: usize,
    rows: Vec<Row>,
    refused: Vec<(u32, Box<Refusal>)>,
    share: Share,
    failed: Option<TakeError>,
}

impl Sorting {
    /// A row, with what a growing list keeps free behind it.
    const ROW_BYTES: usize = 2 * size_of::<Row>();
    /// A refusal, with its texts.
    const REFUSAL_BYTES: usize = size_of::<Refusal>() + 2 * size_of::<(u32, Box<Refusal>)>() + 256;

    fn take(&mut self, position: u32, verdict: Verdict) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.sort(position, verdict) {
            self.failed = Some(error);
        }
    }

    fn sort(&mut self, position: u32, verdict: Verdict) -> Result<(), TakeError> {
        self.received += 1;
        let index = self.first.checked_add(position).filter(|index| *index < u32::MAX);
        let index = index.ok_or_else(|| TakeError::Numbering(u64::from(self.first) + u64::from(position)))?;
        let verdict = verdict.and_then(|tick| verdict::check(&tick, self.now, self.future_ms).map(|()| tick));
        match verdict {
            Ok(tick) => {
                self.share.grow(Self::ROW_BYTES)?;
                self.rows.push(Row { tick, origin: Origin { index, ..Origin::UNKNOWN } });
            }
            Err(refusal) => {
                self.share.grow(Self::REFUSAL_BYTES)?;
                self.refused.push((index, refusal));
            }
        }
        Ok(())
    }

    fn failure(&mut self) -> Result<(), TakeError> {
        self.failed.take().map_or(Ok(()), Err)
    }
}
