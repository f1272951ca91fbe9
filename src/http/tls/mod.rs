//! TLS of the public door, from two files that may change while the node runs.
//!
//! - TLS 1.3, and 1.2 where `http.tls_min_version` says so; HTTP/2 or HTTP/1.1 by ALPN; no early
//!   data, which could be replayed; sessions are resumed by tickets under a key of the process.
//! - [`Tls::open`] refuses, by the file's name, what is missing, no PEM, not a pair, or a key that
//!   everyone may read.
//! - [`Tls::look`] reads both files again and compares them as bytes, so that it sees a swapped
//!   symbolic link too. A new pair serves the connections that come after it; those that are
//!   open go on. What [`Tls::open`] would refuse, and a certificate that has ended, changes
//!   nothing: the old pair serves on, and the caller tells. Both files are not replaced at one
//!   instant, so a look may find halves of two pairs: the next one finds the whole.
//!
//! Files are read up to 1 MiB. A look costs two small reads, on a thread of its own.

mod der;
pub mod development;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};

use crate::config::{self, TlsVersion};
use crate::market::Nanos;

/// More than any chain with its key.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bits of a file's mode that are for everyone.
const OTHERS: u32 = 0o007;
/// What is offered to clients that ask, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

const CERT: &str = "http.tls_cert";
const KEY: &str = "http.tls_key";

/// Why a pair of files is not served. Each names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{key} = {path} cannot be read: {source}")]
    Unreadable {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it must be.
    #[error("{key} = {path} {why}")]
    Unusable {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The certificate that is served, and its files.
pub struct Tls {
    files: Files,
    config: RustlsConfig,
    handshake: Duration,
    served: Mutex<Served>,
}

/// Where the pair is, and how it is to be served.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    min: TlsVersion,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    digest: blake3::Hash,
    ends: Nanos,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Look {
    /// What is served.
    Same,
    /// Another pair, which is served from now on.
    Changed,
    /// Something that cannot be served; the old pair is served on.
    Kept(TlsError),
}

impl Tls {
    /// Takes the pair that the configuration names; `None` where it names none.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn open(config: &config::Http) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
        let files = Files { cert: cert.clone(), key: key.clone(), min: config.tls_min_version };
        let pair = files.read()?;
        let (server, ends) = files.made(&pair)?;
        Ok(Some(Self {
            config: RustlsConfig::from_config(Arc::new(server)),
            handshake: Duration::from_millis(config.tls_handshake_ms),
            served: Mutex::new(Served { digest: pair.digest(), ends }),
            files,
        }))
    }

    /// When the certificate, or another of its chain, ends.
    #[must_use]
    pub fn ends(&self) -> Nanos {
        self.served.lock().ends
    }

    /// Reads the files again. It blocks its thread.
    pub fn look(&self, now: Nanos) -> Look {
        let pair = match self.files.read() {
            Ok(pair) => pair,
            Err(error) => return Look::Kept(error),
        };
        let digest = pair.digest();
        if self.served.lock().digest == digest {
            return Look::Same;
        }
        match self.files.made(&pair) {
            Ok((_, ends)) if ends <= now => {
                Look::Kept(self.files.unusable(CERT, format!("ended at {ends}: renew it")))
            }
            Ok((server, ends)) => {
                self.config.reload_from_config(Arc::new(server));
                *self.served.lock() = Served { digest, ends };
                Look::Changed
            }
            Err(error) => Look::Kept(error),
        }
    }

    /// TLS around another acceptor.
    pub(super) fn around<A>(&self, inner: A) -> RustlsAcceptor<A> {
        RustlsAcceptor::new(self.config.clone()).handshake_timeout(self.handshake).acceptor(inner)
    }
}

/// Both files as they were read.
struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn digest(&self) -> blake3::Hash {
        let [cert, key] = [&self.cert, &self.key].map(|file| blake3::hash(file));
        blake3::hash(&[*cert.as_bytes(), *key.as_bytes()].concat())
    }
}

impl Files {
    fn read(&self) -> Result<Pair, TlsError> {
        Ok(Pair { cert: self.file(CERT, &self.cert)?, key: self.file(KEY, &self.key)? })
    }

    fn file(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
        let failed = |source| TlsError::Unreadable { key, path: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if key == KEY && mode & OTHERS != 0 {
            let why = format!("has the mode {:03o}: everyone may use the key; chmod 600 it", mode & 0o777);
            return Err(self.unusable(key, why));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(self.unusable(key, format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    /// What serves this pair, and when it ends.
    fn made(&self, pair: &Pair) -> Result<(ServerConfig, Nanos), TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pair.cert)
            .collect::<Result<_, _>>()
            .map_err(|error| self.unusable(CERT, format!("is not PEM: {error}")))?;
        let ends = chain.iter().map(|one| der::not_after(one)).min().flatten();
        let ends = ends.ok_or_else(|| self.unusable(CERT, "holds no certificate that can be read"))?;
        let key = PrivateKeyDer::from_pem_slice(&pair.key)
            .map_err(|error| self.unusable(KEY, format!("holds no private key in PEM: {error}")))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let signs = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            self.unusable(KEY, format!("does not belong to {}: {error}", self.cert.display()))
        })?;
        let server = self.server(signs, provider);
        let server = server.map_err(|error| self.unusable(CERT, format!("cannot be served: {error}")))?;
        Ok((server, ends))
    }

    fn server(
        &self,
        signs: CertifiedKey,
        provider: Arc<CryptoProvider>,
    ) -> Result<ServerConfig, rustls::Error> {
        let versions = match self.min {
            TlsVersion::V1_3 => &[&TLS13][..],
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(signs)));
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        server.max_early_data_size = 0;
        // A key of this pair alone: a session under another certificate is not resumed.
        server.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(server)
    }

