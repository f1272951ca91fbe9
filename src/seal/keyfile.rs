//! The key file: one key a line, the active one first, readable by its owner alone.
//!
//! ```text
//! # tapeline keys: the first seals, the others still open
//! tapeline-key-v1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::zeroize::Zeroizing;

use super::Keyring;
use super::keyring::SECRET_BYTES;

const LINE_PREFIX: &str = "tapeline-key-v1 ";
const COMMENT: &str = "# tapeline keys: the first seals, the others still open\n";
/// More than a thousand keys.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading or writing failed.
    #[error("key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Others than the owner may read or write it.
    #[error("key file {} has mode {mode:03o}, so others can read it; run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is no key.
    #[error("key file {}, line {line}: expected `tapeline-key-v1 ` and 43 characters of base64url", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// There is no key in it.
    #[error("key file {} holds no key; expected a line `tapeline-key-v1 …`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Keyring {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyFileError`] when it cannot be read, others may read it, or a line is no key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let io_error = |source| KeyFileError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io_error)?;
        let mode = file.metadata().map_err(io_error)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(io_error)?;
        let mut ring: Option<Self> = None;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let secret =
                parse_line(line).ok_or_else(|| KeyFileError::Line { path: path.to_owned(), line: at + 1 })?;
            ring = Some(match ring {
                None => Self::from_secret(secret),
                Some(ring) => ring.with_old(secret),
            });
        }
        ring.ok_or_else(|| KeyFileError::Empty { path: path.to_owned() })
    }

    /// Reads a key file, or makes one with a new key where there is none. Of two processes that
    /// make it at once one wins and both read its key. Answers whether it was made now.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read_or_create(path: &Path) -> Result<(Self, bool), KeyFileError> {
        match Self::read(path) {
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|ring| (ring, false)),
        }
        let io_error = |source| KeyFileError::Io { path: path.to_owned(), source };
        let made = Self::generate().and_then(|ring| write_new(path, &ring)).map_err(io_error)?;
        Ok((Self::read(path)?, made))
    }
}

/// Writes the ring to a file that was not there; `false` where another was faster. The file
/// appears under its name only when its bytes are durable.
fn write_new(path: &Path, ring: &Keyring) -> io::Result<bool> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".new-key-{}-{}", std::process::id(), ring.active_id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(key_file_text(ring).as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn key_file_text(ring: &Keyring) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::from(COMMENT));
    for key in ring.keys() {
        text.push_str(LINE_PREFIX);
        URL_SAFE_NO_PAD.encode_string(key.secret(), &mut text);
        text.push('\n');
    }
    text
}

fn parse_line(line: &str) -> Option<[u8; SECRET_BYTES]> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(line.strip_prefix(LINE_PREFIX)?.trim()).ok()?);
    bytes.as_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SealKey;

    #[test]
    fn the_first_start_makes_a_key_and_the_next_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let (first, made) = Keyring::read_or_create(&path).unwrap();
        let (second, made_again) = Keyring::read_or_create(&path).unwrap();
        assert_eq!((made, made_again), (true, false));
        let sealed = first.seal(&SealKey::new("a"), b"x");
        assert!(second.open(&SealKey::new("a"), &sealed).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        Keyring::read_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keyring::read_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Permissions { mode: 0o640, .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn older_keys_follow_and_a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let ring = Keyring::from_secret([1; 32]).with_old([2; 32]);
        assert!(write_new(&path, &ring).unwrap());
        assert!(!write_new(&path, &ring).unwrap(), "an existing file is never overwritten");
        let read = Keyring::read(&path).unwrap();
        assert!(read.ids().eq(ring.ids()));
        for (text, expected) in
            [("nonsense\n", "line 1"), ("# none\n", "holds no key"), ("tapeline-key-v1 AAAA", "line 1")]
        {
            fs::write(&path, text).unwrap();
            let error = Keyring::read(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("seal.key"), "{error}");
        }
    }
}
