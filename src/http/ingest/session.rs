//! One connection of a producer: lines in, acknowledgements out.
//!
//! A loop over what comes next: a batch that is durable, a piece of the body, the end of a wait.
//! Batches are decoded one behind the other and handed to the tape in that order; several are
//! under way at once, and told in their order.

use std::time::Duration;

use axum::body::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::http::ticks::{TickVerdict, take_error};
use crate::http::{ApiError, Clock, auth};
use crate::ingest::{
    Answer, BatchLimits, Cut, Intake, Lines, LinesError, Options, Request, RequestName, Share, TakeError,
    Taking,
};
use crate::telemetry::Metrics;
use crate::wire::{BodyError, Format};

/// How much is decoded before other work has its turn.
const TURN_BYTES: usize = 16 * 1024;
/// Between tries to get memory.
const AGAIN: Duration = Duration::from_millis(20);

/// What a session works with.
pub(super) struct Parts<'a> {
    pub(super) intake: &'a Intake,
    pub(super) config: &'a config::Ingest,
    pub(super) metrics: &'a Metrics,
    pub(super) clock: &'a Clock,
    pub(super) account: &'a str,
    /// Whether the key that was shown still is good.
    pub(super) is_admitted: Box<dyn Fn() -> bool + Send + Sync + 'a>,
    /// How long an acknowledgement may wait to be taken.
    pub(super) stall: Duration,
}

/// What the producer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) key: String,
    pub(super) first: u32,
    pub(super) backfill: bool,
}

/// A line of the answer, and what it holds of the budget until it is taken.
pub(super) struct Said {
    pub(super) line: Bytes,
    _share: Option<Share>,
}

/// The acknowledgement of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ack {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) position: Option<String>,
    pub(super) accepted: usize,
    pub(super) refused: Vec<RefusedLine>,
    pub(super) refused_omitted: usize,
}

/// Why one line was refused.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefusedLine {
    pub(super) line: u32,
    pub(super) field: String,
    pub(super) value: String,
    pub(super) why: String,
    pub(super) expected: String,
}

/// A batch whose fate is known.
struct Done {
    end: u32,
    first: u32,
    bytes: usize,
    result: Result<Answer, ApiError>,
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The body has ended.
    End,
    /// The node stops.
    Draining,
    /// Nothing came for long.
    Idle,
    /// A batch failed, and is told when those before it are.
    Failed,
}

/// How the answer ends.
enum Last {
    Bye(&'static str),
    Error(ApiError),
    /// Nobody listens any more.
    Gone(&'static str),
}

/// What came next.
enum Event {
    Gone,
    Done(Done),
    Draining,
    Piece(Option<Result<Bytes, axum::Error>>),
    Due,
}

pub(super) struct Session<'a> {
    parts: Parts<'a>,
    stream: Stream,
    lines: Lines,
    /// A batch for which there was no memory yet.
    waiting: Option<Cut>,
    /// For the bytes of `lines` and `waiting`.
    share: Share,
    /// Since when there is no memory.
    pressed: Option<Instant>,
    /// When the first of the lines that are not cut yet came.
    gathered: Option<Instant>,
    /// When the producer was last heard, or last kept from being heard.
    heard: Instant,
    under_way: FuturesOrdered<BoxFuture<'a, Done>>,
    under_way_bytes: usize,
    /// The first line that is not acknowledged.
    resume_from: u32,
    ending: Option<Ending>,
    say: mpsc::Sender<Said>,
}

impl<'a> Session<'a> {
    pub(super) fn new(parts: Parts<'a>, stream: Stream, share: Share, say: mpsc::Sender<Said>) -> Self {
        let limits = BatchLimits {
            lines_max: parts.config.batch_lines_max,
            bytes_max: parts.config.batch_bytes_max,
            line_bytes_max: parts.intake.tick_bytes_max(),
        };
        Self {
            lines: Lines::new(stream.first, limits),
            resume_from: stream.first,
            parts,
            stream,
            waiting: None,
            share,
            pressed: None,
            gathered: None,
            heard: Instant::now(),
            under_way: FuturesOrdered::new(),
            under_way_bytes: 0,
            ending: None,
            say,
        }
    }

    /// Takes the body in; answers the name of how it ended.
    pub(super) async fn run(
        mut self,
        mut body: impl futures::Stream<Item = Result<Bytes, axum::Error>> + Unpin + Send,
        draining: &CancellationToken,
    ) -> &'static str {
        let last = loop {
            if let Err(error) = self.dispatch().await {
                break Last::Error(error);
            }
            if self.is_over() {
                break Last::Bye(self.ending.map_or("end", Ending::name));
            }
            let event = self.next(&mut body, draining).await;
            if let Some(last) = self.take(event).await {
                break last;
            }
        };
        self.close(last).await
    }

