//! The dictionary of series: sorted symbols, each with the kinds it has.

use super::bytes::{Source, put_count};
use super::{ROWS_MAX, TableError};
use crate::market::{Kind, Series, Symbol};

/// Appends series, which are sorted and distinct: the count of symbols; of each a byte (how
/// many characters it shares with the one before, and in the high half how many follow, less
/// one); of each a byte with a bit a kind; all the characters that follow.
pub(super) fn put(series: &[Series], out: &mut Vec<u8>) {
    let symbols: Vec<&[Series]> = series.chunk_by(|a, b| a.symbol == b.symbol).collect();
    put_count(symbols.len(), out);
    let mut kinds = Vec::with_capacity(symbols.len());
    let mut letters = Vec::with_capacity(symbols.len() * 4);
    let mut before: &str = "";
    for group in symbols {
        let text = group.first().map_or("", |series| series.symbol.as_str());
        let shared = text.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
        let rest = text.as_bytes().get(shared..).unwrap_or_default();
        // Both are below 16: a symbol has 16 characters, and two that differ share at most 15.
        let lengths = (rest.len().saturating_sub(1) << 4) | shared;
        out.push(lengths.to_le_bytes()[0]);
        kinds.push(group.iter().fold(0, |mask, series| mask | bit(series.kind)));
        letters.extend_from_slice(rest);
        before = text;
    }
    out.extend_from_slice(&kinds);
    out.extend_from_slice(&letters);
}

/// Reads series again, of which there are at most `most`.
pub(super) fn take(most: usize, source: &mut Source<'_>) -> Result<Vec<Series>, TableError> {
    let count = source.count(most.min(ROWS_MAX))?;
    let lengths = source.take(count)?;
    let kinds = source.take(count)?;
    let mut all: Vec<Series> = Vec::new();
    let mut text = [0; Symbol::MAX_LEN];
    for (lengths, mask) in lengths.iter().zip(kinds) {
        let (shared, more) = (usize::from(lengths & 15), usize::from(lengths >> 4) + 1);
        let letters = source.take(more)?;
        let room = text.get_mut(shared..shared + more).ok_or(BAD_SYMBOL)?;
        room.copy_from_slice(letters);
        let whole = text.get(..shared + more).unwrap_or_default();
        let symbol = Symbol::parse(whole).map_err(|_| BAD_SYMBOL)?;
        if all.last().is_some_and(|before| before.symbol >= symbol) || *mask == 0 {
            return Err(TableError::Malformed("the series are not sorted"));
        }
        let of_symbol = Kind::ALL.into_iter().filter(|kind| mask & bit(*kind) != 0);
        all.extend(of_symbol.map(|kind| Series { symbol, kind }));
        if all.len() > most {
            return Err(TableError::TooLarge { count: all.len() as u64, most });
        }
    }
    Ok(all)
}

const BAD_SYMBOL: TableError = TableError::Malformed("a series has no valid symbol");

const fn bit(kind: Kind) -> u8 {
    1 << (kind.number() - 1)
}
