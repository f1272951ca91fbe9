//! A warm start: what is latest goes by the region's Redis from nodes that know it to one that starts.
//!
//! A node that knows many symbols puts a sheet a shard ([`Sheet`]) into the cache every
//! `redis.latest_ms`, some 100 B a symbol, while it can read all that was acknowledged. One that starts
//! takes them before it follows anything, begins to follow no further on than they are, and leaves out
//! what they cover: what is in the sheets and what is taken is all there is. It answers nothing of it
//! before it has followed the tapes to their ends. Sheets are sealed; what is no sheet, or an old one, or
//! one of another database, is not there, and history is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::newest::Newest;
use super::sheet::{Sheet, SheetIndex};
use crate::hot::{Hot, HotError};
use crate::market::{Nanos, table};
use crate::seal::{Keyring, SealKey};
use crate::store::TapeId;
use crate::tape::tasks::{NowFn, SharedView};
use crate::tape::{Region, SHARDS};

/// What is older is no sheet: a node would follow the tapes from as far back.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Who has written sheets within so many turns keeps them.
const TURNS: u32 = 3;
/// Symbols of a sheet, which are two rows each.
const SYMBOLS_MAX: usize = table::ROWS_MAX / 2;
/// Where the index is.
const INDEX: &str = "latest";

/// The region's cache, and what is put into it.
#[derive(Clone)]
pub struct Sheets {
    /// The cache.
    pub hot: Arc<dyn Hot>,
    /// What seals them.
    pub keyring: Arc<Keyring>,
    /// The region.
    pub region: Region,
    /// Both clocks.
    pub now: NowFn,
}

impl Sheets {
    fn key(shard: u8) -> String {
        format!("{INDEX}:{shard}")
    }

    /// What a sheet is sealed for.
    fn seal_key(&self, shard: u8) -> SealKey {
        SealKey::new("sheet").part(self.region.as_str().as_bytes()).number(u64::from(shard))
    }

    /// What the index is sealed for.
    fn index_seal_key(&self) -> SealKey {
        SealKey::new("sheets").part(self.region.as_str().as_bytes())
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from((self.now)().wall.0 / 1_000_000).unwrap_or(0)
    }

    /// Whether something was made a short while ago; clocks of nodes differ.
    fn is_fresh(&self, at: Nanos, age: Duration) -> bool {
        let apart = (self.now)().wall.0.abs_diff(at.0);
        u128::from(apart) <= age.as_nanos()
    }

    /// All sheets that are there and name no other tapes than `knows`, by shard; none where Redis does not
    /// answer.
    pub async fn read(&self, knows: impl Fn(TapeId) -> bool) -> BTreeMap<u8, Sheet> {
        let mut sheets = BTreeMap::new();
        for shard in 0..SHARDS {
            match self.read_one(shard).await {
                Ok(sheet) => {
                    let known = sheet.filter(|sheet| sheet.position.tapes.keys().all(|tape| knows(*tape)));
                    sheets.extend(known.map(|sheet| (shard, sheet)));
                }
                Err(error) => {
                    tracing::info!(%error, "Redis does not say what is latest; it is read from history when it is asked");
                    return BTreeMap::new();
                }
            }
        }
        sheets
    }

    async fn read_one(&self, shard: u8) -> Result<Option<Sheet>, HotError> {
        let key = Self::key(shard);
        // The first call may have to connect.
        let mut cached = self.hot.cached(&key, self.wall_ms()).await;
        if cached.is_err() {
            cached = self.hot.cached(&key, self.wall_ms()).await;
        }
        let Some(sealed) = cached? else { return Ok(None) };
        let opened = self.keyring.open(&self.seal_key(shard), &sealed).map_err(|error| error.to_string());
        match opened.and_then(|bytes| Sheet::decode(&bytes).map_err(|error| error.to_string())) {
            Ok(sheet) => Ok(Some(sheet).filter(|sheet| self.is_fresh(sheet.at, AGE_MAX))),
            Err(why) => {
                tracing::warn!(
                    shard,
                    why,
                    "what Redis has as the latest of a shard is none, and is not used"
                );
                Ok(None)
            }
        }
    }

