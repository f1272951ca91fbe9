//! A minute of a day, with the folds of all symbols that traded in it.

use std::collections::BTreeMap;

use super::{BarLimits, Room, millis};
use crate::bars::{Fold, Period};
use crate::market::{Bar, Event, Nanos, Symbol, Tick};
use crate::tape::{Mono, Now};

/// What a symbol takes in a minute besides its folds, with its share of the map.
pub(super) const MINUTE_BYTES: usize = 192;
/// What its two folds take, without ids.
pub(super) const FOLDS_BYTES: usize = 2 * size_of::<Fold>() + 48;
/// Between tellings of what changed.
const UPDATE_MS: u64 = 30_000;

/// When a minute was last told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// The watermark, or at the first time the minute's end.
    pub(super) mark: Nanos,
    /// Real time.
    pub(super) at: Mono,
}

/// How a bar stands with history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asking {
    /// It is not asked for.
    #[default]
    No,
    /// It waits to be asked for.
    Queued,
    /// It was asked for.
    Sent,
    /// It was asked for, and something came since.
    Stale,
}

impl Asking {
    pub(super) fn overtaken(&mut self) {
        if *self == Self::Sent {
            *self = Self::Stale;
        }
    }
}

/// The trades of a minute, by its own rules and by the day's.
pub(super) struct Folds {
    pub(super) minute: Fold,
    pub(super) day: Fold,
}

/// A symbol's minute.
#[derive(Default)]
pub(super) struct Minute {
    /// None: history must be asked.
    pub(super) folds: Option<Box<Folds>>,
    /// The bar that was told last.
    told: Option<Bar>,
    /// Something came since it was told.
    pub(super) changed: bool,
    /// An ingested bar stands for it.
    pub(super) ingested: bool,
    pub(super) asking: Asking,
}

/// What to do about a minute's bar.
pub(super) enum Tell {
    /// Nothing is new.
    Nothing,
    /// This is the bar.
    Bar(Bar),
    /// History must be asked.
    Ask,
}

impl Minute {
    pub(super) fn new(day: Nanos, start: Nanos) -> Self {
        let minute = Fold::open(Period::Minute, start, usize::MAX);
        let folds = Folds { minute, day: Fold::of_history(Period::Day, day) };
        Self { folds: Some(Box::new(folds)), ..Self::default() }
    }

    /// What letting its folds go would free.
    pub(super) fn folds_bytes(&self) -> usize {
        self.folds.as_ref().map_or(0, |folds| FOLDS_BYTES + folds.minute.ids_bytes())
    }

    /// From now on history is asked.
    pub(super) fn let_go(&mut self, room: &mut Room) {
        let bytes = self.folds_bytes();
        self.folds = None;
        room.folds = room.folds.saturating_sub(bytes);
        room.give(bytes);
        self.asking.overtaken();
    }

    /// What is new of a bar whose fold is whole or not.
    pub(super) fn told(&mut self, whole: bool) -> Tell {
        if !self.changed || self.ingested {
            self.changed = false;
            return Tell::Nothing;
        }
        let folded = self.folds.as_ref().filter(|_| whole).and_then(|folds| folds.minute.finish());
        let Some(folded) = folded else { return Tell::Ask };
        self.changed = false;
        self.differs(folded.bar)
    }

    /// Whether a bar is another than was told; if so it counts as told.
    pub(super) fn differs(&mut self, bar: Option<Bar>) -> Tell {
        match bar {
            Some(bar) if self.told != Some(bar) => {
                let updated = self.told.replace(bar).is_some();
                Tell::Bar(Bar { updated, ..bar })
            }
            _ => Tell::Nothing,
        }
    }
}

/// A minute of all symbols.
pub(super) struct Slot {
    pub(super) start: Nanos,
    /// It was opened before the wall clock was past it.
    by_clock: bool,
    /// It was opened when it was over: what is told of it are updates.
    pub(super) late: bool,
    /// None: it is open.
    pub(super) last: Option<Told>,
    pub(super) minutes: BTreeMap<Symbol, Minute>,
}

impl Slot {
    /// A minute that begins at `start`; `late` where it is over, with the watermark of now.
    pub(super) fn new(start: Nanos, late: Option<Nanos>, now: Now, limits: &BarLimits) -> Self {
        let clock = start.plus(Nanos::MINUTE).plus(millis(limits.mark_ms));
        Self {
            start,
            by_clock: now.wall < clock,
            late: late.is_some(),
            last: late.map(|mark| Told { mark, at: now.mono }),
            minutes: BTreeMap::new(),
        }
    }

    pub(super) fn end(&self) -> Nanos {
        self.start.plus(Nanos::MINUTE)
    }

    /// Whether an open minute closes now. `watermark` is never ahead of the wall clock.
    pub(super) fn closes(&self, watermark: Nanos, quiet: bool, now: Now, limits: &BarLimits) -> bool {
        let clock = now.wall >= self.end().plus(millis(limits.mark_ms));
        let passed = watermark >= self.end().plus(millis(limits.slack_ms));
        passed || (clock && (self.by_clock || quiet))
    }

    /// Whether a closed minute is told again now.
    pub(super) fn is_due(&self, watermark: Nanos, now: Mono) -> bool {
        self.last.is_some_and(|last| {
            watermark >= last.mark.plus(millis(UPDATE_MS)) || now.since(last.at) >= UPDATE_MS
        })
    }

    /// When something is due if nothing comes: of a day that was last fed at `fed`.
    pub(super) fn due(&self, fed: Mono, now: Now, limits: &BarLimits) -> Mono {
        if let Some(last) = self.last {
            return last.at.after(UPDATE_MS);
        }
        let clock = self.end().plus(millis(limits.mark_ms));
        let left = u64::try_from(clock.0.saturating_sub(now.wall.0)).unwrap_or(0).div_ceil(1_000_000);
        let clock = now.mono.after(left);
        if self.by_clock { clock } else { clock.max(fed.after(limits.quiet_ms)) }
    }

    /// Publishes a bar of this minute.
    pub(super) fn tell(&self, symbol: Symbol, bar: Bar, room: &mut Room) {
        let bar = Bar { updated: bar.updated || self.late, ..bar };
        let tick = Tick { symbol, time: self.start, event: Event::MinuteBar(bar) };
        room.out.push(super::BarsEffect::Tell(tick));
    }

    /// What it takes in all.
    pub(super) fn bytes(&self) -> usize {
        self.minutes.values().map(|minute| MINUTE_BYTES + minute.folds_bytes()).sum()
    }
}
