//! Wiring: from configuration to a running node, and its end.
//!
//! A node is a function of its configuration and two listeners. Nothing is process-wide:
//! several nodes run in one process. It starts in this order: key, store, keys, view (from the
//! marks), writer (a new tape), keeper, doors; and is ready when its view has reached the end
//! of every tape, so that what was acknowledged before the start is served. It ends in the
//! opposite order ([`Node::drain`]): the doors stop accepting and running requests end; the
//! writer finishes its tape; the keeper writes blocks and marks of all that waits; the store
//! is closed. Work left undone by a kill is done at the next start.

mod admin;
pub mod backends;
mod bootstrap;
mod clock;
mod live;
mod status;
mod tape;
mod tls;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use secrecy::{ExposeSecret as _, SecretString};
use socket2::SockRef;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{AccessError, Audit, Keys, Tickets};
use crate::config::Config;
use crate::history::tasks::KeeperHandle;
use crate::history::{ReadLimits, Reader};
use crate::hot::redis::RedisHot;
use crate::http::tls::{Tls, TlsError};
use crate::http::{self, App, Gate, GateParts, Streams};
use crate::ingest::{Intake, IntakeConfig};
use crate::live::Newest;
use crate::store::StoreError;
use crate::subs::{Subs, run_attached};
use crate::tape::Region;
use crate::tape::tasks::{NowFn, Push, SharedView, WriterHandle};
use crate::telemetry::{Health, Metrics};
use crate::wire;
use backends::{Backend, Storage, StorageError};
use clock::Clocks;
use status::Standings;

pub use admin::{FindingOut, VerifyOut, VerifyState};
pub use bootstrap::{PairAccount, key_pair};
pub use status::{RegionOut, ShardOut, StatusOut, TapeOut};

/// At a stop streams are ended in so many steps.
const MOVE_STEPS: u32 = 30;
/// How long running requests of the admin door may take at the end.
const ADMIN_GRACE: Duration = Duration::from_millis(100);

/// Why a node does not start. Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// The tapes.
    #[error("the tapes cannot be followed: {0}")]
    Tapes(StoreError),
    /// API keys.
    #[error("the API keys cannot be read: {0}")]
    Access(#[from] AccessError),
    /// A listener or a file.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The list of metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The files of TLS.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The configuration, where only the parts together show it.
    #[error("{0}")]
    Config(String),
}

/// Where a node listens.
pub struct Listeners {
    /// The public door.
    pub http: TcpListener,
    /// The admin door.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds the configured addresses.
    ///
    /// # Errors
    /// [`StartError::Io`]
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = |key: &str, address: SocketAddr| {
            let failed = |source| StartError::Io { what: format!("{key} = {address}"), source };
            let listener = TcpListener::bind(address).map_err(failed)?;
            SockRef::from(&listener).listen(BACKLOG).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Ok::<_, StartError>(listener)
        };
        Ok(Self {
            http: bind("http.listen", config.http.listen)?,
            admin: bind("http.admin_listen", config.http.admin_listen)?,
        })
    }
}

/// Connections that wait to be taken, as far as the system allows: of clients that come back all at once
/// the library's 128 are few, and who finds no room tries again a second later.
const BACKLOG: i32 = 4_096;

