//! One request from its first byte to its answer.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::admission::{Admission, Full, Share};
use super::claims::{Claim, Claims};
use super::{Ack, AppendError, Batch, Durable, Memory, POSITION_PREFIX, Tape, verdict};
use crate::market::{Correction, Event, Nanos, Origin, RequestKey, Row, Status, Tick};
use crate::seal::Keyring;
use crate::tape::{self, BodyHash, Remembered};
use crate::wire::{BodyError, BodyReader, Format, ReadLimits, Refusal, Verdict};

/// What requests may hold.
#[derive(Clone, Copy, Debug)]
pub struct IntakeConfig {
    /// What a body may be.
    pub limits: ReadLimits,
    /// Refused ticks that an answer tells one by one.
    pub verdicts_max: usize,
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
    /// Lines of a connection that stays, by their numbers.
    Stream {
        /// The producer's name for what it sends, over all its connections.
        key: String,
        /// The number of the first line in this batch.
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
#[derive(Debug, Default)]
pub struct Answer {
    /// Ticks in the body.
    pub received: usize,
    /// Good ones.
    pub accepted: usize,
    /// Bad ones.
    pub refused: usize,
    /// The first of the bad ones by their index, as many as are told.
    pub verdicts: Vec<(u32, Box<Refusal>)>,
    /// By which a read can wait for the ticks; none where nothing was stored.
    pub position: Option<String>,
    /// What would become of the request, where only that was asked for.
    pub fate: Option<Fate>,
    /// What the answer holds of the budget until it is sent.
    pub share: Option<Share>,
}

/// What would become of a request that asks for verdicts only, as far as its body decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its good ticks, if any, would be stored.
    Stored,
    /// All or nothing is asked for, and some are bad.
    NotAll,
    /// Its key came with another body.
    KeyReused,
    /// All or nothing is asked for, and the ticks do not fit one frame.
    TooLarge(tape::Refusal),
}

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// One request (`Idempotency-Key`).
    Request,
    /// The lines of connections that stay.
    Stream,
}

/// What became of a request, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The positions that are stored, ascending.
    pub stored: Vec<Range<u32>>,
    /// More of it may be stored: it is under way, or it ended without knowing.
    pub is_open: bool,
    /// How long ago the memory begins, in milliseconds: older requests may be forgotten.
    pub reaches_back_ms: u64,
}

/// Why a request is not answered with verdicts.
#[derive(Debug, thiserror::Error)]
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
    #[error("{} of {} ticks are refused, so none is stored", .0.refused, .0.received)]
    NotAll(Box<Answer>),
    /// The tape has not taken the ticks, or it is not known.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The door through which ticks come in.
pub struct Intake {
    tape: Arc<dyn Tape>,
    keys: Arc<Keyring>,
    admission: Admission,
    claims: Claims,
    config: IntakeConfig,
}

impl Intake {
    /// A door to a tape; `keys` make the tokens of positions.
    #[must_use]
    pub fn new(tape: Arc<dyn Tape>, keys: Arc<Keyring>, config: IntakeConfig) -> Self {
        let admission = Admission::new(config.in_flight_bytes_max);
        Self { tape, keys, admission, claims: Claims::default(), config }
    }

    /// Bytes that requests hold now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.admission.held()
    }

    /// A share of the budget for what a caller holds before it begins a request.
    ///
    /// # Errors
    /// [`TakeError::Full`].
    pub fn share(&self) -> Result<Share, TakeError> {
        Ok(self.admission.admit(0)?)
    }

    /// The most bytes of a tick as it is written.
    #[must_use]
    pub const fn tick_bytes_max(&self) -> usize {
        self.config.limits.tick_bytes_max
    }

    /// What became of what an account sent under a key.
    #[must_use]
    pub fn standing(&self, account: &str, key: &str, of: KeyOf) -> Standing {
        let request = match of {
            KeyOf::Request => RequestKey::of_idempotency_key(account, key),
            KeyOf::Stream => RequestKey::of_stream(account, key),
        };
        // The claim first: a request that ends meanwhile is in the memory by then.
        let is_open = self.claims.is_open(request);
        let Memory { receipt, reaches_back_ms } = self.tape.memory(request);
        let stored = receipt.map(|receipt| receipt.delivered).unwrap_or_default();
        Standing { stored, is_open, reaches_back_ms }
    }

    /// Admits a request; `now` is the wall clock.
    ///
    /// # Errors
    /// [`TakeError::Full`].
    pub fn begin(&self, request: Request, now: Nanos) -> Result<Taking<'_>, TakeError> {
        let share = self.admission.admit(request.expected_bytes)?;
        let first = match &request.name {
            RequestName::Lines { first, .. } | RequestName::Stream { first, .. } => *first,
            RequestName::Body | RequestName::Key(_) => 0,
        };
        let sorting = Sorting {
            now,
            future_ms: self.config.future_ms,
            first,
            received: 0,
            rows: Vec::new(),
            refused: 0,
            verdicts: Vec::new(),
            verdicts_max: self.config.verdicts_max,
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
    /// [`TakeError`]; something is or may be stored in case of [`AppendError::Unknown`] and
    /// [`AppendError::RegionOnly`] alone.
    pub async fn finish(mut self) -> Result<Answer, TakeError> {
        let sorting = &mut self.sorting;
        self.reader.finish(&mut |position, verdict| sorting.take(position, verdict))?;
        self.sorting.failure()?;
        let Sorting { received, rows, refused, verdicts, share, .. } = self.sorting;
        let Taking { intake, request, .. } = self;
        let accepted = rows.len();
        let share = Some(share);
        let mut answer = Answer { received, accepted, refused, verdicts, position: None, fate: None, share };
        let (key, body) = names(&request, self.hasher.finalize().as_bytes());
        if request.options.validate {
            answer.fate = Some(intake.fate(&request.options, refused, key, body, &rows));
            return Ok(answer.alone());
        }
        if request.options.atomic && refused > 0 {
            return Err(TakeError::NotAll(Box::new(answer.alone())));
        }
        let remembered = intake.tape.remembered(key, body);
        if remembered == Remembered::OtherBody {
            return Err(TakeError::KeyReused);
        }
        if rows.is_empty() {
            return Ok(answer.alone());
        }
        let is_keyed = matches!(request.name, RequestName::Key(_));
        let claim = if is_keyed { intake.claims.claim(key, body) } else { None };
        if is_keyed && claim.is_none() && remembered != Remembered::ThisBody {
            return Err(TakeError::KeyReused);
        }
        answer.position = Some(intake.append(&request.options, key, body, rows, claim).await?);
        Ok(answer.alone())
    }
}

