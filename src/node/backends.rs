//! Where a node stores: the one place that knows which backends there are.
//!
//! The data folder holds the key file `seal.key` and the embedded store in `store`. Over a cluster it
//! holds nothing that another node would lack.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::{AccessError, Audit, Keys, MonoClock};
use crate::config::{self, Config};
use crate::hot::HotError;
use crate::hot::redis::{RedisHot, RedisHotOptions};
use crate::seal::{KeyFileError, Keyring};
use crate::store::cassandra::durability::Durability;
use crate::store::cassandra::{CassandraOptions, CassandraStore, Layout, Placement, RecordLives};
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore, OpenReport, Severity};
use crate::store::{Records, Space, Store, StoreError};
use crate::tape::Rollover;
use crate::telemetry::{Health, Metrics, Status};

/// Why the data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The folder itself.
    #[error("the data folder {folder}: {source}")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The key file.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys in it.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A file that the configuration names.
    #[error("{key} = {path}: {source}")]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The address of the Redis.
    #[error("{0}")]
    Redis(HotError),
    /// The database answers before what it was given is on its disks.
    #[error("{0}")]
    NotDurable(String),
}

/// What is opened, by what it is.
#[derive(Clone)]
pub enum Backend {
    /// A data folder.
    Embedded(Arc<EmbeddedStore>),
    /// A cluster.
    Cassandra(Arc<CassandraStore>),
}

/// An opened store.
pub struct Storage {
    /// The keyring of all stored bytes.
    pub keyring: Arc<Keyring>,
    /// Tapes and blocks.
    pub store: Arc<dyn Store>,
    /// Small rows.
    pub records: Arc<dyn Records>,
    /// Both of them, by what they are.
    pub backend: Backend,
    /// What opening a data folder found and mended.
    report: Option<OpenReport>,
}

impl Storage {
    /// The regions that have tapes in a data folder.
    #[must_use]
    pub fn regions_written(&self) -> BTreeSet<String> {
        match &self.backend {
            Backend::Embedded(store) => store.parts(Space::Tapes),
            Backend::Cassandra(_) => BTreeSet::new(),
        }
    }

    /// Logs what opening found and mended, and counts it.
    pub fn tell(&self, metrics: &Metrics) {
        let Some(report) = &self.report else {
            tracing::info!("the database is reached, and its tables are those of this program");
            return;
        };
        metrics.store_log_cut_bytes.inc_by(report.cut_bytes);
        for finding in &report.findings {
            let (file, offset, what) = (finding.file.display(), finding.offset, &finding.what);
            match finding.severity {
                Severity::Cut => {
                    tracing::warn!(%file, offset, what, "the end of the log was cut; none of it was acknowledged");
                }
                Severity::Healed => {
                    tracing::warn!(%file, offset, what, "a damaged file was healed from its mirror");
                }
                Severity::Damage => {
                    tracing::error!(%file, offset, what, "a stored file is damaged");
                }
            }
        }
        let (frames, taken_back) = (report.frames, report.ignored_records);
        tracing::info!(frames, taken_back, created = report.created, "the store is open");
    }
}

/// The parts that report their health before a node is ready.
#[must_use]
pub const fn parts(config: &Config) -> [&'static str; 3] {
    match config.store.backend {
        config::Backend::Embedded => ["view", "writer", "disk"],
        config::Backend::Cassandra => ["view", "writer", "database"],
    }
}

/// When a writer leaves its tape: of a cluster another partition may take what one does not; a disk
/// is one.
#[must_use]
pub fn rollover(config: &Config) -> Option<Rollover> {
    match config.store.backend {
        config::Backend::Embedded => None,
        config::Backend::Cassandra => Some(Rollover::default()),
    }
}

/// How often a writer puts the row of its tape again. A region that was away hears of a tape by it; on
/// one disk it only has to outlive the frames.
#[must_use]
pub const fn row_refresh_ms(config: &Config) -> u64 {
    match config.store.backend {
        config::Backend::Embedded => 3_600_000,
        config::Backend::Cassandra => 20_000,
    }
}

/// Opens what the configuration says: a data folder, which is made where it is missing, or a cluster.
///
/// # Errors
/// [`StorageError`]
pub async fn open(config: &Config) -> Result<Storage, StorageError> {
    match config.store.backend {
        config::Backend::Embedded => Box::pin(open_embedded(config)).await,
        config::Backend::Cassandra => Box::pin(open_cassandra(config)).await,
    }
}

async fn open_cassandra(config: &Config) -> Result<Storage, StorageError> {
    let keyring = Arc::new(keyring(config)?);
    let lives = RecordLives {
        tapes: (Duration::from_secs(config.store.tape_hours.saturating_mul(7_200))).max(ROWS_AGE_MIN),
        audit: Duration::from_secs(config.access.audit_days.saturating_mul(86_400)),
    };
    let store = Arc::new(CassandraStore::open(&cassandra(config)?, lives).await?);
    Ok(Storage {
        keyring,
        store: Arc::clone(&store) as _,
        records: Arc::clone(&store) as _,
        backend: Backend::Cassandra(store),
        report: None,
    })
}

/// A registry row stays at least so long: it is there before the first frame of its tape. So does
/// the row that says that something was deleted.
pub(super) const ROWS_AGE_MIN: Duration = Duration::from_secs(24 * 3_600);