    /// Whether another node has put sheets of at least so many symbols a short while ago.
    async fn are_kept(&self, by: u64, symbols: u64, age: Duration) -> Result<bool, HotError> {
        let Some(sealed) = self.hot.cached(INDEX, self.wall_ms()).await? else { return Ok(false) };
        let opened = self.keyring.open(&self.index_seal_key(), &sealed).ok();
        let index = opened.and_then(|bytes| SheetIndex::decode(&bytes).ok());
        Ok(index
            .is_some_and(|index| index.by != by && index.symbols >= symbols && self.is_fresh(index.at, age)))
    }

    async fn put(&self, key: &str, seal_key: &SealKey, bytes: &[u8]) -> Result<(), HotError> {
        let sealed = self.keyring.seal(seal_key, bytes);
        self.hot.cache(key, sealed, AGE_MAX, self.wall_ms()).await
    }

    /// Puts what is known, unless another node does that knows as many symbols; whether it was put.
    ///
    /// # Errors
    /// [`HotError`]
    pub async fn write(
        &self,
        by: u64,
        newest: &Newest,
        view: &SharedView,
        every: Duration,
    ) -> Result<bool, HotError> {
        let symbols = newest.symbols() as u64;
        // Who is behind on a tape would hold back those that start.
        let is_behind = view.read(|view| view.readable().is_err());
        if symbols == 0 || is_behind || self.are_kept(by, symbols, every * TURNS).await? {
            return Ok(false);
        }
        for (shard, mut names) in newest.by_shard() {
            names.truncate(SYMBOLS_MAX);
            // In one step: the memory moves with the Position.
            let (position, symbols) = view.read(|view| (view.follower().position(), newest.known(&names)));
            let sheet = Sheet { position, at: (self.now)().wall, symbols };
            self.put(&Self::key(shard), &self.seal_key(shard), &sheet.encode()).await?;
        }
        let index = SheetIndex { by, at: (self.now)().wall, symbols };
        self.put(INDEX, &self.index_seal_key(), &index.encode()).await?;
        Ok(true)
    }
}

