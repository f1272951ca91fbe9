//! Retention: whole segments, the oldest first, are unlinked when they are old and no longer needed.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Core;
use super::format::Entry;
use super::index::{Finished, TapeSpan};
use crate::store::embedded::disk::sync_folder_of;
use crate::store::{StoreError, TapeId};

/// Unlinks segments; blocks.
#[derive(Debug)]
pub(in crate::store::embedded) struct Retention {
    core: Arc<Core>,
}

impl Retention {
    pub(super) const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Unlinks finished segments from the oldest on, up to the first that was written to less
    /// than `age` before `now` or holds frames that are not `covered`: it is asked for the seqs,
    /// ascending, that the segment has of a tape. Answers how many.
    pub(in crate::store::embedded) fn run(
        &self,
        now: SystemTime,
        age: Duration,
        covered: &dyn Fn(TapeId, &[u64]) -> bool,
    ) -> Result<usize, StoreError> {
        let mut dropped = 0;
        loop {
            let Some(oldest) = self.core.shared.read().finished.first().map(Arc::clone) else { break };
            let failed =
                |error: io::Error| StoreError::refused(format!("{}: {error}", oldest.path.display()));
            if !is_old(&oldest, now, age).map_err(failed)? || !self.is_covered(&oldest, covered)? {
                break;
            }
            // Out of sight first: whoever looks for it from here on finds it gone, not damaged.
            self.core.shared.write().finished.retain(|other| other.segment != oldest.segment);
            self.core.cache.lock().forget(oldest.segment);
            if let Err(error) = fs::remove_file(&oldest.path) {
                // It stays the oldest: segments that are left must have no hole between them.
                self.core.shared.write().finished.insert(0, Arc::clone(&oldest));
                return Err(failed(error));
            }
            // One by one: after a crash the segments that are left have no hole between them.
            sync_folder_of(&oldest.path).map_err(failed)?;
            dropped += 1;
        }
        Ok(dropped)
    }

    fn is_covered(
        &self,
        segment: &Finished,
        covered: &dyn Fn(TapeId, &[u64]) -> bool,
    ) -> Result<bool, StoreError> {
        let last = |span: &TapeSpan| covered(span.tape, &[span.last]);
        if !segment.spans.iter().all(last) {
            return Ok(false);
        }
        let Some(loaded) = self.core.load(segment)? else { return Ok(true) };
        let tapes = loaded.entries.chunk_by(|a, b| a.tape == b.tape);
        let seqs = |entries: &[Entry]| entries.iter().map(|entry| entry.seq).collect::<Vec<u64>>();
        Ok(tapes
            .filter_map(|entries| Some((entries.first()?.tape, entries)))
            .all(|(tape, entries)| covered(tape, &seqs(entries))))
    }
}

fn is_old(segment: &Finished, now: SystemTime, age: Duration) -> io::Result<bool> {
    let written = fs::metadata(&segment.path)?.modified()?;
    Ok(now.duration_since(written).is_ok_and(|old| old >= age))
}
