//! Walks all rows and checks each level's counts against the level below.

use fjall::Readable as _;

use super::put::SYMBOLS_KEY;
use super::read::row_name;
use super::rows::{self, IndexRow, KINDS, SymbolCounts};
use super::{Blocks, Opened};
use crate::store::StoreError;
use crate::store::embedded::{Finding, Progress, Severity};

/// How many rows are read between two reports of progress.
const ROWS_A_REPORT: u64 = 1024;

struct Walk<'a> {
    blocks: &'a Blocks,
    opened: Opened,
    snapshot: fjall::Snapshot,
    findings: Vec<Finding>,
    progress: &'a mut dyn FnMut(Progress),
    rows: u64,
    rows_total: u64,
}

impl Blocks {
    /// Reads every row and names what is damaged.
    pub(in crate::store::embedded) fn verify(
        &self,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Finding>, StoreError> {
        let opened = self.opened()?;
        let rows_total = [&opened.index, &opened.directory, &opened.symbols]
            .map(|keyspace| keyspace.approximate_len() as u64)
            .iter()
            .sum();
        let snapshot = opened.database.snapshot();
        let mut walk =
            Walk { blocks: self, opened, snapshot, findings: Vec::new(), progress, rows: 0, rows_total };
        walk.symbols()?;
        walk.directory()?;
        walk.index()?;
        (walk.progress)(Progress { what: "blocks", done_bytes: walk.rows, total_bytes: walk.rows });
        Ok(walk.findings)
    }
}

impl Walk<'_> {
    /// Each symbol has as many buckets as its row says, and there are as many symbols as counted.
    fn symbols(&mut self) -> Result<(), StoreError> {
        let mut seen = 0;
        for guard in self.snapshot.iter(&self.opened.symbols) {
            let (key, value) = guard.into_inner().map_err(|error| self.blocks.read_failed(&error))?;
            seen += 1;
            self.step();
            let Some(counts) = self.open("symbols", &key, &value, SymbolCounts::decode) else { continue };
            let mut buckets = 0_u32;
            for guard in self.snapshot.prefix(&self.opened.directory, &key) {
                // An iterator of fjall that met damage answers errors without end: stop at the first.
                guard.key().map_err(|error| self.blocks.read_failed(&error))?;
                buckets += 1;
            }
            if buckets != counts.buckets {
                self.damage(
                    "symbols",
                    &key,
                    &format!("says {} buckets, there are {buckets}", counts.buckets),
                );
            }
        }
        let stored = self.snapshot.get(&self.opened.counts, SYMBOLS_KEY);
        let stored = stored.map_err(|error| self.blocks.read_failed(&error))?;
        let counted =
            stored.map_or(Some(0), |value| self.open("counts", SYMBOLS_KEY, &value, rows::decode_count));
        let Some(counted) = counted else { return Ok(()) };
        if counted != seen {
            self.damage("counts", SYMBOLS_KEY, &format!("says {counted} symbols, there are {seen}"));
        }
        Ok(())
    }

    /// Each bucket has as many blocks of each kind as its row says, and belongs to a symbol.
    fn directory(&mut self) -> Result<(), StoreError> {
        for guard in self.snapshot.iter(&self.opened.directory) {
            let (key, value) = guard.into_inner().map_err(|error| self.blocks.read_failed(&error))?;
            self.step();
            let Some(counts) = self.open("directory", &key, &value, rows::decode_kinds) else { continue };
            let mut found = [0_u32; KINDS];
            for guard in self.snapshot.prefix(&self.opened.index, &key) {
                let block = guard.key().map_err(|error| self.blocks.read_failed(&error))?;
                if let Some(count) =
                    rows::parse_block_key(&block).and_then(|block| found.get_mut(rows::kind_at(block.kind)))
                {
                    *count += 1;
                }
            }
            if found != counts {
                self.damage(
                    "directory",
                    &key,
                    &format!("says blocks a kind {counts:?}, there are {found:?}"),
                );
            }
            let symbol = key.get(..rows::SYMBOL_BYTES).unwrap_or_default();
            let known = self.snapshot.get(&self.opened.symbols, symbol);
            if known.map_err(|error| self.blocks.read_failed(&error))?.is_none() {
                self.damage("symbols", symbol, "is missing, although the directory has buckets of it");
            }
        }
        Ok(())
    }

    /// Each block has its body and its bucket.
    fn index(&mut self) -> Result<(), StoreError> {
        for guard in self.snapshot.iter(&self.opened.index) {
            let (key, value) = guard.into_inner().map_err(|error| self.blocks.read_failed(&error))?;
            self.step();
            let Some(row) = self.open("index", &key, &value, IndexRow::decode) else { continue };
            let body = self.snapshot.get(&self.opened.bodies, &key);
            match body.map_err(|error| self.blocks.read_failed(&error))? {
                None => self.damage("bodies", &key, "is missing"),
                Some(body) if !row.is_of(&body) => {
                    self.damage("bodies", &key, "has other contents than its index says");
                }
                Some(_) => {}
            }
            let bucket = key.get(..rows::BUCKET_BYTES).unwrap_or_default();
            let known = self.snapshot.get(&self.opened.directory, bucket);
            if known.map_err(|error| self.blocks.read_failed(&error))?.is_none() {
                self.damage("directory", bucket, "is missing, although there are blocks of it");
            }
        }
        Ok(())
    }

    fn open<T>(
        &mut self,
        keyspace: &str,
        key: &[u8],
        value: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let row = rows::open(&self.blocks.keyring, keyspace, key, value, decode);
        row.map_err(|error| self.damage(keyspace, key, &error.to_string())).ok()
    }

    fn damage(&mut self, keyspace: &str, key: &[u8], what: &str) {
        let what = format!("{} {what}", row_name(keyspace, key));
        let file = self.blocks.folder.clone();
        self.findings.push(Finding { file, offset: None, severity: Severity::Damage, what });
    }

    fn step(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_A_REPORT) {
            let total_bytes = self.rows_total.max(self.rows);
            (self.progress)(Progress { what: "blocks", done_bytes: self.rows, total_bytes });
        }
    }
}