/// A running node.
pub struct Node {
    config: Arc<Config>,
    gate: Arc<Gate>,
    intake: Arc<Intake>,
    http: SocketAddr,
    admin: SocketAddr,
    doors: [Handle<SocketAddr>; 2],
    tls: Option<Arc<Tls>>,
    writer: WriterHandle,
    keeper: KeeperHandle,
    view: Arc<SharedView>,
    streams: Arc<Streams>,
    newest: Arc<Newest>,
    now: NowFn,
    backend: Backend,
    push: Option<(Arc<RedisHot>, Arc<Push>)>,
    standing: Arc<Standings>,
    /// Cancelled when a drain begins: who stays connected is told to come again elsewhere.
    draining: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The region of the configuration. Under another region's name the tapes that are there would never be followed, and what of them is
/// not in blocks yet would be missing.
fn region(storage: &Storage, region: &str) -> Result<Region, StartError> {
    let regions = storage.regions_written();
    if regions.is_empty() || regions.contains(region) {
        return Region::parse(region)
            .map_err(|error| StartError::Config(format!("node.region {region:?} {error}")));
    }
    let regions: Vec<String> = regions.into_iter().collect();
    Err(StartError::Config(format!(
        "node.region is {region:?}, but the data folder was written as {:?}: a node keeps its region",
        regions.join(", ")
    )))
}

impl Node {
    /// Starts a node. It serves at once, and is ready when [`Node::ready`] returns.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(config: Arc<Config>, listeners: Listeners) -> Result<Self, StartError> {
        let (metrics, health) =
            (Arc::new(Metrics::new()?), Arc::new(Health::starting(&backends::parts(&config))));
        let clocks = Clocks::system();
        let tls = Tls::open(&config.http)?.map(Arc::new);
        let storage = backends::open(&config).await?;
        storage.tell(&metrics);
        backends::check_durability(&config, &storage, &health).await?;
        let region = region(&storage, &config.node.region)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut tape = tape::start(&config, &storage, region, &clocks, &health, &stop, &tasks).await?;
        let gate = gate(&config, &storage, &clocks, metrics, health).await?;
        let reader = Arc::new(reader(&config, &storage, &tape.view, region));
        let intake = Arc::new(intake(&config, &storage, &tape, &clocks));
        let warm = tape.warm.take();
        let of_tape = (&storage, &tape.view);
        let ground = live::Ground::of(&config, of_tape, &reader, &clocks, &gate.metrics);
        let parts = live::start(&config.live, &ground, warm, &stop, &tasks);
        tape.follow(&stop, &tasks);
        let (draining, subs) = (CancellationToken::new(), subs(&config, &storage, &clocks));
        let streams = Arc::clone(&parts.streams);
        let hubs = vec![Arc::clone(&streams.live), Arc::clone(&streams.test)];
        tasks.spawn(run_attached(Arc::clone(&subs), hubs, stop.clone()));
        let app = Arc::new(App {
            gate: Arc::clone(&gate),
            intake: Arc::clone(&intake),
            reader,
            newest: Arc::clone(&parts.newest),
            streams: parts.streams,
            subs,
            screener: parts.screener,
            producers: http::ingest::Producers::new(&config.ingest, draining.clone()),
        });
        let doors = [Handle::new(), Handle::new()];
        let (http, admin) = (address(&listeners.http)?, address(&listeners.admin)?);
        let standing = Arc::new(Standings::of(&config, &tape));
        let of_node = admin::routes(storage.backend.clone(), stop.clone());
        let of_node = of_node.merge(status::routes(Arc::clone(&standing)));
        let routers = [http::router(app), http::admin_router(Arc::clone(&gate), of_node)];
        let of_doors = [listeners.http, listeners.admin].into_iter().zip(routers);
        for (((listener, router), tls), handle) in of_doors.zip([tls.clone(), None]).zip(&doors) {
            tasks.spawn(serve(listener, router, Arc::clone(&gate), handle.clone(), tls));
        }
        let node = Self {
            config,
            gate,
            intake,
            http,
            admin,
            doors,
            tls,
            writer: tape.writer,
            keeper: tape.keeper,
            view: tape.view,
            streams,
            newest: parts.newest,
            now: clocks.now,
            backend: storage.backend,
            push: tape.push,
            standing,
            draining,
            stop,
            tasks,
        };
        node.watch();
        Ok(node)
    }

    /// Returns when the node serves everything that was acknowledged before it started.
    pub async fn ready(&self) {
        while !self.gate.health.report().ready {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The address of the public door.
    #[must_use]
    pub const fn http(&self) -> SocketAddr {
        self.http
    }

    /// The same as clients write it: `https://…` where the door speaks TLS.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.http)
    }

    /// The address of the admin door.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The token of this boot that opens the admin door.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        self.gate.admin_token.expose_secret()
    }

