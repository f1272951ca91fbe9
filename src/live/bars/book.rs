//! What is known of a symbol in a day: the sum of its minutes, and how far it can be trusted.

use std::collections::HashSet;

use super::Room;
use super::slot::{Asking, Minute};
use crate::bars::{Fold, Period};
use crate::history::{SoFar, SoFarQuery, TradeName};
use crate::market::{Bar, Cancel, Correction, Event, Exchange, Nanos, Symbol, Trade};

/// What a book takes, with its share of the map.
pub(super) const BOOK_BYTES: usize = size_of::<Book>() + 64;
/// What a remembered name takes.
const NAME_BYTES: usize = 48;
/// Names of corrections that are remembered a symbol and day.
const NAMES_MAX: usize = 1024;

/// A symbol's day.
pub(super) struct Book {
    day: Nanos,
    end: Nanos,
    /// Minutes that begin until then may hold trades that never came here.
    horizon: Nanos,
    /// Every row came here and found room.
    pub(super) trusted: bool,
    /// `sum` holds every trade before it, and nothing of what open minutes hold. None: history
    /// must be asked.
    cut: Option<Nanos>,
    /// The fold of what is before `cut`; while history is asked, of what it is not asked for.
    sum: Fold,
    /// The cut that the question in flight will make.
    until: Nanos,
    /// Something came that the answer will not hold, and no whole fold either.
    spoiled: bool,
    pub(super) asking: Asking,
    /// All minutes that were let go end before.
    settled_until: Nanos,
    /// Trades that corrections and cancels have named.
    names: HashSet<TradeName>,
    /// Those of them whose time is not known, and those that are asked for.
    unlocated: Vec<TradeName>,
    locating: Vec<TradeName>,
    told: Option<Bar>,
    pub(super) ingested: bool,
}

impl Book {
    pub(super) fn new(day: Nanos, horizon: Nanos) -> Self {
        Self {
            day,
            end: Period::Day.next_start(day),
            horizon,
            trusted: true,
            cut: (day > horizon).then_some(day),
            sum: Fold::of_history(Period::Day, day),
            until: day,
            spoiled: false,
            asking: Asking::No,
            settled_until: day,
            names: HashSet::new(),
            unlocated: Vec::new(),
            locating: Vec::new(),
            told: None,
            ingested: false,
        }
    }

    /// Whether a minute's fold holds every trade of it.
    pub(super) fn is_whole(&self, start: Nanos, minute: &Minute) -> bool {
        self.trusted && start > self.horizon && minute.folds.is_some()
    }

    /// Whether the minutes from `start` on are not known to be whole.
    pub(super) fn may_lack(&self, start: Nanos) -> bool {
        self.trusted && start <= self.horizon
    }

    /// The end of the last minute that may hold what never came here.
    fn lacking_until(&self) -> Nanos {
        let last = self.horizon.floor(Nanos::MINUTE).plus(Nanos::MINUTE);
        if self.trusted { last.clamp(self.day, self.end) } else { self.end }
    }

    /// From where on trades are not in `sum`, as it is or as the answer will make it.
    fn base(&self) -> Option<Nanos> {
        let coming = matches!(self.asking, Asking::Sent | Asking::Stale).then_some(self.until);
        self.cut.or(coming)
    }

    /// A trade of a minute was counted in its fold, which is whole or not.
    pub(super) fn counted(&mut self, start: Nanos, whole: bool) {
        if !whole || self.base().is_some_and(|base| start < base) {
            self.missed(start);
        }
    }

    /// Something of a minute is known to history alone.
    pub(super) fn missed(&mut self, start: Nanos) {
        if self.base().is_some_and(|base| start >= base) {
            self.spoiled = true;
        }
        self.cut = None;
        self.asking.overtaken();
    }

    /// A minute is let go.
    pub(super) fn settle(&mut self, start: Nanos, minute: &Minute) {
        self.settled_until = self.settled_until.max(start.plus(Nanos::MINUTE));
        if self.base().is_some_and(|base| start >= base) {
            match minute.folds.as_ref().filter(|_| self.is_whole(start, minute)) {
                Some(folds) => self.sum.merge(&folds.day),
                None => self.missed(start),
            }
        }
    }

