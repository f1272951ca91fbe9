//! Bars as they close: the fold of what is delivered live, told at the minute mark.
//!
//! [`OpenBars`] is a pure state machine: rows go in as they are delivered, `now` with them, and
//! ticks to publish come out, and questions to history. A trade is folded in its minute, whose
//! open fold remembers tick ids, so that a copy counts once; the day is the sum of its minutes
//! by the day's rules and remembers no id.
//!
//! # When a bar is told
//!
//! | bar | when |
//! |---|---|
//! | `b` | its minute closes |
//! | `u` | 30 s after the mark, then every 30 s, where what came since changed it; until 30 s bring nothing |
//! | `d` | when a minute closes, of all symbols that something came for; with `u`, of its symbol |
//!
//! A minute closes by the first of three, so that a feed of today closes by the clock and a
//! recorded day, at whatever speed, by its own time:
//! - **The clock**: the wall clock is `mark_ms` (50) past its end. Only of a minute that was opened
//!   before that: of a day that is past, the clock says nothing.
//! - **The watermark** of event time is `slack_ms` (2 s, of event time) past its end. The watermark
//!   belongs to a New York day, so that a replay beside a feed of today disturbs neither. It is the
//!   *second* highest time of the day's ticks: one wrong stamp moves nothing. And it is never
//!   ahead of the wall clock: a tick of today may be `ingest.future_ms` ahead, and closes nothing.
//! - **Silence**: nothing of the day came for `quiet_ms` (10 s) of real time, as at the end of a
//!   replay. A replay with longer pauses inside a minute gets its bar early, and the rest as `u`.
//!
//! Nothing is told of a bar that has no price (only odd lots, or every trade canceled): what was
//! told of it stands. A minute that was let go and that a copy comes for is told again as it was.
//!
//! The 30 s are those of the watermark or of real time since the last telling, whichever is first.
//!
//! # When history is asked
//!
//! A bar is told from its fold only where the fold holds every live trade of it; else it is asked
//! of history ([`BarsEffect::Ask`]), if somebody wants it. That is so
//! - where trades may have come before this machine was there: in a minute that begins before the
//!   `horizon` of its symbol. At first that is the wall time at which the machine was made plus
//!   `ingest.future_ms`: no trade of a later minute can have been accepted before. Of a day that is
//!   past every minute begins before that; the first answer of history therefore tells the newest
//!   time that it holds of the symbol, and the horizon falls to that. So a symbol asks for the
//!   minute of the start (of a recorded day also for the next) and for the day; after that it folds. What this misses: nothing
//!   that the ingest of this region took in; a tick of a region whose clock is ahead by more than
//!   a second can be missed in the first minute after the start, until the day's next `u`.
//! - where a correction or cancel came: for the symbol's open minutes at once, and for the minute
//!   of the trade that it names, which only history can find. A trade that comes after its
//!   correction is known by its name. A correction that comes on a later day changes history alone.
//! - where a copy says something else, where a trade came after its minute was let go, and where
//!   the fold was let go for want of room.
//!
//! The day then goes on from history's answer: a fold of the trades before a minute from which on
//! all folds are whole. So a disturbance costs one read of the symbol's day, not one a minute; in
//! a minute whose fold is not whole it is one a `d`. An answer that was overtaken is told, for it
//! was true, and asked again.
//!
//! # Ingested bars
//!
//! They are passed on by whoever publishes ticks. Where one was seen before the folded bar of its
//! symbol and span is told, that one is not told (and no `u` after it): as in history, the
//! ingested one stands. Backfills never come here: what they change is told by history alone.
//!
//! # Bounds
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | folds and ids (some 400 B a symbol and day, 1 KB an open minute, 58 B a trade in it) | `bytes_max` | the largest folds are let go and asked of history; when nothing is left to let go, new symbols and minutes are not told (`refused`) |
//! | questions in flight | `asks_max` | they queue |
//! | questions that queue | `asks_queued_max` | not asked now; 30 s later again (`asks_dropped`) |
//! | days at once | 16 | the one that was silent longest is told as it stands and let go |
//! | a silent day | 1 h | let go; what comes later is asked of history |
//!
//! # How an adapter drives it
//!
//! One lock, and one task. Make it when the view is caught up ([`crate::tape::Follower::caught_up`]);
//! rows delivered before that are history to it, and are not fed.
//! * each delivery, in order: [`OpenBars::apply`] with each of its live rows, in the same step as
//!   the tail moves, so that a question made later reads at least what was applied; then wake the task.
//! * the task: [`OpenBars::poll`] after rows came (20 ms later will do, for many at once) and when
//!   [`OpenBars::due`] has come. `wanted` says whether anybody hears the symbol's minute bars
//!   (channels bars and updatedBars) or its daily bars.
//! * [`BarsEffect::Tell`]: publish, on the channel bars or, where the bar is `updated`, updatedBars,
//!   or dailyBars. It is told whether wanted or not.
//! * [`BarsEffect::Ask`]: `Reader::so_far` outside the lock, then [`OpenBars::answered`] with
//!   the answer, or `None` when it failed; then poll.

