//! The list of symbols: those that have blocks, and those that are only in the tail yet.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::reader::{ReadError, Reader};
use crate::market::{Kind, Series, Symbol};
use crate::store::SymbolRow;

/// Series of the tail asked for at once.
const SERIES_ROWS: usize = 1024;

/// A page of the list of symbols, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolPage {
    /// The symbols.
    pub symbols: Vec<SymbolRow>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

impl Reader {
    /// At most `limit` symbols after `after` that begin with `prefix`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<SymbolPage, ReadError> {
        // The tail first: a symbol that leaves it meanwhile is in the store's list already.
        let mut symbols = self.tail_symbols(prefix, after, limit.saturating_add(1))?;
        for row in self.store.symbols(prefix, after, limit.saturating_add(1)).await? {
            symbols.entry(row.symbol).and_modify(|known| *known = joined(*known, row)).or_insert(row);
        }
        let more = symbols.len() > limit;
        Ok(SymbolPage { symbols: symbols.into_values().take(limit).collect(), more })
    }

    fn tail_symbols(
        &self,
        prefix: &str,
        after: Option<Symbol>,
        limit: usize,
    ) -> Result<BTreeMap<Symbol, SymbolRow>, ReadError> {
        let mut symbols = BTreeMap::new();
        let begin = if prefix.is_empty() { Symbol::parse(b"0") } else { Symbol::parse(prefix.as_bytes()) };
        let Ok(begin) = begin else {
            return Ok(symbols);
        };
        let begin = after.map_or(begin, |after| begin.max(after));
        let mut from = Bound::Included(Series { symbol: begin, kind: Kind::Trade });
        loop {
            let page = self.tail.series_from(from, SERIES_ROWS)?;
            let full = page.len() == SERIES_ROWS;
            for series in page {
                from = Bound::Excluded(series);
                let symbol = series.symbol;
                if !symbol.as_str().starts_with(prefix) {
                    return Ok(symbols);
                }
                if after.is_some_and(|after| symbol <= after) {
                    continue;
                }
                if symbols.len() >= limit && !symbols.contains_key(&symbol) {
                    return Ok(symbols);
                }
                if let Some(row) = self.tail_row(series)? {
                    symbols.entry(symbol).and_modify(|known| *known = joined(*known, row)).or_insert(row);
                }
            }
            if !full {
                return Ok(symbols);
            }
        }
    }

    /// What the tail has of a series.
    fn tail_row(&self, series: Series) -> Result<Option<SymbolRow>, ReadError> {
        let rows = self.tail.snapshot(series)?;
        let times = || rows.rows().map(|row| row.tick.time);
        let row = times().min().zip(times().max()).map(|(first, last)| SymbolRow {
            symbol: series.symbol,
            kinds: 1 << series.kind.number(),
            first,
            last,
        });
        Ok(row)
    }
}

fn joined(a: SymbolRow, b: SymbolRow) -> SymbolRow {
    SymbolRow {
        symbol: a.symbol,
        kinds: a.kinds | b.kinds,
        first: a.first.min(b.first),
        last: a.last.max(b.last),
    }
}