/// How the cluster of the configuration is reached.
///
/// # Errors
/// [`StorageError::File`]
pub fn cassandra(config: &Config) -> Result<CassandraOptions, StorageError> {
    let section = &config.cassandra;
    let password = secret("cassandra.password_file", section.password_file.as_deref())?;
    let ca = section.tls_ca.as_deref().map(|path| read("cassandra.tls_ca", path)).transpose()?;
    let places = section.regions.iter().map(|place| {
        let placement = Placement { datacenter: place.datacenter.clone(), replicas: place.replicas };
        (place.region.clone(), placement)
    });
    Ok(CassandraOptions {
        nodes: section.nodes.clone(),
        layout: Layout {
            keyspace: section.keyspace.clone(),
            region: config.node.region.clone(),
            regions: places.collect(),
            tape_ttl_s: u32::try_from(config.store.tape_hours.max(1).saturating_mul(3_600))
                .unwrap_or(u32::MAX),
        },
        rack: section.rack.clone(),
        user: section.user.clone().zip(password.map(Into::into)),
        ca,
        connect: Duration::from_millis(section.connect_ms),
        request: Duration::from_millis(section.request_ms),
        hedge: Duration::from_millis(section.hedge_ms),
        connections: section.connections,
        append_bytes_max: section.append_bytes_max,
        flush_statements: section.flush_statements,
    })
}

/// The door to the region's Redis, where there is one.
///
/// # Errors
/// [`StorageError::File`], [`StorageError::Redis`]
pub fn hot(config: &Config) -> Result<Option<Arc<RedisHot>>, StorageError> {
    let section = &config.redis;
    let Some(url) = section.url.clone() else { return Ok(None) };
    let options = RedisHotOptions {
        url,
        password: secret("redis.password_file", section.password_file.as_deref())?.map(Into::into),
        ca: section.tls_ca.as_deref().map(|path| read("redis.tls_ca", path)).transpose()?,
        prefix: format!("{}:{}", config.cassandra.keyspace, config.node.region),
        call: Duration::from_millis(section.call_ms),
    };
    RedisHot::new(options).map(Arc::new).map(Some).map_err(StorageError::Redis)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StorageError> {
    let failed = |source| StorageError::File { key, path: path.display().to_string(), source };
    std::fs::read(path).map_err(failed)
}

fn secret(key: &'static str, path: Option<&Path>) -> Result<Option<String>, StorageError> {
    let bytes = path.map(|path| read(key, path)).transpose()?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// Says what an acknowledgement of the store means, in the log and in the health, and refuses one that
/// means too little.
///
/// # Errors
/// [`StorageError::NotDurable`]
pub async fn check_durability(
    config: &Config,
    storage: &Storage,
    health: &Health,
) -> Result<(), StorageError> {
    let Backend::Cassandra(store) = &storage.backend else { return Ok(()) };
    match Box::pin(store.durability()).await {
        Durability::Synced => {
            tracing::info!("each node of this datacenter syncs its commit log before it answers");
            health.set("durability", Status::Ok, "commitlog_sync is group or batch on each node");
        }
        Durability::Periodic { nodes } => {
            let nodes: Vec<String> = nodes.iter().map(|(node, sync)| format!("{node}: {sync}")).collect();
            let message = format!(
                "these nodes of the database answer before their commit log is on the disk, so that what was \
                 acknowledged is lost with their power: commitlog_sync of {}; set it to group or batch in their cassandra.yaml",
                nodes.join(", ")
            );
            if config.store.require_durable_commitlog {
                return Err(StorageError::NotDurable(format!(
                    "{message}, or set store.require_durable_commitlog = false"
                )));
            }
            tracing::warn!("{message}");
            health.set("durability", Status::Warn, message);
        }
        Durability::NotKnown { why } => {
            tracing::warn!(why, "how the database syncs its commit log is not known");
            health.set(
                "durability",
                Status::Warn,
                format!("how the database syncs its commit log is not known: {why}"),
            );
        }
    }
    Ok(())
}

/// Opens the data folder, or makes it.
async fn open_embedded(config: &Config) -> Result<Storage, StorageError> {
    let data = &config.node.data;
    let keyring = Arc::new(keyring(config)?);
    let options = EmbeddedOptions {
        segment_bytes: config.store.segment_bytes,
        append_queue_bytes_max: config.store.append_queue_bytes_max,
        index_cache_bytes_max: config.store.index_cache_bytes_max,
        records_bytes_max: config.store.records_bytes_max,
        block_cache_bytes: config.store.block_cache_bytes,
    };
    let (store, report) = EmbeddedStore::open(&data.join("store"), Arc::clone(&keyring), options).await?;
    let store = Arc::new(store);
    Ok(Storage {
        keyring,
        store: Arc::clone(&store) as _,
        records: Arc::clone(&store) as _,
        backend: Backend::Embedded(store),
        report: Some(report),
    })
}

/// The keyring of all stored bytes: as configured, else the one that the first start made and keeps
/// in the data folder.
///
/// # Errors
/// [`StorageError`]
pub fn keyring(config: &Config) -> Result<Keyring, StorageError> {
    let data = &config.node.data;
    std::fs::create_dir_all(data)
        .map_err(|source| StorageError::Folder { folder: data.display().to_string(), source })?;
    let path = data.join("seal.key");
    match config.store.seal_secret() {
        Some(secret) => Ok(Keyring::from_secret(secret)),
        // What is stored already was sealed with the key that is missing: another would hide it.
        None if data.join("store").join("VERSION").exists() => Ok(Keyring::read(&path)?),
        None => Ok(Keyring::read_or_create(&path)?.0),
    }
}

/// The keys of a data folder that no node holds, or of a cluster.
///
/// # Errors
/// [`StorageError`]
pub async fn open_keys(config: &Config) -> Result<Keys, StorageError> {
    let storage = open(config).await?;
    let started = Instant::now();
    let clock = MonoClock::new(move || started.elapsed());
    let audit = Arc::new(Audit::new(Arc::clone(&storage.records), Arc::clone(&storage.keyring))?);
    Ok(Keys::open(storage.records, storage.keyring, audit, config.access.clone(), clock).await?)
}