mod asks;
mod book;
mod day;
mod slot;
#[cfg(test)]
mod tests;

use crate::bars::Period;
use crate::config;
use crate::history::{SoFar, SoFarQuery};
use crate::market::{Nanos, Row, Symbol, Tick};
use crate::tape::{Mono, Now};
use asks::Asks;
use day::Day;

/// Days held at once.
const DAYS_MAX: usize = 16;
/// A day of which nothing came for so long is let go.
const DAY_QUIET_MS: u64 = 3_600_000;
/// More than one row takes.
const ROW_BYTES: usize = 4_096;
/// By how much clocks of nodes may differ.
const CLOCKS_DIFFER_MS: u64 = 1_000;

/// Limits and times of live bars.
#[derive(Clone, Copy, Debug)]
pub struct BarLimits {
    /// Memory for open folds and their ids.
    pub bytes_max: usize,
    /// A minute of today closes so long after its end.
    pub mark_ms: u64,
    /// A minute closes when the watermark of event time is so far past its end.
    pub slack_ms: u64,
    /// A minute that is past closes when nothing of its day came for so long.
    pub quiet_ms: u64,
    /// How far in the future a tick may be.
    pub future_ms: u64,
    /// Questions to history in flight.
    pub asks_max: usize,
    /// Questions that wait.
    pub asks_queued_max: usize,
}

impl BarLimits {
    /// The limits of a configuration.
    #[must_use]
    pub const fn of(live: &config::Live, ingest: &config::Ingest) -> Self {
        Self {
            bytes_max: live.bars_bytes_max,
            mark_ms: live.bars_mark_ms,
            slack_ms: live.bars_slack_ms,
            quiet_ms: live.bars_quiet_ms,
            future_ms: ingest.future_ms,
            asks_max: live.bars_asks_max,
            asks_queued_max: live.bars_asks_queued_max,
        }
    }
}

/// Names a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What is to be done.
#[derive(Clone, Debug)]
pub enum BarsEffect {
    /// Publish a bar: an event of minute or daily bars.
    Tell(Tick),
    /// Read history, then call [`OpenBars::answered`].
    Ask {
        /// Names the question.
        id: AskId,
        /// The question.
        query: SoFarQuery,
    },
}

/// How the machine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarCounts {
    /// Memory in use.
    pub bytes: usize,
    /// Questions in flight and waiting.
    pub asking: usize,
    /// Folds that were let go for want of room, in all.
    pub shed: u64,
    /// Trades that found no room at all: their bars are not told.
    pub refused: u64,
    /// Questions that found no room in the queue, in all.
    pub asks_dropped: u64,
}

/// What all days share.
pub(in crate::live::bars) struct Room {
    limits: BarLimits,
    asks: Asks,
    counts: BarCounts,
    /// What of `counts.bytes` letting go of folds would free.
    folds: usize,
    /// Rows before this wall time may not have come here.
    since: Nanos,
    out: Vec<BarsEffect>,
}

/// The minute and daily bars of what is delivered live.
pub struct OpenBars {
    days: Vec<Day>,
    room: Room,
}

impl OpenBars {
    /// A machine that has seen nothing of what was before `now`.
    #[must_use]
    pub fn new(limits: BarLimits, now: Now) -> Self {
        let asks = Asks::new(limits.asks_max, limits.asks_queued_max);
        let (counts, out) = (BarCounts::default(), Vec::new());
        let room = Room { limits, asks, counts, folds: 0, since: now.wall, out };
        Self { days: Vec::new(), room }
    }

    /// Takes a row that was delivered live.
    pub fn apply(&mut self, row: &Row, now: Now) {
        use crate::market::Event as E;
        let time = row.tick.time;
        if self.room.counts.bytes + ROW_BYTES > self.room.limits.bytes_max {
            self.shed();
        }
        if !matches!(row.tick.event, E::Quote(_) | E::Status(_) | E::Luld(_)) {
            self.open_day(time, now);
        }
        let Some(day) = self.days.iter_mut().find(|day| day.holds(time)) else { return };
        match &row.tick.event {
            E::Trade(trade) => {
                let late = day.is_over(time, now, &self.room);
                day.advance(time, now);
                day.trade(row, trade, late, now, &mut self.room);
            }
            E::MinuteBar(_) | E::DayBar(_) => day.ingested(&row.tick, now, &mut self.room),
            E::Correction(_) | E::Cancel(_) => {
                day.advance(time, now);
                day.amended(&row.tick, now, &mut self.room);
            }
            E::Quote(_) | E::Status(_) | E::Luld(_) => day.advance(time, now),
        }
    }