    /// Hands over as many batches as are due.
    async fn dispatch(&mut self) -> Result<(), ApiError> {
        let patience = Duration::from_millis(self.parts.config.answer_ms);
        if self.pressed.is_some_and(|since| since.elapsed() >= patience) {
            return Err(take_error(TakeError::Full(self.share.full())));
        }
        if self.pressed.is_some() && self.share.grow(0).is_err() {
            return Ok(());
        }
        while !matches!(self.ending, Some(Ending::Draining | Ending::Idle | Ending::Failed)) {
            let Some(cut) = self.cut() else { break };
            match self.decode(&cut).await {
                Ok(Some(taking)) => self.hand_over(&cut, taking),
                Ok(None) => {
                    self.pressed.get_or_insert_with(Instant::now);
                    self.waiting = Some(cut);
                    return Ok(());
                }
                Err(error) => self.fail(&cut, error),
            }
            self.share.shrink_to(self.lines.len());
        }
        self.pressed = None;
        Ok(())
    }

    /// The next batch, where one is due.
    fn cut(&mut self) -> Option<Cut> {
        if let Some(cut) = self.waiting.take() {
            return Some(cut);
        }
        let at_end = self.ending == Some(Ending::End);
        let is_due =
            at_end || self.lines.is_full() || self.linger_ends().is_some_and(|at| at <= Instant::now());
        let is_long = self.lines.len() > self.parts.intake.tick_bytes_max();
        if !is_due && !is_long {
            return None;
        }
        match self.lines.cut(at_end) {
            Ok(cut) => {
                self.gathered = self.lines.has_line().then(Instant::now);
                cut
            }
            Err(error) => {
                let cut = Cut { first: self.resume_from, lines: 0, bytes: Bytes::new() };
                self.fail(&cut, lines_error(error));
                None
            }
        }
    }

    /// Until when the gathered lines wait for others.
    fn linger_ends(&self) -> Option<Instant> {
        let linger = Duration::from_millis(self.parts.config.batch_linger_ms);
        let linger = if self.under_way.is_empty() { Duration::ZERO } else { linger };
        self.gathered.map(|since| since + linger)
    }