    /// The keys.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Where ticks go in, for producers in the same process.
    #[must_use]
    pub const fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Ends the node without losing anything, within `node.drain_ms` in all. Answers whether all of
    /// it was done in time; where it was not, the next start does the rest.
    pub async fn drain(self) -> bool {
        let limit = Duration::from_millis(self.config.node.drain_ms);
        // One deadline for everything. What comes first must leave time for the rest, and what is
        // done early leaves it more.
        let begun = Instant::now();
        let by = |quarters: u32| begun + limit * quarters / 4;
        self.gate.health.withdraw("node", "draining");
        self.draining.cancel();
        let moved = self.move_streams(limit / 8).await;
        let [http, admin] = &self.doors;
        http.graceful_shutdown(Some(limit / 4));
        // Requests that are under way are answered by the writer, so that it ends after them.
        let answered = async {
            while http.connection_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let answered = timeout_at(by(1), answered).await.is_ok();
        let finished = timeout_at(by(3), self.writer.drain()).await.unwrap_or(false);
        let kept = timeout_at(by(4), self.keeper.drain()).await.is_ok();
        admin.graceful_shutdown(Some(ADMIN_GRACE));
        self.stop.cancel();
        self.tasks.close();
        let ended = timeout_at(by(4), self.tasks.wait()).await.is_ok();
        tracing::info!(moved, answered, finished, kept, ended, "drained");
        finished && kept
    }
}

impl Node {
    /// Tells the clients of streams to come back elsewhere, one after the other; whether all have
    /// gone.
    async fn move_streams(&self, limit: Duration) -> bool {
        let over = Duration::from_millis(self.config.live.move_ms).min(limit);
        let retry_ms = || rand::random_range(0..=self.config.live.move_ms);
        for live in [&self.streams.live, &self.streams.test] {
            live.hub().stop();
        }
        let begun = Instant::now();
        for step in 1..=MOVE_STEPS {
            for live in [&self.streams.live, &self.streams.test] {
                live.hub().end_some(MOVE_STEPS + 1 - step, retry_ms);
            }
            let clients = [&self.streams.live, &self.streams.test].map(|live| live.hub().status().clients);
            if clients == [0, 0] {
                break;
            }
            tokio::time::sleep_until(begun + over * step / MOVE_STEPS).await;
        }
        self.streams.tasks.close();
        timeout_at(begun + limit, self.streams.tasks.wait()).await.is_ok()
    }
}

fn intake(config: &Config, storage: &Storage, tape: &tape::TapeTasks, clocks: &Clocks) -> Intake {
    let door = Arc::new(tape::TapeDoor {
        writer: tape.writer.clone(),
        view: Arc::clone(&tape.view),
        frame_bytes_max: config.tape.frame_bytes_max,
        now: Arc::clone(&clocks.now),
    });
    Intake::new(door, Arc::clone(&storage.keyring), intake_config(config))
}

fn reader(config: &Config, storage: &Storage, view: &Arc<SharedView>, region: Region) -> Reader {
    let (store, records) = (Arc::clone(&storage.store), Arc::clone(&storage.records));
    let (keyring, limits) = (Arc::clone(&storage.keyring), ReadLimits::of(&config.history));
    Reader::new(store, records, keyring, Arc::clone(view) as _, region, limits)
}

/// What every request passes, with the API keys as they are stored.
async fn gate(
    config: &Arc<Config>,
    storage: &Storage,
    clocks: &Clocks,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> Result<Arc<Gate>, StartError> {
    let records = Arc::clone(&storage.records);
    let audit = Arc::new(Audit::new(Arc::clone(&records), Arc::clone(&storage.keyring))?);
    let keys = Keys::open(
        Arc::clone(&records),
        Arc::clone(&storage.keyring),
        Arc::clone(&audit),
        config.access.clone(),
        clocks.mono.clone(),
    );
    let (keys, access) = (Arc::new(keys.await?), config.access.clone());
    let region = config.node.region.clone();
    let tickets = Tickets::new(records, Arc::clone(&storage.keyring), Arc::clone(&keys), region, access);
    Ok(Arc::new(Gate::new(GateParts {
        config: Arc::clone(config),
        metrics,
        health,
        keys,
        tickets,
        audit,
        clock: Arc::clone(&clocks.wall),
        mono: clocks.mono.clone(),
        admin_token: SecretString::from(bootstrap::admin_token()?),
    })))
}

/// The subscriptions as they are stored.
fn subs(config: &Config, storage: &Storage, clocks: &Clocks) -> Arc<Subs> {
    let (records, keyring) = (Arc::clone(&storage.records), Arc::clone(&storage.keyring));
    Arc::new(Subs::new(records, keyring, config.subs.clone(), clocks.mono.clone()))
}

/// Serves a door until its handle shuts it down.
async fn serve(
    listener: TcpListener,
    router: axum::Router,
    gate: Arc<Gate>,
    handle: Handle<SocketAddr>,
    tls: Option<Arc<Tls>>,
) {
    let (config, metrics) = (&gate.config.http, Arc::clone(&gate.metrics));
    if let Err(error) = http::server::serve(listener, router, config, metrics, handle, tls.as_deref()).await {
        tracing::error!(%error, "a door has closed");
    }
}

fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|source| StartError::Io { what: "the address of a listener".to_owned(), source })
}

fn intake_config(config: &Config) -> IntakeConfig {
    IntakeConfig {
        limits: wire::ReadLimits {
            ticks_max: u32::try_from(config.ingest.ticks_max).unwrap_or(u32::MAX),
            ..wire::ReadLimits::default()
        },
        verdicts_max: config.ingest.verdicts_max,
        in_flight_bytes_max: config.ingest.in_flight_bytes_max,
        future_ms: config.ingest.future_ms,
        answer_ms: config.ingest.answer_ms,
    }
}
