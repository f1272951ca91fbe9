//! The one thread that writes: takes what is queued, writes it, syncs it once, answers all.

use std::collections::hash_map::{Entry as Slot, HashMap};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Core;
use super::format::{self, HEADER_BYTES, Header, Location, RECORD_OVERHEAD, Record, aligned};
use super::index::{Active, Finished, IndexPlace, spans};
use super::recovery::segment_path;
use crate::store::embedded::space;
use crate::store::{FrameRow, StoreError, TapeId};

/// The most bytes of records in one write and `fdatasync`.
const GROUP_BYTES_MAX: usize = 4 << 20;

type Answer = oneshot::Sender<Result<(), StoreError>>;

/// A frame that waits, and whoever waits for it.
struct Job {
    frame: FrameRow,
    answers: Vec<Answer>,
}

impl Job {
    fn answer(self, result: &Result<(), StoreError>) {
        for answer in self.answers {
            // Who no longer waits has dropped the future and knows the outcome is unknown.
            let _ = answer.send(result.clone());
        }
    }
}

/// Frames that wait for the disk, bounded in bytes.
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default(), wake: Condvar::new() }
    }

    pub(super) fn push(
        &self,
        frame: FrameRow,
    ) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::refused("the store is closed"));
        }
        let bytes = frame.body.len() + RECORD_OVERHEAD;
        if state.bytes + bytes > self.bytes_max && !state.jobs.is_empty() {
            return Err(StoreError::refused(format!(
                "{} bytes of frames wait for the disk already, at most {} may",
                state.bytes, self.bytes_max
            )));
        }
        let (sender, receiver) = oneshot::channel();
        state.bytes += bytes;
        state.jobs.push_back(Job { frame, answers: vec![sender] });
        drop(state);
        self.wake.notify_one();
        Ok(receiver)
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }

    /// Waits for frames and takes a group of them; `None` when closed and empty.
    fn take(&self) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return None;
            }
            self.wake.wait(&mut state);
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(job) = state.jobs.front() {
            let size = job.frame.body.len() + RECORD_OVERHEAD;
            if !group.is_empty() && bytes + size > GROUP_BYTES_MAX {
                break;
            }
            bytes += size;
            state.bytes -= size;
            group.extend(state.jobs.pop_front());
        }
        Some(group)
    }
}

/// Where writing goes on after opening.
#[derive(Debug)]
pub(super) struct State {
    /// The last number that is on the disk.
    pub(super) durable: u64,
    /// The number of the next segment to make.
    pub(super) next_segment: u64,
    /// The segment to go on in, and the offset of its next record.
    pub(super) tail: Option<Tail>,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: u64,
    pub(super) file: Arc<File>,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// Records encoded for one write.
#[derive(Default)]
struct Group {
    bytes: BytesMut,
    jobs: Vec<(Job, Location)>,
}

pub(super) struct Writer {
    core: Arc<Core>,
    queue: Arc<Queue>,
    state: State,
}

impl Writer {
    pub(super) const fn new(core: Arc<Core>, queue: Arc<Queue>, state: State) -> Self {
        Self { core, queue, state }
    }