impl Answer {
    /// Without a share for the rows, which have gone.
    fn alone(mut self) -> Self {
        if let Some(share) = &mut self.share {
            share.shrink_to(self.verdicts.iter().map(|(_, refusal)| refusal_bytes(refusal)).sum());
        }
        self
    }
}

impl Intake {
    /// What would become of a request.
    fn fate(&self, options: &Options, refused: usize, key: RequestKey, body: BodyHash, rows: &[Row]) -> Fate {
        if options.atomic && refused > 0 {
            return Fate::NotAll;
        }
        if self.tape.remembered(key, body) == Remembered::OtherBody {
            return Fate::KeyReused;
        }
        match self.tape.check_one_frame(rows) {
            Err(refusal) if options.atomic => Fate::TooLarge(refusal),
            _ => Fate::Stored,
        }
    }

    /// Hands the rows to the tape; the position when they are durable.
    async fn append(
        &self,
        options: &Options,
        request: RequestKey,
        body: BodyHash,
        mut rows: Vec<Row>,
        claim: Option<Claim>,
    ) -> Result<String, AppendError> {
        for row in &mut rows {
            row.origin.request = request;
        }
        let Options { atomic, backfill, ack, .. } = *options;
        let batch = Batch { request, body, backfill, atomic, ack, rows };
        let deadline = Instant::now() + Duration::from_millis(self.config.answer_ms);
        let appended = timeout_at(deadline, self.tape.append(batch)).await;
        let appended = match appended.unwrap_or(Err(AppendError::Unknown)) {
            Ok(Durable { position, everywhere: Some(everywhere) }) => {
                let is_everywhere = timeout_at(deadline, everywhere).await.unwrap_or(false);
                if is_everywhere { Ok(position) } else { Err(AppendError::RegionOnly) }
            }
            appended => appended.map(|durable| durable.position),
        };
        match (claim, &appended) {
            (Some(claim), Err(AppendError::Refused(_))) => claim.give_back(),
            (Some(claim), Ok(_) | Err(AppendError::RegionOnly)) => claim.settle(),
            _ => {}
        }
        Ok(self.keys.token(POSITION_PREFIX, &appended?.encode()))
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
        RequestName::Stream { key, .. } => (RequestKey::of_stream(account, key), BodyHash::LINES),
    }
}

/// Ticks on their way into good ones and bad ones.
struct Sorting {
    now: Nanos,
    future_ms: u64,
    first: u32,
    received: usize,
    rows: Vec<Row>,
    refused: usize,
    /// The first of the refused.
    verdicts: Vec<(u32, Box<Refusal>)>,
    verdicts_max: usize,
    share: Share,
    failed: Option<TakeError>,
}

impl Sorting {
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
                self.share.grow(row_bytes(&tick))?;
                self.rows.push(Row { tick, origin: Origin { index, ..Origin::UNKNOWN } });
            }
            Err(refusal) => {
                self.refused += 1;
                if self.verdicts.len() < self.verdicts_max {
                    self.share.grow(refusal_bytes(&refusal))?;
                    self.verdicts.push((index, refusal));
                }
            }
        }
        Ok(())
    }

    fn failure(&mut self) -> Result<(), TakeError> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

/// What an allocation takes beside its bytes.
const ALLOCATION_BYTES: usize = 16;

/// A row with what is on the heap, and with what a growing list keeps free behind it.
fn row_bytes(tick: &Tick) -> usize {
    let heap = match &tick.event {
        Event::Status(status) => {
            let Status { status_code, status_message, reason_code, reason_message, .. } = &**status;
            let texts = [status_code, status_message, reason_code, reason_message];
            let texts = texts.iter().map(|text| text.len() + ALLOCATION_BYTES).sum::<usize>();
            size_of::<Status>() + ALLOCATION_BYTES + texts
        }
        Event::Correction(_) => size_of::<Correction>() + ALLOCATION_BYTES,
        Event::Trade(_)
        | Event::Quote(_)
        | Event::MinuteBar(_)
        | Event::DayBar(_)
        | Event::Luld(_)
        | Event::Cancel(_) => 0,
    };
    2 * size_of::<Row>() + heap
}

/// A refusal with its texts, twice: for a while it is there as the answer's JSON as well.
fn refusal_bytes(refusal: &Refusal) -> usize {
    let Refusal { field, value, why, expected } = refusal;
    let texts = field.len() + value.len() + why.len() + expected.len() + 4 * ALLOCATION_BYTES;
    2 * (size_of::<Refusal>() + 2 * size_of::<(u32, Box<Refusal>)>() + texts)
}