    /// What is to be done now. `wanted` says whether somebody hears a symbol's bars.
    pub fn poll(&mut self, now: Now, wanted: impl Fn(Symbol, Period) -> bool) -> Vec<BarsEffect> {
        for day in &mut self.days {
            if now.mono.since(day.fed) >= DAY_QUIET_MS {
                day.ended = true;
            }
            day.poll(now, &wanted, &mut self.room);
        }
        if self.days.iter().any(|day| day.ended) {
            self.room.since = now.wall;
            self.days.retain_mut(|day| !day.ended || day.forget(&mut self.room));
        }
        self.ask();
        std::mem::take(&mut self.room.out)
    }

    /// What history answered; `None` when the read failed.
    pub fn answered(&mut self, id: AskId, answer: Option<&SoFar>, now: Now) {
        let Some(key) = self.room.asks.answered(id) else { return };
        let Some(day) = self.days.iter_mut().find(|day| day.start == key.day) else { return };
        match key.minute {
            Some(minute) => day.minute_answered(key.symbol, minute, answer, &mut self.room),
            None => day.day_answered(key.symbol, answer, now, &mut self.room),
        }
    }

    /// When [`Self::poll`] has something to do, if nothing comes before.
    #[must_use]
    pub fn due(&self, now: Now) -> Option<Mono> {
        let asks = (!self.room.out.is_empty() || self.room.asks.may_send()).then_some(now.mono);
        self.days.iter().filter_map(|day| day.due(now, &self.room.limits)).chain(asks).min()
    }

    /// How the machine stands.
    #[must_use]
    pub fn counts(&self) -> BarCounts {
        BarCounts { asking: self.room.asks.len(), ..self.room.counts }
    }

    /// Makes room for a day, where it is not held.
    fn open_day(&mut self, time: Nanos, now: Now) {
        if self.days.iter().any(|day| day.holds(time)) {
            return;
        }
        let held = self.days.iter().filter(|day| !day.ended).count();
        let quietest = self.days.iter_mut().filter(|day| !day.ended).min_by_key(|day| day.fed);
        if let Some(quietest) = quietest.filter(|_| held >= DAYS_MAX) {
            quietest.ended = true;
        }
        self.days.push(Day::new(time, now));
    }

    /// Sends the questions that may be in flight.
    fn ask(&mut self) {
        while let Some(key) = self.room.asks.next() {
            let day = self.days.iter_mut().find(|day| day.start == key.day);
            let query = day.and_then(|day| match key.minute {
                Some(minute) => day.ask_minute(key.symbol, minute),
                None => day.ask_day(key.symbol),
            });
            if let Some(query) = query {
                let id = self.room.asks.sent(key);
                self.room.out.push(BarsEffect::Ask { id, query });
            }
        }
    }

    /// Lets the largest folds go, until a quarter of the room is free. Where little would come of
    /// it, nothing is done: the room is taken by what is not a fold.
    fn shed(&mut self) {
        let max = self.room.limits.bytes_max;
        if self.room.folds < max / 8 {
            return;
        }
        let mut folds: Vec<(usize, usize, Nanos, Symbol)> = Vec::new();
        for (at, day) in self.days.iter().enumerate() {
            folds.extend(day.folds().map(|(bytes, minute, symbol)| (bytes, at, minute, symbol)));
        }
        folds.sort_unstable_by(|a, b| b.cmp(a));
        for (_, at, minute, symbol) in folds {
            if self.room.counts.bytes <= max - max / 4 {
                return;
            }
            if let Some(day) = self.days.get_mut(at) {
                day.shed(symbol, minute, &mut self.room);
            }
        }
    }
}

impl Room {
    /// Takes room, where there is some.
    const fn take(&mut self, bytes: usize) -> bool {
        let fits = self.counts.bytes + bytes <= self.limits.bytes_max;
        if fits {
            self.counts.bytes += bytes;
        }
        fits
    }

    const fn give(&mut self, bytes: usize) {
        self.counts.bytes = self.counts.bytes.saturating_sub(bytes);
    }

    /// Minutes that begin until then may hold rows that never came here.
    fn horizon(&self) -> Nanos {
        self.since.plus(millis(self.limits.future_ms.saturating_add(CLOCKS_DIFFER_MS)))
    }
}

/// Milliseconds as nanoseconds.
fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}
