//! A body of ticks, read as its bytes arrive.

use super::fields::{self, Source};
use super::json::{self, Scanner};
use super::msgpack::Reader;
use super::refusal::{Malformed, Stop, Verdict};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON array of ticks.
    Json,
    /// One tick a line.
    NdJson,
    /// One MessagePack array of maps, or maps one behind the other.
    MsgPack,
}

/// What a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// The most bytes of one tick as it is written.
    pub tick_bytes_max: usize,
    /// The most ticks of a body.
    pub ticks_max: u32,
    /// The deepest nesting inside one tick.
    pub depth_max: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { tick_bytes_max: 64 * 1024, ticks_max: 100_000, depth_max: 32 }
    }
}

/// Why a body cannot be read on. Nothing of it is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The bytes are not of the format.
    #[error("the body cannot be read at {}byte {byte}: {why}", line.map(|line| format!("line {line}, ")).unwrap_or_default())]
    Malformed {
        /// Where, counted from 0 at the start of the body.
        byte: u64,
        /// Of NDJSON the line, counted from 1.
        line: Option<u64>,
        /// What is wrong there.
        why: &'static str,
    },
    /// One tick is too long.
    #[error("tick {index} is longer than {bytes_max} bytes")]
    TickTooLong {
        /// Its position in the body.
        index: u32,
        /// The limit.
        bytes_max: usize,
    },
    /// The body holds too many ticks.
    #[error("the body holds more than {ticks_max} ticks")]
    TooManyTicks {
        /// The limit.
        ticks_max: u32,
    },
}

/// Where in the body the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before anything.
    Start,
    /// Behind the bracket of a JSON array.
    First,
    /// Behind a comma.
    Element,
    /// Behind an element.
    Behind,
    /// Inside a MessagePack array of which so many are left.
    Counted(u32),
    /// Between values that stand one behind the other.
    Values,
    /// Behind the array.
    End,
}

/// Reads a body in pieces of any size and gives each tick with its position.
///
/// Positions count from 0; of NDJSON they are the numbers of the lines, empty lines
/// included. It holds the bytes of one unfinished tick at most. A tick that is spread
/// over many pieces is tried again only when what is there has doubled, so that the
/// work stays linear in the bytes however they arrive.
#[derive(Debug)]
pub struct BodyReader {
    format: Format,
    limits: ReadLimits,
    state: State,
    /// The bytes of the unfinished tick.
    pending: Vec<u8>,
    /// Bytes of the body before `pending`.
    passed: u64,
    /// How long `pending` must be before it is tried again.
    retry_bytes: usize,
    index: u32,
}

impl BodyReader {
    /// The bytes that are looked at in one go.
    const PIECE_BYTES: usize = 64 * 1024;

    /// A reader at the start of a body.
    #[must_use]
    pub const fn new(format: Format, limits: ReadLimits) -> Self {
        let state = if matches!(format, Format::NdJson) { State::Values } else { State::Start };
        Self { format, limits, state, pending: Vec::new(), passed: 0, retry_bytes: 0, index: 0 }
    }

