//! Where frames are: a sorted index a segment, of finished segments only spans in memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::{ENTRY_BYTES, Entry, Location};
use crate::store::TapeId;

/// The seqs of one tape in one segment: from first to last, perhaps with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TapeSpan {
    pub(super) tape: TapeId,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// A segment that is no longer written.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) segment: u64,
    pub(super) path: PathBuf,
    pub(super) spans: Vec<TapeSpan>,
    /// The offset of its index in the file; without one the entries are kept here.
    pub(super) index: IndexPlace,
}

/// Where the entries of a finished segment are.
#[derive(Debug)]
pub(super) enum IndexPlace {
    /// At this offset of the file.
    File(u64),
    /// In memory: the index could not be written.
    Memory(Arc<[Entry]>),
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: u64,
    pub(super) file: Arc<File>,
    pub(super) entries: BTreeMap<(TapeId, u64), Location>,
}

/// What readers see: only what is on the disk.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// By segment, ascending.
    pub(super) finished: Vec<Arc<Finished>>,
    pub(super) active: Option<Active>,
    /// Why appends are refused now.
    pub(super) refusing: Option<String>,
}

impl Active {
    pub(super) fn sorted_entries(&self) -> Vec<Entry> {
        self.entries
            .iter()
            .map(|(&(tape, seq), at)| Entry { tape, seq, offset: at.offset, length: at.length })
            .collect()
    }
}

/// The spans of entries sorted by tape and seq.
pub(super) fn spans(entries: &[Entry]) -> Vec<TapeSpan> {
    let mut spans: Vec<TapeSpan> = Vec::new();
    for entry in entries {
        match spans.last_mut() {
            Some(span) if span.tape == entry.tape => span.last = entry.seq,
            _ => spans.push(TapeSpan { tape: entry.tape, first: entry.seq, last: entry.seq }),
        }
    }
    spans
}

/// A finished segment opened for reading.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) segment: u64,
    pub(super) file: Arc<File>,
    pub(super) entries: Arc<[Entry]>,
}

/// The finished segments that were read last, within a budget of bytes.
#[derive(Debug)]
pub(super) struct Cache {
    bytes_max: usize,
    bytes: usize,
    /// The least recently used first.
    loaded: VecDeque<Arc<Loaded>>,
}

impl Cache {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, loaded: VecDeque::new() }
    }

    pub(super) fn get(&mut self, segment: u64) -> Option<Arc<Loaded>> {
        let at = self.loaded.iter().position(|loaded| loaded.segment == segment)?;
        let loaded = self.loaded.remove(at)?;
        self.loaded.push_back(Arc::clone(&loaded));
        Some(loaded)
    }

    pub(super) fn put(&mut self, loaded: Arc<Loaded>) {
        self.forget(loaded.segment);
        self.bytes += size(&loaded);
        self.loaded.push_back(loaded);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.loaded.pop_front()
        {
            self.bytes -= size(&oldest);
        }
    }

    pub(super) fn forget(&mut self, segment: u64) {
        if let Some(at) = self.loaded.iter().position(|loaded| loaded.segment == segment)
            && let Some(loaded) = self.loaded.remove(at)
        {
            self.bytes -= size(&loaded);
        }
    }
}

/// The entries, and something for the open file.
fn size(loaded: &Loaded) -> usize {
    loaded.entries.len() * ENTRY_BYTES + 1024
}
