//! Reads of tapes for clients that resume from further back than the tail reaches: a few at once,
//! and what one has read is there for the others.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::market::Nanos;
use crate::store::{At, Store, StoreError, StoreErrorKind, TapeId};
use crate::tape::tasks::{Sealed, SharedView};
use crate::tape::{Frame, Position, Progress};

/// What one read of a tape answers.
const READ_BYTES: usize = 2 * 1024 * 1024;

/// Frames that were read last.
#[derive(Default)]
struct Cache {
    frames: BTreeMap<(TapeId, u64), Arc<Frame>>,
    order: VecDeque<(TapeId, u64)>,
    bytes: usize,
}

impl Cache {
    /// The frames from the start of a range on that are here without a hole.
    fn run(&self, tape: TapeId, seqs: &RangeInclusive<u64>) -> Vec<Arc<Frame>> {
        let here = self.frames.range((tape, *seqs.start())..=(tape, *seqs.end()));
        let dense = here.zip(*seqs.start()..).take_while(|(((_, seq), _), expected)| seq == expected);
        dense.map(|((_, frame), _)| Arc::clone(frame)).collect()
    }

    fn insert(&mut self, frame: &Arc<Frame>, bytes_max: usize) {
        let name = (frame.tape, frame.seq);
        if self.frames.insert(name, Arc::clone(frame)).is_none() {
            self.bytes += frame.memory();
            self.order.push_back(name);
        }
        while self.bytes > bytes_max {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(gone) = self.frames.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(gone.memory());
            }
        }
    }
}

/// Shared reads of tapes.
pub struct Scans {
    store: Arc<dyn Store>,
    sealed: Sealed,
    turns: Semaphore,
    cache: Mutex<Cache>,
    cache_bytes_max: usize,
    /// Told of each read of a tape.
    counted: Box<dyn Fn() + Send + Sync>,
}

impl Scans {
    /// So many reads at once, and so many bytes of frames kept for others; `counted` is told of each
    /// read that the store is asked for.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        sealed: Sealed,
        at_once: usize,
        cache_bytes_max: usize,
        counted: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (turns, cache) = (Semaphore::new(at_once), Mutex::default());
        Self { store, sealed, turns, cache, cache_bytes_max, counted }
    }

    /// Frames of a range, ascending, the first of them or more; none where there are none.
    ///
    /// # Errors
    /// `Unknown`; `Invalid` where a newer program has written the first.
    pub async fn read(
        &self,
        tape: TapeId,
        seqs: RangeInclusive<u64>,
        at: At,
    ) -> Result<Vec<Arc<Frame>>, StoreError> {
        let Ok(_turn) = self.turns.acquire().await else { return Ok(Vec::new()) };
        let cached = self.cache.lock().run(tape, &seqs);
        if !cached.is_empty() {
            return Ok(cached);
        }
        (self.counted)();
        let rows = self.store.frames(tape, seqs, READ_BYTES, at).await?;
        let mut frames = Vec::with_capacity(rows.len());
        for row in rows {
            match self.sealed.open_frame(&row) {
                Ok(frame) => frames.push(Arc::new(frame)),
                // A newer program reads it: no gap.
                Err(error) if error.kind == StoreErrorKind::Invalid && frames.is_empty() => {
                    return Err(error);
                }
                // What comes before it is given; asked for again and again a damaged one becomes a gap.
                Err(error) => {
                    tracing::error!(%error, "a replay meets a frame that cannot be read");
                    break;
                }
            }
        }
        let mut cache = self.cache.lock();
        for frame in &frames {
            cache.insert(frame, self.cache_bytes_max);
        }
        Ok(frames)
    }

    /// The Position before everything that was received since a time: what has expired counts as
    /// older.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    pub async fn position_at(&self, view: &SharedView, since: Nanos) -> Result<Position, StoreError> {
        let _turn = self.turns.acquire().await;
        let (seen, followed) = view.read(|view| {
            let followed = view.follower().followed();
            let followed: Vec<(TapeId, Progress)> =
                followed.map(|(tape, progress)| (tape, progress.clone())).collect();
            (view.follower().position().seen, followed)
        });
        let mut position = Position { seen, ..Position::default() };
        for (tape, own) in followed {
            let next = self.first_since(view, tape, own.next, since).await?;
            position.tapes.insert(tape, own.meet(&Progress::at(next)));
        }
        Ok(position)
    }

    /// The first seq of a tape below `end` that was received at `since` or later, else `end`.
    async fn first_since(
        &self,
        view: &SharedView,
        tape: TapeId,
        end: u64,
        since: Nanos,
    ) -> Result<u64, StoreError> {
        let (mut low, mut high) = (1, end);
        // The newest first: most tapes have ended long ago.
        let mut probe = end.saturating_sub(1).max(1);
        while low < high {
            match self.first_from(view, tape, probe, high).await? {
                Some((seq, received)) if received < since => low = seq + 1,
                _ => high = probe,
            }
            probe = low + (high - low) / 2;
        }
        Ok(low)
    }

    /// The first frame of `from..end` that is there, and when it was received.
    async fn first_from(
        &self,
        view: &SharedView,
        tape: TapeId,
        from: u64,
        end: u64,
    ) -> Result<Option<(u64, Nanos)>, StoreError> {
        if let Some(found) = view.read(|view| view.tail().frame(tape, from).map(|frame| frame.received)) {
            return Ok(Some((from, found)));
        }
        let rows = self.store.frames(tape, from..=end - 1, 1, At::Here).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let frame = self.sealed.open_frame(row)?;
        Ok(Some((frame.seq, frame.received)))
    }
}
