//! A warm start: what is latest goes by the region's Redis from nodes that know it to one that starts.
//!
//! A node that knows many symbols puts a sheet a shard ([`Sheet`]) into the cache every
//! `redis.latest_ms`. One that starts takes them before it follows anything, and begins to follow no
//! further on than they do: then what is in the sheets and what is delivered is all there is. Sheets are
//! sealed; what is no sheet, or an old one, is not there, and history is read.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::newest::Newest;
use super::sheet::{Sheet, SheetIndex};
use crate::hot::{Hot, HotError};
use crate::market::Nanos;
use crate::seal::{Keyring, SealKey};
use crate::tape::tasks::{NowFn, SharedView};
use crate::tape::{Region, SHARDS};

/// What is older is no sheet: a node would follow the tapes from as far back.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Who has written sheets within so many turns keeps them.
const TURNS: u32 = 3;
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

    /// All sheets that are there.
    pub async fn read(&self) -> Vec<Sheet> {
        let sheets = join_all((0..SHARDS).map(|shard| self.read_one(shard))).await;
        sheets.into_iter().flatten().collect()
    }

    async fn read_one(&self, shard: u8) -> Option<Sheet> {
        let told = |error: &HotError| tracing::debug!(shard, %error, "no sheet of what is latest");
        let sealed = self.hot.cached(&Self::key(shard), self.wall_ms()).await.inspect_err(told).ok()??;
        let opened = self.keyring.open(&self.seal_key(shard), &sealed).map_err(|error| error.to_string());
        match opened.and_then(|bytes| Sheet::decode(&bytes).map_err(|error| error.to_string())) {
            Ok(sheet) => Some(sheet).filter(|sheet| self.is_fresh(sheet.at, AGE_MAX)),
            Err(why) => {
                tracing::warn!(
                    shard,
                    why,
                    "what Redis has as the latest of a shard is none, and is not used"
                );
                None
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
        if symbols == 0 || self.are_kept(by, symbols, every * TURNS).await? {
            return Ok(false);
        }
        for shard in 0..SHARDS {
            // In one step: the memory moves with the Position.
            let (position, symbols) = view.read(|view| (view.follower().position(), newest.known(shard)));
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