/// Puts sheets every so often, until it is cancelled. `by` names this process; `put` is told of each time.
pub async fn run_sheets(
    sheets: Sheets,
    by: u64,
    newest: Arc<Newest>,
    view: Arc<SharedView>,
    every: Duration,
    put: impl Fn() + Send + Sync,
    stop: CancellationToken,
) {
    while stop.run_until_cancelled(sleep(every)).await.is_some() {
        let written = stop.run_until_cancelled(sheets.write(by, &newest, &view, every)).await;
        match written {
            Some(Ok(true)) => put(),
            Some(Ok(false)) | None => {}
            Some(Err(error)) => tracing::debug!(%error, "what is latest was not put into Redis"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::history::testing::{World, of, time, trade_at};
    use crate::history::{ReadError, ReadLimits};
    use crate::hot::memory::{MemoryHot, MemoryHotOptions};
    use crate::live::Latest;
    use crate::market::{Row, Symbol};
    use crate::tape::fixtures::{delivery, frame, region};
    use crate::tape::{Follower, FollowerConfig, Mono, Now, Position, Progress, shard_of};

    const AT: &str = "2024-01-05T15:00:00Z";
    const SECOND: i64 = 1_000_000_000;

    fn now_at(seconds: i64) -> Now {
        Now { mono: Mono(0), wall: time(AT).plus(seconds * SECOND) }
    }

    /// Sheets of a region by a cache in memory, and what moves their clock, in seconds.
    fn sheets() -> (Sheets, Arc<AtomicI64>) {
        let moved = Arc::new(AtomicI64::new(0));
        let read = Arc::clone(&moved);
        let now: NowFn = Arc::new(move || now_at(read.load(Ordering::Relaxed)));
        let hot = Arc::new(MemoryHot::new(MemoryHotOptions::default()));
        let keyring = Arc::new(Keyring::from_secret([7; 32]));
        (Sheets { hot, keyring, region: region("a"), now }, moved)
    }

    fn symbol() -> Symbol {
        "A".parse().unwrap()
    }

    fn a_trade(second: i64, id: u64) -> Row {
        of("A", trade_at(time(AT).plus(second * SECOND), id, "10", 100))
    }

    /// What somebody knew who has followed tape 9 up to `next`: this trade is the latest.
    fn sheet(next: u64, newest: &Row) -> Sheet {
        let mut latest = Latest::new(10);
        let load = latest.trade(symbol()).unwrap_err();
        latest.apply(newest);
        latest.trade_loaded(symbol(), load, None);
        let mut position = Position::default();
        position.tapes.insert(TapeId(9), Progress::at(next));
        Sheet { position, at: time(AT), symbols: latest.known(&[symbol()]) }
    }

    #[tokio::test]
    async fn a_sheet_is_there_for_a_minute_for_who_knows_its_tapes() {
        let (sheets, clock) = sheets();
        let sheet = sheet(3, &a_trade(1, 1));
        for shard in [3, 4] {
            sheets.put(&Sheets::key(shard), &sheets.seal_key(shard), &sheet.encode()).await.unwrap();
        }
        let read = async || sheets.read(|tape| tape == TapeId(9)).await.into_keys().collect::<Vec<_>>();
        assert_eq!(read().await, [3, 4]);
        assert!(sheets.read(|_| false).await.is_empty(), "of another database");
        // Under another's name a sheet is none, nor is anything else.
        let ttl = Duration::from_secs(3_600);
        let moved = sheets.hot.cached(&Sheets::key(3), sheets.wall_ms()).await.unwrap().unwrap();
        sheets.hot.cache(&Sheets::key(4), moved, ttl, sheets.wall_ms()).await.unwrap();
        assert_eq!(read().await, [3]);
        sheets.hot.cache(&Sheets::key(3), Bytes::from_static(b"none"), ttl, sheets.wall_ms()).await.unwrap();
        assert!(read().await.is_empty());
        sheets.put(&Sheets::key(3), &sheets.seal_key(3), &sheet.encode()).await.unwrap();
        clock.store(-61, Ordering::Relaxed);
        assert!(read().await.is_empty(), "of a clock that is too far ahead");
        clock.store(59, Ordering::Relaxed);
        assert_eq!(read().await, [3]);
        clock.store(61, Ordering::Relaxed);
        assert!(read().await.is_empty());
    }

    #[tokio::test]
    async fn who_knows_no_more_leaves_it_to_another_for_a_while() {
        let (sheets, clock) = sheets();
        let age = Duration::from_secs(15);
        assert_eq!(sheets.are_kept(2, 1, age).await, Ok(false), "nobody does");
        let index = SheetIndex { by: 1, at: time(AT), symbols: 10 };
        sheets.put(INDEX, &sheets.index_seal_key(), &index.encode()).await.unwrap();
        assert_eq!(sheets.are_kept(2, 10, age).await, Ok(true));
        assert_eq!(sheets.are_kept(2, 11, age).await, Ok(false), "it knows more");
        assert_eq!(sheets.are_kept(1, 10, age).await, Ok(false), "that is itself");
        clock.store(16, Ordering::Relaxed);
        assert_eq!(sheets.are_kept(2, 10, age).await, Ok(false), "it is gone");
    }

    #[tokio::test]
    async fn what_a_sheet_covers_is_not_taken_again_and_nothing_is_told_before_the_tapes_are_followed() {
        let world = World::new(ReadLimits::default());
        *world.tail.shed.lock() = true;
        let newest = Newest::new(Arc::clone(&world.reader), 10);
        newest.warm(shard_of(symbol(), SHARDS), sheet(3, &a_trade(1, 1)));
        let config = FollowerConfig::new(region("a"), vec![region("a")]);
        let mut follower = Follower::new(config, Box::new(|| 1), Now { mono: Mono(0), wall: Nanos(0) });
        let now = now_at(60).wall;
        assert_eq!(newest.trade(symbol(), now).await, Err(ReadError::CatchingUp));
        // A later trade, which was taken back before the sheet was made.
        newest.deliver(&follower, &[delivery(9, 2, vec![a_trade(2, 2)])]);
        *world.tail.shed.lock() = false;
        let latest = async || newest.trade(symbol(), now).await.unwrap().unwrap().time;
        assert_eq!(latest().await, time(AT).plus(SECOND));
        newest.deliver(&follower, &[delivery(9, 3, vec![a_trade(3, 3)])]);
        assert_eq!(latest().await, time(AT).plus(3 * SECOND), "what comes after it is");
        assert_eq!(newest.reads(), 0);
        // Once all of the sheet was followed nothing is left out any more.
        for seq in 1..=3 {
            follower.accept(frame(9, seq, 0, &[]), Now { mono: Mono(1), wall: Nanos(1) });
        }
        newest.deliver(&follower, &[delivery(9, 2, vec![a_trade(4, 4)])]);
        assert_eq!(latest().await, time(AT).plus(4 * SECOND));
    }
}