    /// Decodes a batch; none where there is no memory for it now.
    async fn decode(&mut self, cut: &Cut) -> Result<Option<Taking<'a>>, ApiError> {
        if !(self.parts.is_admitted)() {
            return Err(auth::unauthorized(crate::http::limits::LASTING));
        }
        let name = RequestName::Stream { key: self.stream.key.clone(), first: cut.first };
        let options = Options { backfill: self.stream.backfill, ..Options::default() };
        let account = self.parts.account.to_owned();
        let request = Request { account, name, format: Format::NdJson, options, expected_bytes: 0 };
        let taken = self.parts.intake.begin(request, (self.parts.clock)());
        let mut taking = match taken {
            Err(TakeError::Full(_)) => return Ok(None),
            taken => taken.map_err(|error| batch_error(cut.first, error))?,
        };
        for piece in cut.bytes.chunks(TURN_BYTES) {
            match taking.feed(piece) {
                Err(TakeError::Full(_)) => return Ok(None),
                fed => fed.map_err(|error| batch_error(cut.first, error))?,
            }
            tokio::task::yield_now().await;
        }
        Ok(Some(taking))
    }

    fn hand_over(&mut self, cut: &Cut, taking: Taking<'a>) {
        let (first, end, bytes) = (cut.first, cut.end(), cut.bytes.len());
        self.under_way_bytes += bytes;
        let done = async move {
            let result = taking.finish().await.map_err(|error| batch_error(first, error));
            Done { first, end, bytes, result }
        };
        self.under_way.push_back(done.boxed());
    }

    /// A batch that is told as failed when those before it are told.
    fn fail(&mut self, cut: &Cut, error: ApiError) {
        self.ending = Some(Ending::Failed);
        let done = Done { first: cut.first, end: cut.end(), bytes: 0, result: Err(error) };
        self.under_way.push_back(std::future::ready(done).boxed());
    }

    fn is_over(&self) -> bool {
        let all_cut = self.lines.is_empty() && self.waiting.is_none();
        self.under_way.is_empty()
            && match self.ending {
                None | Some(Ending::Failed) => false,
                Some(Ending::End) => all_cut,
                Some(Ending::Draining | Ending::Idle) => true,
            }
    }

    fn reads(&self) -> bool {
        let held =
            self.under_way_bytes + self.lines.len() + self.waiting.as_ref().map_or(0, |cut| cut.bytes.len());
        self.ending.is_none() && self.pressed.is_none() && held < self.parts.config.window_bytes_max
    }

    async fn next(
        &mut self,
        body: &mut (impl futures::Stream<Item = Result<Bytes, axum::Error>> + Unpin),
        draining: &CancellationToken,
    ) -> Event {
        let reads = self.reads();
        let idle = self.heard + Duration::from_millis(self.parts.config.stream_idle_ms);
        let times = [
            self.linger_ends().filter(|_| self.ending.is_none() && self.pressed.is_none()),
            self.pressed.map(|_| Instant::now() + AGAIN),
            reads.then_some(idle),
        ];
        let due = times.into_iter().flatten().min();
        let due = async move {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let Self { under_way, say, ending, .. } = self;
        tokio::select! {
            biased;
            () = say.closed() => Event::Gone,
            Some(done) = under_way.next(), if !under_way.is_empty() => Event::Done(done),
            () = draining.cancelled(), if ending.is_none() => Event::Draining,
            piece = body.next(), if reads => Event::Piece(piece),
            () = due => Event::Due,
        }
    }

    /// Answers how the session ends, where it does.
    async fn take(&mut self, event: Event) -> Option<Last> {
        match event {
            Event::Gone => return Some(Last::Gone("gone")),
            Event::Done(done) => return self.acknowledge(done).await,
            Event::Draining => self.ending = Some(Ending::Draining),
            Event::Piece(Some(Ok(bytes))) => {
                self.heard = Instant::now();
                self.lines.push(&bytes);
                if self.share.grow(bytes.len()).is_err() {
                    self.pressed.get_or_insert_with(Instant::now);
                }
                if self.lines.has_line() {
                    self.gathered.get_or_insert_with(Instant::now);
                }
            }
            Event::Piece(Some(Err(_))) => return Some(Last::Gone("cut")),
            Event::Piece(None) => self.ending = Some(Ending::End),
            Event::Due => {
                let idle = Duration::from_millis(self.parts.config.stream_idle_ms);
                if self.reads() && self.heard.elapsed() >= idle {
                    self.ending = Some(Ending::Idle);
                }
            }
        }
        None
    }

    async fn acknowledge(&mut self, done: Done) -> Option<Last> {
        self.under_way_bytes = self.under_way_bytes.saturating_sub(done.bytes);
        self.heard = Instant::now();
        let mut answer = match done.result {
            Ok(answer) => answer,
            Err(error) => return Some(Last::Error(error)),
        };
        let ticks = &self.parts.metrics.ingest_ticks;
        ticks.with_label_values(&["accepted"]).inc_by(answer.accepted as u64);
        ticks.with_label_values(&["refused"]).inc_by(answer.refused as u64);
        self.resume_from = done.end;
        let share = answer.share.take();
        let ack = acknowledgement(done.first, done.end, answer);
        let line = serde_json::to_vec(&ack).unwrap_or_default();
        if self.told(line, share).await { None } else { Some(Last::Gone("stalled")) }
    }

    async fn told(&mut self, mut line: Vec<u8>, share: Option<Share>) -> bool {
        line.push(b'\n');
        let said = Said { line: line.into(), _share: share };
        matches!(tokio::time::timeout(self.parts.stall, self.say.send(said)).await, Ok(Ok(())))
    }

    /// Says the last line.
    async fn close(mut self, last: Last) -> &'static str {
        let from = self.resume_from;
        let (line, name) = match last {
            Last::Gone(name) => return name,
            Last::Bye(name) => (format!("{{\"bye\":\"{name}\",\"resume_from\":{from}}}"), name),
            Last::Error(error) => {
                let outcome = if error.is_unknown() { ",\"outcome\":\"unknown\"" } else { "" };
                (format!("{{\"error\":{}{outcome},\"resume_from\":{from}}}", error.body()), "error")
            }
        };
        if self.told(line.into_bytes(), None).await { name } else { "stalled" }
    }
}

impl Ending {
    const fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Draining => "draining",
            Self::Idle => "idle",
            Self::Failed => "error",
        }
    }
}

fn acknowledgement(first: u32, end: u32, answer: Answer) -> Ack {
    let told = answer.verdicts.len();
    let refused = crate::http::ticks::verdicts(answer.verdicts).into_iter().map(|verdict| {
        let TickVerdict { index: line, field, value, why, expected } = verdict;
        RefusedLine { line, field, value, why, expected }
    });
    Ack {
        first,
        last: end.saturating_sub(1),
        position: answer.position,
        accepted: answer.accepted,
        refused: refused.collect(),
        refused_omitted: answer.refused.saturating_sub(told),
    }
}

/// What failed in a batch, with its lines by their numbers.
fn batch_error(first: u32, error: TakeError) -> ApiError {
    match error {
        TakeError::Body(BodyError::Malformed { line: Some(line), why, .. }) => {
            let line = u64::from(first) + line.saturating_sub(1);
            ApiError::bad_request(format!("line {line} cannot be read: {why}"))
                .with("reason", "unreadable")
                .with("line", line)
        }
        TakeError::Body(BodyError::TickTooLong { index, bytes_max }) => {
            lines_error(LinesError::TooLong { line: first.saturating_add(index), bytes_max })
        }
        TakeError::Numbering(line) => lines_error(LinesError::Numbering { line }),
        error => take_error(error),
    }
}

fn lines_error(error: LinesError) -> ApiError {
    let message = error.to_string();
    match error {
        LinesError::TooLong { line, .. } => {
            ApiError::too_large(message).with("reason", "tick_bytes").with("line", line)
        }
        LinesError::Numbering { .. } => ApiError::bad_request(message).with("field", "first"),
    }
}