    pub(super) fn run(mut self) {
        while let Some(jobs) = self.queue.take() {
            self.commit(jobs);
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let mut group = Group::default();
        for job in self.new_frames(jobs) {
            let size = u32::try_from(job.frame.body.len() + RECORD_OVERHEAD + 8).unwrap_or(u32::MAX);
            if !self.has_room(&group, size) {
                self.flush(std::mem::take(&mut group));
                if let Err(error) = self.rotate() {
                    self.core.counters.refused.fetch_add(1, Ordering::Relaxed);
                    job.answer(&Err(error));
                    continue;
                }
            }
            self.encode(&mut group, job);
        }
        self.flush(group);
    }

    /// Answers repeats of what is stored, joins repeats within the group, keeps the rest.
    fn new_frames(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut kept: Vec<Job> = Vec::with_capacity(jobs.len());
        let mut seen: HashMap<(TapeId, u64), usize> = HashMap::new();
        for job in jobs {
            let (tape, seq) = (job.frame.tape, job.frame.seq);
            match seen.entry((tape, seq)) {
                Slot::Occupied(at) => match kept.get_mut(*at.get()) {
                    Some(first) if first.frame.body == job.frame.body => first.answers.extend(job.answers),
                    _ => job.answer(&Err(other_bytes(tape, seq))),
                },
                Slot::Vacant(slot) => match self.core.find(tape, seq) {
                    Ok(None) => {
                        slot.insert(kept.len());
                        kept.push(job);
                    }
                    Ok(Some(stored)) if stored == job.frame.body => job.answer(&Ok(())),
                    Ok(Some(_)) => job.answer(&Err(other_bytes(tape, seq))),
                    Err(error) => job.answer(&Err(error)),
                },
            }
        }
        kept
    }

    fn has_room(&self, group: &Group, size: u32) -> bool {
        self.state.tail.as_ref().is_some_and(|tail| {
            let used = u64::from(tail.offset) + group.bytes.len() as u64;
            used + u64::from(size) <= u64::from(tail.bytes)
        })
    }

    fn encode(&self, group: &mut Group, job: Job) {
        let Some(tail) = &self.state.tail else { return };
        // Both fit: a segment's bytes are a u32, and `has_room` has looked.
        let at = u32::try_from(group.bytes.len()).unwrap_or(u32::MAX);
        let record = Record {
            number: self.state.durable + 1 + group.jobs.len() as u64,
            durable: self.state.durable,
            tape: job.frame.tape,
            seq: job.frame.seq,
        };
        let offset = tail.offset.saturating_add(at);
        let location =
            record.encode(&self.core.keyring, tail.segment, offset, &job.frame.body, &mut group.bytes);
        group.jobs.push((job, location));
    }

    /// Writes and syncs the group, shows it to readers, answers. Where the disk fails, the
    /// segment is left and its last bytes are never trusted.
    fn flush(&mut self, group: Group) {
        let (Some(tail), false) = (self.state.tail.as_mut(), group.jobs.is_empty()) else { return };
        let disk = &self.core.disk;
        let written =
            disk.write(&tail.file, &group.bytes, u64::from(tail.offset)).and_then(|()| disk.sync(&tail.file));
        self.core.counters.syncs.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = written {
            let path = segment_path(&self.core.folder, tail.segment);
            let why =
                format!("writing {} failed: {error}; {}", path.display(), space::tell(&self.core.folder));
            self.abandon(&why);
            let answer = Err(StoreError::unknown(why));
            group.jobs.into_iter().for_each(|(job, _)| job.answer(&answer));
            return;
        }
        let bytes = group.bytes.len();
        tail.offset = tail.offset.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.state.durable += group.jobs.len() as u64;
        if let Some(active) = &mut self.core.shared.write().active {
            let places = group.jobs.iter().map(|(job, at)| ((job.frame.tape, job.frame.seq), *at));
            active.entries.extend(places);
        }
        self.core.counters.appended.fetch_add(group.jobs.len() as u64, Ordering::Relaxed);
        self.core.counters.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        group.jobs.into_iter().for_each(|(job, _)| job.answer(&Ok(())));
    }

    /// Leaves the segment that failed: what it holds after the last synced record is taken back
    /// by the header of the next one, which begins at that number.
    fn abandon(&mut self, why: &str) {
        self.state.tail = None;
        let mut shared = self.core.shared.write();
        if shared.refusing.is_none() {
            tracing::error!(
                detail = why,
                "the log leaves a segment, appends are refused until a new one can be made"
            );
        }
        shared.refusing = Some(why.to_owned());
        if let Some(active) = shared.active.take() {
            self.core.counters.abandoned_segments.fetch_add(1, Ordering::Relaxed);
            let entries = active.sorted_entries();
            let finished = Finished {
                segment: active.segment,
                path: segment_path(&self.core.folder, active.segment),
                spans: spans(&entries),
                index: IndexPlace::Memory(entries.into()),
            };
            shared.finished.push(Arc::new(finished));
        }
    }

    /// Makes a new segment, then finishes the one before.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let tail = match self.core.make_segment(self.state.next_segment, self.state.durable + 1) {
            Ok(tail) => tail,
            Err(error) => {
                // The new segment may be there, and its header takes back what the one before holds
                // from here on: nothing more is written there.
                self.abandon(&error.detail);
                return Err(error);
            }
        };
        self.state.next_segment += 1;
        let fresh = Active { segment: tail.segment, file: Arc::clone(&tail.file), entries: BTreeMap::new() };
        let before = self.state.tail.replace(tail);
        let mut shared = self.core.shared.write();
        if shared.refusing.take().is_some() {
            tracing::info!(segment = fresh.segment, "the log has a new segment, appends go on");
        }
        let (Some(tail), Some(active)) = (before, shared.active.replace(fresh)) else { return Ok(()) };
        // Readers find the frames here while the index is written to the file.
        let entries: Arc<[format::Entry]> = active.sorted_entries().into();
        let spans = spans(&entries);
        let path = segment_path(&self.core.folder, tail.segment);
        let kept = IndexPlace::Memory(Arc::clone(&entries));
        let (segment, offset) = (tail.segment, u64::from(tail.offset));
        shared.finished.push(Arc::new(Finished {
            segment,
            path: path.clone(),
            spans: spans.clone(),
            index: kept,
        }));
        drop(shared);
        let index = self.core.write_index(segment, &tail.file, offset, self.state.durable + 1, entries);
        let mut shared = self.core.shared.write();
        if let Some(kept) = shared.finished.iter_mut().find(|other| other.segment == segment) {
            *kept = Arc::new(Finished { segment, path, spans, index });
        }
        Ok(())
    }
}

impl Core {
    /// Makes the segment `segment` whose first record has the number `first`.
    pub(super) fn make_segment(&self, segment: u64, first: u64) -> Result<Tail, StoreError> {
        let path = segment_path(&self.folder, segment);
        let header = Header { segment, first, bytes: self.segment_bytes }.encode(&self.keyring);
        let file = self.disk.create(&path, self.segment_bytes, &header).map_err(|error| {
            StoreError::refused(format!(
                "cannot make {}: {error}; {}",
                path.display(),
                space::tell(&self.folder)
            ))
        })?;
        Ok(Tail { segment, file: Arc::new(file), offset: HEADER_BYTES, bytes: self.segment_bytes })
    }

    /// Ends a segment with its index. Where that fails the index stays in memory and is made
    /// again when the log is opened.
    pub(super) fn write_index(
        &self,
        segment: u64,
        file: &File,
        offset: u64,
        end: u64,
        entries: Arc<[format::Entry]>,
    ) -> IndexPlace {
        let offset = aligned(offset);
        let written = format::encode_index(&self.keyring, segment, offset, end, &entries).map(|index| {
            self.disk.write(file, &index, offset)?;
            file.set_len(offset + index.len() as u64)?;
            self.disk.sync(file)
        });
        match written {
            Some(Ok(())) => IndexPlace::File(offset),
            Some(Err(error)) => {
                tracing::warn!(segment, %error, "the index of a log segment could not be written");
                IndexPlace::Memory(entries)
            }
            None => IndexPlace::Memory(entries),
        }
    }
}

fn other_bytes(tape: TapeId, seq: u64) -> StoreError {
    StoreError::invalid(format!("frame {seq} of tape {tape} is stored with other bytes"))
}
