//! Filling a page from several symbols: their order, the limit over all of them, where the
//! next page starts.

use super::page::{Cursor, Resume};
use crate::market::Symbol;

/// A page: by symbol, ascending, only symbols that have something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What each symbol has.
    pub series: Vec<(Symbol, Vec<T>)>,
    /// Where the next page starts; `None` where this is the last.
    pub next: Option<Cursor>,
}

/// A part of one symbol's series.
pub(super) struct Part<T> {
    pub(super) items: Vec<T>,
    /// After which the rest comes, where there is more.
    pub(super) more: Option<Resume>,
}

/// What a page has left to read.
pub(super) struct Budget {
    bytes: usize,
}

impl Budget {
    pub(super) const fn new(bytes: usize) -> Self {
        Self { bytes }
    }

    pub(super) const fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.bytes == 0
    }
}

/// Fills a page symbol by symbol.
pub(super) struct Pages<'a, T> {
    symbols: std::slice::Iter<'a, Symbol>,
    current: Option<(Symbol, Resume)>,
    pub(super) left: usize,
    probes_left: usize,
    page: Page<T>,
}

impl<'a, T> Pages<'a, T> {
    pub(super) fn new(
        symbols: &'a [Symbol],
        cursor: Option<Cursor>,
        limit: usize,
        probes_max: usize,
    ) -> Self {
        let from = cursor.map_or(0, |cursor| symbols.partition_point(|symbol| *symbol < cursor.symbol));
        let mut symbols = symbols.get(from..).unwrap_or_default().iter();
        let current = symbols.next().map(|symbol| {
            let resume = cursor.filter(|cursor| cursor.symbol == *symbol).map(|cursor| cursor.resume);
            (*symbol, resume.unwrap_or(Resume::Start))
        });
        let page = Page { series: Vec::new(), next: None };
        Self { symbols, current, left: limit.max(1), probes_left: probes_max, page }
    }

    /// The symbol to read next and from where, at most [`Self::left`] items of it; none where
    /// the page is done. With nothing left the question is only whether it has anything.
    pub(super) const fn ask(&self) -> Option<(Symbol, Resume)> {
        self.current
    }

    /// Takes what was read.
    pub(super) fn take(&mut self, symbol: Symbol, part: Part<T>, budget: &Budget) {
        self.left = self.left.saturating_sub(part.items.len());
        if !part.items.is_empty() {
            self.page.series.push((symbol, part.items));
        }
        self.current = None;
        if let Some(resume) = part.more {
            self.page.next = Some(Cursor { symbol, resume });
            return;
        }
        let Some(next) = self.symbols.next() else {
            return;
        };
        if self.left == 0 {
            self.probes_left = self.probes_left.saturating_sub(1);
        }
        let is_full = self.left == 0 && self.probes_left == 0;
        if is_full || (budget.is_spent() && !self.page.series.is_empty()) {
            self.page.next = Some(Cursor { symbol: *next, resume: Resume::Start });
        } else {
            self.current = Some((*next, Resume::Start));
        }
    }

    pub(super) fn finish(self) -> Page<T> {
        self.page
    }
}