    /// The day's bar, with the open minutes of the symbol; `None` where history must be asked.
    pub(super) fn bar<'a>(&self, minutes: impl Iterator<Item = (Nanos, &'a Minute)>) -> Option<Option<Bar>> {
        let cut = self.cut?;
        let mut whole = self.sum.clone();
        for (start, minute) in minutes.filter(|(start, _)| *start >= cut) {
            let folds = minute.folds.as_ref().filter(|_| self.is_whole(start, minute))?;
            whole.merge(&folds.day);
        }
        whole.finish().map(|folded| folded.bar)
    }

    /// Whether a bar is another than was told; if so it counts as told.
    pub(super) fn differs(&mut self, bar: Option<Bar>) -> Option<Bar> {
        let new = bar.filter(|bar| !self.ingested && self.told != Some(*bar))?;
        self.told = Some(new);
        Some(new)
    }

    /// Takes in what a correction or cancel names: what it amends must be found.
    pub(super) fn amended(&mut self, event: &Event, room: &mut Room) {
        let names: Vec<TradeName> = match event {
            Event::Correction(correction) => {
                let Correction { exchange, original_id, corrected_id, .. } = **correction;
                vec![(exchange, original_id), (exchange, corrected_id)]
            }
            Event::Cancel(Cancel { exchange, id, .. }) => vec![(*exchange, *id)],
            _ => Vec::new(),
        };
        for name in names {
            let known = self.names.contains(&name);
            let fits = known || (self.names.len() < NAMES_MAX && room.take(NAME_BYTES));
            if fits {
                self.names.insert(name);
                self.unlocated.push(name);
            }
            self.trusted &= fits;
        }
        self.unlocated.sort_unstable();
        self.unlocated.dedup();
        self.missed(self.day);
    }

    /// Whether a correction or cancel has named this trade.
    pub(super) fn has_named(&self, trade: &Trade) -> bool {
        let name = |id: u64| -> (Exchange, u64) { (trade.exchange, id) };
        !self.names.is_empty() && trade.id.is_some_and(|id| self.names.contains(&name(id)))
    }

    /// Whether names wait to be found; where nobody wants to know, they do not.
    pub(super) fn must_locate(&mut self, wanted: bool) -> bool {
        if !wanted {
            self.unlocated.clear();
        }
        !self.unlocated.is_empty()
    }

    /// The question for the day. Open minutes that are not whole are history's, and those that
    /// may hold what never came here.
    pub(super) fn ask<'a>(
        &mut self,
        symbol: Symbol,
        minutes: impl Iterator<Item = (Nanos, &'a Minute)>,
    ) -> SoFarQuery {
        let broken = minutes.filter(|(start, minute)| !self.is_whole(*start, minute));
        let ends = broken.map(|(start, _)| start.plus(Nanos::MINUTE));
        let seen = ends.fold(self.settled_until, Nanos::max);
        self.until = seen.max(self.lacking_until());
        self.sum = Fold::of_history(Period::Day, self.day);
        (self.cut, self.spoiled, self.asking) = (None, false, Asking::Sent);
        self.locating = std::mem::take(&mut self.unlocated);
        SoFarQuery {
            symbol,
            period: Period::Day,
            start: self.day,
            until: self.until,
            names: self.locating.clone(),
            newest: self.may_lack(seen),
        }
    }

    /// Takes in history's answer; answers whether something is left to ask.
    pub(super) fn answered(&mut self, answer: Option<&SoFar>) -> bool {
        let stale = std::mem::take(&mut self.asking) == Asking::Stale;
        let located = std::mem::take(&mut self.locating);
        let Some(answer) = answer else {
            self.unlocated.extend(located);
            return true;
        };
        self.learn(answer);
        match &answer.fold {
            None => self.ingested = true,
            Some(_) if self.spoiled => return true,
            Some(fold) => {
                self.sum.merge(fold);
                self.cut = Some(self.until);
            }
        }
        (stale && !self.ingested) || !self.unlocated.is_empty()
    }

    /// How far history reaches is how far this machine may lack something.
    pub(super) fn learn(&mut self, answer: &SoFar) {
        if let Some(newest) = answer.newest {
            self.horizon = self.horizon.min(newest);
        }
    }

    /// What was told was true, but something came since.
    pub(super) const fn forget_sum(&mut self) {
        self.cut = None;
    }

    pub(super) fn bytes(&self) -> usize {
        BOOK_BYTES + self.names.len() * NAME_BYTES
    }
}