    /// Takes the next bytes and gives the ticks that they complete to `each`.
    ///
    /// # Errors
    /// [`BodyError`]; the reader is of no use afterwards.
    pub fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(u32, Verdict)) -> Result<(), BodyError> {
        for piece in bytes.chunks(Self::PIECE_BYTES) {
            if self.pending.is_empty() {
                let used = self.parse(piece, false, each)?;
                self.pending.extend_from_slice(piece.get(used..).unwrap_or_default());
                self.passed += used as u64;
                self.retry_bytes = self.pending.len() * 2;
            } else {
                self.feed_behind_pending(piece, each)?;
            }
            if self.pending.len() > self.limits.tick_bytes_max.max(self.retry_bytes) {
                return Err(self.too_long());
            }
        }
        Ok(())
    }

    fn feed_behind_pending(
        &mut self,
        piece: &[u8],
        each: &mut dyn FnMut(u32, Verdict),
    ) -> Result<(), BodyError> {
        self.pending.extend_from_slice(piece);
        let is_due = match self.format {
            Format::NdJson => memchr::memchr(b'\n', piece).is_some(),
            Format::Json | Format::MsgPack => self.pending.len() >= self.retry_bytes,
        };
        if is_due {
            let mut bytes = std::mem::take(&mut self.pending);
            let used = self.parse(&bytes, false, each)?;
            bytes.drain(..used);
            self.pending = bytes;
            self.passed += used as u64;
            self.retry_bytes = self.pending.len() * 2;
        }
        Ok(())
    }

    /// Ends the body: gives what is left to `each`.
    ///
    /// # Errors
    /// [`BodyError`] where the body ends too early.
    pub fn finish(mut self, each: &mut dyn FnMut(u32, Verdict)) -> Result<u32, BodyError> {
        let bytes = std::mem::take(&mut self.pending);
        let used = self.parse(&bytes, true, each)?;
        self.passed += used as u64;
        let why = match self.state {
            State::End | State::Values | State::Counted(0) => return Ok(self.index),
            State::Start => "the body is empty",
            State::First | State::Element | State::Behind => "the array is not closed",
            State::Counted(_) => "the array ends before its last tick",
        };
        Err(self.malformed(Malformed { offset: 0, why }))
    }

    fn parse(
        &mut self,
        bytes: &[u8],
        last: bool,
        each: &mut dyn FnMut(u32, Verdict),
    ) -> Result<usize, BodyError> {
        match self.format {
            Format::Json => self.parse_json(bytes, last, each),
            Format::NdJson => self.parse_lines(bytes, last, each),
            Format::MsgPack => self.parse_msgpack(bytes, last, each),
        }
    }

    fn parse_json(
        &mut self,
        bytes: &[u8],
        last: bool,
        each: &mut dyn FnMut(u32, Verdict),
    ) -> Result<usize, BodyError> {
        let mut scanner = Scanner::new(bytes, 0, self.limits.depth_max, last);
        loop {
            scanner.skip_space();
            let from = scanner.at();
            let Some(byte) = scanner.peek() else { return Ok(from) };
            let why = match (self.state, byte) {
                (State::Start, b'[') => {
                    self.state = State::First;
                    scanner.pass();
                    continue;
                }
                (State::First | State::Behind, b']') => {
                    self.state = State::End;
                    scanner.pass();
                    continue;
                }
                (State::Behind, b',') => {
                    self.state = State::Element;
                    scanner.pass();
                    continue;
                }
                (State::First | State::Element, _) => match fields::read_tick(&mut scanner) {
                    Ok(verdict) => {
                        self.give(verdict, scanner.at() - from, each)?;
                        self.state = State::Behind;
                        continue;
                    }
                    Err(Stop::More) if !last => return Ok(from),
                    Err(stop) => return Err(self.malformed(stop.at_end(bytes.len()))),
                },
                (State::Start, _) => "the body is not an array: [ is missing",
                (State::Behind, _) => "a comma or ] is missing behind a tick",
                _ => "more follows behind the array",
            };
            return Err(self.malformed(Malformed { offset: from, why }));
        }
    }

    fn parse_lines(
        &mut self,
        bytes: &[u8],
        last: bool,
        each: &mut dyn FnMut(u32, Verdict),
    ) -> Result<usize, BodyError> {
        let mut from = 0;
        while let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty()) {
            let end = match memchr::memchr(b'\n', rest) {
                Some(end) => end,
                None if last => rest.len(),
                None => break,
            };
            let line = rest.get(..end).unwrap_or_default();
            if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
                self.count()?;
            } else {
                let verdict = json::read_tick(line, self.limits.depth_max).map_err(|malformed| {
                    self.malformed(Malformed { offset: from + malformed.offset, why: malformed.why })
                })?;
                self.give(verdict, line.len(), each)?;
            }
            from += end + 1;
        }
        Ok(from.min(bytes.len()))
    }

    fn parse_msgpack(
        &mut self,
        bytes: &[u8],
        last: bool,
        each: &mut dyn FnMut(u32, Verdict),
    ) -> Result<usize, BodyError> {
        let mut reader = Reader::new(bytes, 0, self.limits.depth_max);
        loop {
            let from = reader.at();
            if from == bytes.len() {
                return Ok(from);
            }
            let step = match self.state {
                State::Start => reader.enter_array().map(|length| {
                    self.state = length.map_or(State::Values, State::Counted);
                    None
                }),
                State::Counted(0) | State::End => {
                    let why = "more follows behind the array";
                    return Err(self.malformed(Malformed { offset: from, why }));
                }
                _ => fields::read_tick(&mut reader).map(Some),
            };
            match step {
                Ok(None) => {}
                Ok(Some(verdict)) => {
                    self.give(verdict, reader.at() - from, each)?;
                    if let State::Counted(left) = self.state {
                        self.state = State::Counted(left.saturating_sub(1));
                    }
                }
                Err(Stop::More) if !last => return Ok(from),
                Err(stop) => return Err(self.malformed(stop.at_end(bytes.len()))),
            }
        }
    }

    fn give(
        &mut self,
        verdict: Verdict,
        length: usize,
        each: &mut dyn FnMut(u32, Verdict),
    ) -> Result<(), BodyError> {
        if length > self.limits.tick_bytes_max {
            return Err(self.too_long());
        }
        let index = self.index;
        self.count()?;
        each(index, verdict);
        Ok(())
    }

    /// Counts one position.
    const fn count(&mut self) -> Result<(), BodyError> {
        if self.index >= self.limits.ticks_max {
            return Err(BodyError::TooManyTicks { ticks_max: self.limits.ticks_max });
        }
        self.index += 1;
        Ok(())
    }

    const fn too_long(&self) -> BodyError {
        BodyError::TickTooLong { index: self.index, bytes_max: self.limits.tick_bytes_max }
    }

    fn malformed(&self, malformed: Malformed) -> BodyError {
        let line = matches!(self.format, Format::NdJson).then(|| u64::from(self.index) + 1);
        BodyError::Malformed { byte: self.passed + malformed.offset as u64, line, why: malformed.why }
    }
}