    fn unusable(&self, key: &'static str, why: impl Into<String>) -> TlsError {
        let path = if key == KEY { &self.key } else { &self.cert };
        TlsError::Unusable { key, path: path.display().to_string(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::development::{Development, make};
    use super::*;
    use crate::config::Config;

    const NOW: Nanos = Nanos(1_704_292_200_000_000_000);

    fn pair(days: u32) -> Development {
        make(&["localhost".to_owned()], days, NOW).unwrap()
    }

    fn write(folder: &Path, pair: &Development) {
        fs::write(folder.join("cert.pem"), &pair.cert).unwrap();
        fs::write(folder.join("key.pem"), &pair.key).unwrap();
        fs::set_permissions(folder.join("key.pem"), Permissions::from_mode(0o600)).unwrap();
    }

    fn open(folder: &Path) -> Result<Tls, String> {
        let [cert, key] = ["cert", "key"]
            .map(|name| format!("http.tls_{name}={}", folder.join(format!("{name}.pem")).display()));
        let config = Config::with(&[&cert, &key]).unwrap();
        Tls::open(&config.http).map(Option::unwrap).map_err(|error| error.to_string())
    }

    #[test]
    fn without_files_there_is_no_tls() {
        assert!(Tls::open(&Config::with(&[]).unwrap().http).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_the_name_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |what: &str, file: &str, why: &str| {
            let error = open(folder.path()).err().unwrap_or_else(|| panic!("{what} was served"));
            assert!(error.contains(file) && error.contains(why), "{what}: {error}");
        };
        refused("nothing", "http.tls_cert", "cert.pem cannot be read");
        let good = pair(30);
        write(folder.path(), &good);
        fs::set_permissions(folder.path().join("key.pem"), Permissions::from_mode(0o644)).unwrap();
        refused("a key that everyone may read", "http.tls_key", "644");
        write(folder.path(), &good);
        fs::write(folder.path().join("key.pem"), &pair(30).key).unwrap();
        refused("a key of another certificate", "http.tls_key", "does not belong to");
        fs::write(folder.path().join("key.pem"), "no key").unwrap();
        refused("no key", "http.tls_key", "holds no private key");
        write(folder.path(), &good);
        fs::write(folder.path().join("cert.pem"), "").unwrap();
        refused("no certificate", "http.tls_cert", "holds no certificate");
        fs::write(folder.path().join("cert.pem"), vec![b'x'; (1 << 20) + 1]).unwrap();
        refused("a large file", "http.tls_cert", "more than 1048576 bytes");
        write(folder.path(), &good);
        assert_eq!(open(folder.path()).unwrap().ends(), NOW.plus(30 * 24 * Nanos::HOUR));
    }

    #[test]
    fn a_look_takes_a_new_pair_and_keeps_the_old_before_a_broken_one() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &pair(30));
        let tls = open(folder.path()).unwrap();
        let ends = tls.ends();
        assert!(matches!(tls.look(NOW), Look::Same));
        let newer = pair(60);
        fs::write(folder.path().join("cert.pem"), &newer.cert).unwrap();
        let Look::Kept(error) = tls.look(NOW) else { panic!("halves of two pairs were served") };
        assert!(error.to_string().contains("does not belong"), "{error}");
        assert_eq!(tls.ends(), ends);
        write(folder.path(), &newer);
        assert!(matches!(tls.look(NOW), Look::Changed));
        assert!(matches!(tls.look(NOW), Look::Same));
        assert_eq!(tls.ends(), NOW.plus(60 * 24 * Nanos::HOUR));
        let newest = pair(10);
        write(folder.path(), &newest);
        let Look::Kept(error) = tls.look(NOW.plus(11 * 24 * Nanos::HOUR)) else { panic!("it had ended") };
        assert!(error.to_string().contains("ended at 2024-01-13T14:30:00Z"), "{error}");
        fs::remove_file(folder.path().join("key.pem")).unwrap();
        assert!(matches!(tls.look(NOW), Look::Kept(TlsError::Unreadable { .. })));
        assert_eq!(tls.ends(), NOW.plus(60 * 24 * Nanos::HOUR));
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for (name, days) in [("one", 30), ("two", 60)] {
            fs::create_dir(folder.path().join(name)).unwrap();
            write(&folder.path().join(name), &pair(days));
        }
        let link = folder.path().join("now");
        std::os::unix::fs::symlink("one", &link).unwrap();
        let tls = open(&link).unwrap();
        std::os::unix::fs::symlink("two", folder.path().join("next")).unwrap();
        fs::rename(folder.path().join("next"), &link).unwrap();
        assert!(matches!(tls.look(NOW), Look::Changed));
    }
}
