//! What the data folder holds, and how it is opened: the key file `seal.key` and the embedded
//! store in `store`.

use std::sync::Arc;
use std::time::Instant;

use crate::access::{AccessError, Audit, Keys, MonoClock};
use crate::config::Config;
use crate::seal::{KeyFileError, Keyring};
use crate::store::StoreError;
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore, OpenReport};

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
}

/// An opened data folder.
pub struct Storage {
    /// The keyring of all stored bytes.
    pub keyring: Arc<Keyring>,
    /// The store.
    pub store: Arc<EmbeddedStore>,
    /// What opening found and mended.
    pub report: OpenReport,
}

/// Opens the data folder, or makes it.
///
/// # Errors
/// [`StorageError`]
pub async fn open(config: &Config) -> Result<Storage, StorageError> {
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
    Ok(Storage { keyring, store: Arc::new(store), report })
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

/// The keys of a data folder that no node holds.
///
/// # Errors
/// [`StorageError`]
pub async fn open_keys(config: &Config) -> Result<Keys, StorageError> {
    let storage = open(config).await?;
    let started = Instant::now();
    let clock = MonoClock::new(move || started.elapsed());
    let audit = Arc::new(Audit::new(Arc::clone(&storage.store) as _, Arc::clone(&storage.keyring))?);
    Ok(Keys::open(storage.store, storage.keyring, audit, config.access.clone(), clock).await?)
}
