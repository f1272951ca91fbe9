//! Retention: whole segments, the oldest first, are unlinked when they are old and no longer needed.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Core, index::Finished};
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
    /// than `age` before `now` or holds frames that are not `covered`. Answers how many.
    pub(in crate::store::embedded) fn run(
        &self,
        now: SystemTime,
        age: Duration,
        covered: &dyn Fn(TapeId, RangeInclusive<u64>) -> bool,
    ) -> Result<usize, StoreError> {
        let mut dropped = 0;
        loop {
            let Some(oldest) = self.core.shared.read().finished.first().map(Arc::clone) else { break };
            let failed =
                |error: io::Error| StoreError::refused(format!("{}: {error}", oldest.path.display()));
            if !is_old(&oldest, now, age).map_err(failed)?
                || !oldest.spans.iter().all(|span| covered(span.tape, span.first..=span.last))
            {
                break;
            }
            // Out of sight first: whoever looks for it from here on finds it gone, not damaged.
            self.core.shared.write().finished.retain(|other| other.segment != oldest.segment);
            self.core.cache.lock().forget(oldest.segment);
            fs::remove_file(&oldest.path).map_err(failed)?;
            // One by one: after a crash the segments that are left have no hole between them.
            sync_folder_of(&oldest.path).map_err(failed)?;
            dropped += 1;
        }
        Ok(dropped)
    }
}

fn is_old(segment: &Finished, now: SystemTime, age: Duration) -> io::Result<bool> {
    let written = fs::metadata(&segment.path)?.modified()?;
    Ok(now.duration_since(written).is_ok_and(|old| old >= age))
}
