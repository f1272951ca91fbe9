//! What this region will never have: gaps of tapes that touch what was read.

use std::sync::Arc;

use super::reader::{ReadError, Reader};
use crate::market::Nanos;
use crate::store::{Record, Space, Span, StoreError};
use crate::tape::tasks::Sealed;
use crate::tape::{CodecError, GapRow};

/// Rows of gaps asked for at once.
const GAP_ROWS: usize = 256;

/// How much older than their arrival live ticks are taken to be: late reports come within
/// the session. What a gap lost of backfills may be older than that and is not told.
const LATE: i64 = 24 * Nanos::HOUR;

/// How far in the future ticks are accepted.
const EARLY: i64 = 5 * Nanos::SECOND;

impl Reader {
    /// Whether ticks of this span may be missing here for good, because frames that held them
    /// expired or were lost before this region had them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn is_incomplete(&self, span: &Span) -> Result<bool, ReadError> {
        let part = self.region.as_str();
        let mut after: Option<String> = None;
        loop {
            let rows = self.records.scan(Space::Gaps, part, after.as_deref(), GAP_ROWS).await?;
            for row in &rows {
                let gap = self.open_gap(part, row)?;
                if gap.from.plus(-LATE) <= *span.end() && gap.to.plus(EARLY) >= *span.start() {
                    return Ok(true);
                }
            }
            match rows.last() {
                Some(last) if rows.len() == GAP_ROWS => after = Some(last.key.clone()),
                _ => return Ok(false),
            }
        }
    }

    fn open_gap(&self, part: &str, row: &Record) -> Result<GapRow, ReadError> {
        let body = Sealed::new(Arc::clone(&self.keyring)).open_record(Space::Gaps, part, row)?;
        let corrupt = |why: CodecError| {
            StoreError::corrupt(format!("record {} {part} {}: {why}", Space::Gaps.name(), row.key))
        };
        Ok(GapRow::decode(&body).map_err(corrupt)?)
    }
}
