//! Reading frames: the segments whose spans meet the range, merged by seq.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, Entry, Location, Record};
use super::index::{Finished, IndexPlace, Loaded};
use super::{Core, recovery};
use crate::store::{FrameRow, StoreError, TapeId};

/// Reads frames; blocks.
#[derive(Debug)]
pub(in crate::store::embedded) struct Reader {
    core: Arc<Core>,
}

/// A segment with its entries of one tape within the range, ascending by seq.
struct Source {
    segment: u64,
    path: PathBuf,
    file: Arc<File>,
    entries: Vec<Entry>,
    next: usize,
}

impl Source {
    fn head(&self) -> Option<&Entry> {
        self.entries.get(self.next)
    }
}

impl Reader {
    pub(super) const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The frames of a tape in the range, ascending, at least one where there is one.
    pub(in crate::store::embedded) fn frames(
        &self,
        tape: TapeId,
        seqs: &RangeInclusive<u64>,
        bytes_max: usize,
    ) -> Result<Vec<FrameRow>, StoreError> {
        let (mut sources, mut waiting) = self.core.sources(tape, seqs);
        let (mut frames, mut bytes) = (Vec::new(), 0_usize);
        loop {
            // A segment is opened when the merge comes to its first seq, not before: a range
            // over a whole tape reads the indexes of the segments that it answers from.
            let head = sources.iter().filter_map(Source::head).map(|entry| entry.seq).min();
            if let Some((first, finished)) = waiting.last()
                && head.is_none_or(|head| *first <= head)
            {
                match self.core.open_source(finished, tape, seqs) {
                    Ok(source) => sources.extend(source),
                    Err(_) if !frames.is_empty() => return Ok(frames),
                    Err(error) => return Err(error),
                }
                waiting.pop();
                continue;
            }
            let Some(source) =
                sources.iter_mut().filter(|source| source.head().map(|e| e.seq) == head).last()
            else {
                return Ok(frames);
            };
            let Some(entry) = source.head().copied() else { return Ok(frames) };
            let length = entry.length as usize;
            if !frames.is_empty() && bytes.saturating_add(length) > bytes_max {
                return Ok(frames);
            }
            source.next += 1;
            bytes = bytes.saturating_add(length);
            match self.core.read_frame(source, entry) {
                Ok(frame) => frames.push(frame),
                // What can be read before it is answered; who asks for the rest meets the error.
                Err(_) if !frames.is_empty() => return Ok(frames),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Core {
    /// The active segment as a source, and finished ones that meet the range, the one with the
    /// lowest first seq last.
    fn sources(&self, tape: TapeId, seqs: &RangeInclusive<u64>) -> (Vec<Source>, Vec<(u64, Arc<Finished>)>) {
        let shared = self.shared.read();
        let mut sources = Vec::new();
        if let Some(active) = &shared.active
            && !seqs.is_empty()
        {
            let entries: Vec<Entry> = active
                .entries
                .range((tape, *seqs.start())..=(tape, *seqs.end()))
                .map(|(&(tape, seq), at)| Entry { tape, seq, offset: at.offset, length: at.length })
                .collect();
            let path = recovery::segment_path(&self.folder, active.segment);
            sources.push(Source {
                segment: active.segment,
                path,
                file: Arc::clone(&active.file),
                entries,
                next: 0,
            });
        }
        let mut waiting: Vec<(u64, Arc<Finished>)> = Vec::new();
        for finished in &shared.finished {
            let span = finished.spans.iter().find(|span| span.tape == tape);
            if let Some(span) = span
                && span.first <= *seqs.end()
                && span.last >= *seqs.start()
            {
                waiting.push((span.first.max(*seqs.start()), Arc::clone(finished)));
            }
        }
        waiting.sort_by_key(|(first, finished)| std::cmp::Reverse((*first, finished.segment)));
        (sources, waiting)
    }

    fn open_source(
        &self,
        finished: &Finished,
        tape: TapeId,
        seqs: &RangeInclusive<u64>,
    ) -> Result<Option<Source>, StoreError> {
        let Some(loaded) = self.load(finished)? else { return Ok(None) };
        let from = loaded.entries.partition_point(|entry| (entry.tape, entry.seq) < (tape, *seqs.start()));
        let to = loaded.entries.partition_point(|entry| (entry.tape, entry.seq) <= (tape, *seqs.end()));
        let entries = loaded.entries.get(from..to).unwrap_or_default().to_vec();
        let file = Arc::clone(&loaded.file);
        Ok(Some(Source { segment: finished.segment, path: finished.path.clone(), file, entries, next: 0 }))
    }

    /// A finished segment's file and entries; `None` where retention has just unlinked it.
    pub(super) fn load(&self, finished: &Finished) -> Result<Option<Arc<Loaded>>, StoreError> {
        if let Some(loaded) = self.cache.lock().get(finished.segment) {
            return Ok(Some(loaded));
        }
        let name = finished.path.display();
        let failed = |error: io::Error| StoreError::unknown(format!("{name}: {error}"));
        let file = match File::open(&finished.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let kept = self.shared.read().finished.iter().any(|other| other.segment == finished.segment);
                return if kept { Err(StoreError::corrupt(format!("{name}: {error}"))) } else { Ok(None) };
            }
            Err(error) => return Err(failed(error)),
        };
        let entries = match &finished.index {
            IndexPlace::Memory(entries) => Arc::clone(entries),
            IndexPlace::File(offset) => {
                let length = file.metadata().map_err(failed)?.len();
                let bytes = usize::try_from(length.saturating_sub(*offset)).unwrap_or(0);
                let mut index = vec![0; bytes];
                file.read_exact_at(&mut index, *offset).map_err(failed)?;
                let (_, entries) = format::decode_index(&self.keyring, finished.segment, *offset, &index)
                    .map_err(|why| StoreError::corrupt(format!("{name}, byte {offset}: index: {why}")))?;
                entries.into()
            }
        };
        let loaded = Arc::new(Loaded { segment: finished.segment, file: Arc::new(file), entries });
        self.cache.lock().put(Arc::clone(&loaded));
        Ok(Some(loaded))
    }

    fn read_frame(&self, source: &Source, entry: Entry) -> Result<FrameRow, StoreError> {
        let body = self.read_body(source, entry.location(), entry.tape, entry.seq)?;
        Ok(FrameRow { tape: entry.tape, seq: entry.seq, body })
    }

    fn read_body(&self, source: &Source, at: Location, tape: TapeId, seq: u64) -> Result<Bytes, StoreError> {
        let named = |what: &dyn std::fmt::Display| {
            format!("{}, byte {}: frame {seq} of tape {tape}: {what}", source.path.display(), at.offset)
        };
        let mut bytes = vec![0; at.record_bytes()];
        source.file.read_exact_at(&mut bytes, u64::from(at.offset)).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StoreError::corrupt(named(&"the file ends before it")),
            _ => StoreError::unknown(named(&error)),
        })?;
        let (record, _, body) = Record::decode(&self.keyring, source.segment, at.offset, &bytes)
            .map_err(|error| StoreError::corrupt(named(&error)))?;
        if (record.tape, record.seq) != (tape, seq) {
            return Err(StoreError::corrupt(named(&"the index points to another frame")));
        }
        let from = bytes.len() - body.len();
        Ok(Bytes::from(bytes).slice(from..))
    }

    /// The stored bytes of one frame, where it is there.
    pub(super) fn find(&self, tape: TapeId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        let (mut sources, waiting) = self.sources(tape, &(seq..=seq));
        for (_, finished) in &waiting {
            sources.extend(self.open_source(finished, tape, &(seq..=seq))?);
        }
        for source in &sources {
            if let Some(entry) = source.head() {
                return self.read_body(source, entry.location(), tape, seq).map(Some);
            }
        }
        Ok(None)
    }
}
