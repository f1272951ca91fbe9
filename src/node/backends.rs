//! From configuration to backends: the one place that names them.

use std::path::Path;
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use super::StartError;
use crate::config::Config;
use crate::seal::Keyring;
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore, Severity};
use crate::store::{Records, Store};

/// The name of the key file in the data folder.
const KEY_FILE: &str = "seal.key";

/// The doors of a node.
pub(super) struct Backends {
    pub(super) store: Arc<dyn Store>,
    pub(super) records: Arc<dyn Records>,
    /// The embedded store, which has a disk to watch and segments to unlink.
    pub(super) embedded: Arc<EmbeddedStore>,
    pub(super) keyring: Arc<Keyring>,
    /// Bytes that opening cut from the end of the log: none of them acknowledged.
    pub(super) cut_bytes: u64,
}

/// Opens what the configuration names: the embedded store in the data folder.
pub(super) async fn open(config: &Config) -> Result<Backends, StartError> {
    let keyring = Arc::new(keyring(config)?);
    let options = EmbeddedOptions {
        segment_bytes: u32::try_from(config.store.segment_bytes).unwrap_or(u32::MAX),
        ..EmbeddedOptions::default()
    };
    let (embedded, report) = EmbeddedStore::open(&config.node.data, Arc::clone(&keyring), options)
        .await
        .map_err(StartError::Store)?;
    for finding in &report.findings {
        let (file, offset, what) = (finding.file.display(), finding.offset, &finding.what);
        match finding.severity {
            Severity::Cut => {
                tracing::warn!(%file, offset, what, "the end of the log was cut; none of it was acknowledged")
            }
            Severity::Healed => {
                tracing::warn!(%file, offset, what, "a damaged file was healed from its mirror")
            }
            Severity::Damage => tracing::error!(%file, offset, what, "a stored file is damaged"),
        }
    }
    tracing::info!(folder = %config.node.data.display(), frames = report.frames, created = report.created, "store is open");
    let embedded = Arc::new(embedded);
    let (store, records): (Arc<dyn Store>, Arc<dyn Records>) = (embedded.clone(), embedded.clone());
    Ok(Backends { store, records, embedded, keyring, cut_bytes: report.cut_bytes })
}

/// The key of the envelope: as configured, else made at first start and kept in the data folder.
pub(super) fn keyring(config: &Config) -> Result<Keyring, StartError> {
    if let Some(text) = &config.store.seal_key {
        return Keyring::from_text(text.expose_secret()).map_err(|error| StartError::Key(error.to_string()));
    }
    let folder = &config.node.data;
    std::fs::create_dir_all(folder)
        .map_err(|source| StartError::Folder { folder: folder.clone(), source })?;
    let (keyring, made) =
        Keyring::read_or_create(&key_file(folder)).map_err(|error| StartError::Key(error.to_string()))?;
    if made {
        tracing::info!(file = %key_file(folder).display(), "made the key that seals everything stored; keep a copy of it");
    }
    Ok(keyring)
}

/// Where the key is kept that was made at first start.
pub(super) fn key_file(folder: &Path) -> std::path::PathBuf {
    folder.join(KEY_FILE)
}
