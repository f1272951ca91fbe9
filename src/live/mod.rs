//! What is new: streams of ticks to the clients that asked for them, and the latest values.
//!
//! | part | what it does | in memory |
//! |---|---|---|
//! | [`Interest`] | what a client asked for, by channel and symbol | `live.symbols_per_connection_max` |
//! | [`Hub`] | each delivery to those who asked, encoded once a form, nobody waited for | `live.backlog_bytes_max` of deliveries |
//! | `Announced` | bars that were announced, for who was away | `live.announced_bytes_max` |
//! | [`Bell`] | wakes one task | |
//! | `Outbox` | what waits for one client; its bytes are shared | `live.outbox_bytes_max` a client |
//! | [`Stream`] | one client: its replay, its place in the hub, its cursor | its share of `live.replay_requests_bytes_max` while it replays |
//! | `Scans` | tapes read for those who resume, a few at once, shared | `live.scan_cache_bytes_max` |
//! | [`OpenBars`] | minute and daily bars, folded as trades come and told as they close | `live.bars_bytes_max` |
//! | [`Latest`] | the latest trade and quote of each symbol | some 600 B a symbol, as much again with bars |
//! | [`Newest`] | behind it history, once for all who ask | |
//! | [`Sheet`], [`warm`] | what nodes of a region know of it, for one that starts, by way of its Redis | |
//! | [`Activity`], [`Screener`] | what is traded on the day, and moves | `live.latest_symbols_max` symbols |
//!
//! What it promises. Each accepted tick of a request reaches a client once (the view's memory of
//! requests); in order a tape and a series. Backfills do not reach streams; the latest is the newest
//! of history. A client that does not keep up costs the others nothing. A cursor covers what the client was
//! given and nothing else; who comes back with it, to whatever node, is given the rest, or told
//! what is lost. Bars that close, which are on no tape, may be given once more when a client comes
//! back; symbol, timeframe and time name a bar.
//!
//! [`Newest::newest`] answers many series under one lock, for feeds; bars, statuses and bands are
//! remembered only of symbols of which they are asked for there. Beyond
//! `live.latest_symbols_max` symbols the latest is read from history at each request.

mod activity;
mod announced;
mod ask;
mod away;
mod bars;
mod bell;
mod channel;
mod cursor;
mod encode;
mod gap;
mod hub;
mod index;
mod interest;
mod latest;
mod newest;
mod outbox;
mod place;
mod replay;
mod scans;
mod screener;
mod sheet;
mod stream;
mod subscriber;
pub mod tasks;
pub mod warm;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use activity::{Active, Activity, By, Mover};
pub use ask::{Attached, StreamAsk};
pub use bars::{AskId, BarCounts, BarLimits, BarsEffect, OpenBars};
pub use bell::Bell;
pub use channel::Channel;
pub use cursor::{CURSOR_PREFIX, Cursor, CursorError};
pub use encode::{Codec, Form, Piece, payload};
pub use gap::{Gap, GapReason};
pub use hub::{Heard, Hub, HubConfig, HubStatus, Turned};
pub use interest::{ALL_SYMBOLS, Interest, Selection};
pub use latest::{Ask, Latest, Load, Member, Quoted, Traded};
pub use newest::{Newest, Objects, Snapshot};
pub use outbox::Taken;
pub use place::{Place, Start};
pub use scans::Scans;
pub use screener::Screener;
pub use sheet::{Known, Sheet, SheetError, SheetIndex};
pub use stream::{Next, Stream};
pub use subscriber::{End, Personal, Picker, Subscriber};

use crate::market::Nanos;
use crate::tape::tasks::{NowFn, SharedView};
use crate::tape::{Mono, RequestConfig};

/// The tapes, as streams need them.
pub struct Tapes {
    /// What is followed.
    pub view: Arc<SharedView>,
    /// What is further back.
    pub scans: Scans,
}

/// A hub and what is behind it: streams are opened here.
pub struct Live {
    hub: Hub,
    tape: Arc<Tapes>,
    config: LiveConfig,
    now: NowFn,
    replays_bytes: Arc<AtomicUsize>,
}

/// A replay's share of memory, given back when it ends.
struct Share {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Share {
    fn requests(&self) -> RequestConfig {
        RequestConfig { bytes_max: self.bytes, ..RequestConfig::default() }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The least that a replay remembers.
const SHARE_BYTES_MIN: usize = 16 * 1024;
/// Between two looks whether the view has caught up.
const NOT_YET: Duration = Duration::from_millis(20);

/// Limits of streams.
#[derive(Clone, Copy, Debug)]
pub struct LiveConfig {
    /// How far back a client may resume.
    pub resume_ms: u64,
    /// The memory of requests of all replays.
    pub replay_memory_bytes_max: usize,
    /// Streams of one key; 0: no limit.
    pub streams_per_key_max: usize,
    /// What it carries is on the tapes: there are cursors, and who did not keep up reads on.
    pub is_taped: bool,
}

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStream {
    /// The key has as many as it may.
    #[error("this key has as many streams as live.streams_per_key_max allows")]
    TooMany,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

impl Live {
    /// Over a hub.
    #[must_use]
    pub fn new(hub: Hub, tape: Arc<Tapes>, config: LiveConfig, now: NowFn) -> Self {
        Self { hub, tape, config, now, replays_bytes: Arc::default() }
    }

    /// The hub.
    #[must_use]
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Opens a stream that has asked for nothing yet.
    ///
    /// # Errors
    /// [`NoStream`]
    pub fn open(self: &Arc<Self>, ask: StreamAsk<'_>) -> Result<Stream, NoStream> {
        let max = self.config.streams_per_key_max;
        let takes_over = ask.session.is_some_and(|session| self.hub.has_session(ask.key_id, session));
        if max > 0 && !takes_over && self.hub.clients_of(ask.key_id) >= max {
            return Err(NoStream::TooMany);
        }
        let registered = self.hub.register(ask.form, ask.key_id, ask.session, ask.attached);
        let subscriber = registered.ok_or(NoStream::Stopping)?;
        subscriber.personalize(|personal| *personal = ask.personal);
        Ok(Stream::new(Arc::clone(self), subscriber))
    }

    /// Waits until the view has followed the tapes to their ends, once after a start.
    pub async fn caught_up(&self) {
        while !self.tape.view.read(|view| view.follower().caught_up()) {
            tokio::time::sleep(NOT_YET).await;
        }
    }

    fn now(&self) -> Nanos {
        (self.now)().wall
    }

    fn mono(&self) -> Mono {
        (self.now)().mono
    }

    fn resume_nanos(&self) -> i64 {
        i64::try_from(self.config.resume_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
    }

    /// A share of what all replays may remember: the more there are, the smaller.
    fn replay_memory(&self) -> Share {
        let all = self.config.replay_memory_bytes_max;
        let used = self.replays_bytes.load(Ordering::Relaxed);
        let bytes = (all.saturating_sub(used) / 8).max(SHARE_BYTES_MIN);
        self.replays_bytes.fetch_add(bytes, Ordering::Relaxed);
        Share { of: Arc::clone(&self.replays_bytes), bytes }
    }
}
