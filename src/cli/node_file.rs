//! What a running node tells scripts and its own command line: a small JSON file.
//!
//! The node file is `node.json` in the data folder, with the token of the admin door, readable
//! by its owner alone. A ready file is where `--ready-file` says, with the keys that the first
//! start made: they are kept in `first-keys.json` in the data folder, until somebody removes it or
//! them. Each is written whole under another name first, so that a reader never sees half of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

/// The name of the node file.
const NODE_FILE: &str = "node.json";
/// The name of the file with the keys of the first start.
const KEYS_FILE: &str = "first-keys.json";

/// Where a node is, and how it is administered.
#[derive(Clone, Debug, Default)]
pub struct NodeFile {
    /// The public door, such as `http://127.0.0.1:8080`.
    pub http: String,
    /// The admin door.
    pub admin: String,
    /// Its token, in the node file.
    pub admin_token: Option<SecretString>,
    /// The keys of the first start, in the ready file.
    pub keys: Option<ReadyKeys>,
}

/// The keys that a first start made.
#[derive(Clone, Debug)]
pub struct ReadyKeys {
    /// May read market data.
    pub read: KeyPair,
    /// May post ticks.
    pub write: KeyPair,
}

/// A key with its secret.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The id.
    pub id: String,
    /// The secret.
    pub secret: SecretString,
}

impl NodeFile {
    /// The node file of a data folder.
    #[must_use]
    pub fn path_in(data: &Path) -> PathBuf {
        data.join(NODE_FILE)
    }

    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write(&self.to_json(), path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What the system says, or that the file is no such JSON.
    pub fn read(path: &Path) -> io::Result<Self> {
        let value: Value = serde_json::from_slice(&fs::read(path)?)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let missing =
            |name: &str| io::Error::new(io::ErrorKind::InvalidData, format!("it has no \"{name}\""));
        Ok(Self {
            http: text("http").ok_or_else(|| missing("http"))?,
            admin: text("admin").ok_or_else(|| missing("admin"))?,
            admin_token: text("admin_token").map(SecretString::from),
            keys: value.get("keys").and_then(ReadyKeys::of_json),
        })
    }

    fn to_json(&self) -> Value {
        let mut value = json!({"http": self.http, "admin": self.admin});
        if let Value::Object(fields) = &mut value {
            if let Some(token) = &self.admin_token {
                fields.insert("admin_token".to_owned(), token.expose_secret().into());
            }
            if let Some(keys) = &self.keys {
                fields.insert("keys".to_owned(), keys.to_json());
            }
        }
        value
    }
}

impl ReadyKeys {
    /// The file of a data folder that keeps the keys of its first start.
    #[must_use]
    pub fn path_in(data: &Path) -> PathBuf {
        data.join(KEYS_FILE)
    }

    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write(&self.to_json(), path)?;
        // The keys are on the disk already: so is this, or they would be nobody's.
        File::open(path)?.sync_all()?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// What the system says, or that the file holds no such keys.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::other("others may read it: chmod 600, or remove it and revoke its keys"));
        }
        let keys = Self::of_json(&serde_json::from_slice(&text)?);
        let no_keys = || io::Error::new(io::ErrorKind::InvalidData, "it has no \"read\" and \"write\" key");
        Ok(Some(keys.ok_or_else(no_keys)?))
    }

    fn of_json(value: &Value) -> Option<Self> {
        let pair = |name: &str| {
            let text = |part: &str| value.get(name)?.get(part)?.as_str().map(str::to_owned);
            Some(KeyPair { id: text("id")?, secret: text("secret")?.into() })
        };
        Some(Self { read: pair("read")?, write: pair("write")? })
    }

    fn to_json(&self) -> Value {
        let pair = |key: &KeyPair| json!({"id": key.id, "secret": key.secret.expose_secret()});
        json!({"read": pair(&self.read), "write": pair(&self.write)})
    }
}

fn write(value: &Value, path: &Path) -> io::Result<()> {
    let (temporary, mut file) = new_file_beside(path)?;
    let written = file.write_all(format!("{value:#}\n").as_bytes());
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// A new file in the same folder under a name that nobody can foresee, readable by its owner
/// alone: what somebody else put there is neither followed nor written into.
fn new_file_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let temporary = path.with_file_name(format!(".{name}.{:016x}", rand::random::<u64>()));
        match File::options().write(true).create_new(true).mode(0o600).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_reads_back_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = NodeFile::path_in(folder.path());
        let pair = |id: &str| KeyPair { id: id.to_owned(), secret: format!("secret of {id}").into() };
        let file = NodeFile {
            http: "http://127.0.0.1:1".to_owned(),
            admin: "http://127.0.0.1:2".to_owned(),
            admin_token: Some("token".into()),
            keys: Some(ReadyKeys { read: pair("r"), write: pair("w") }),
        };
        file.write(&path).unwrap();
        file.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
        let read = NodeFile::read(&path).unwrap();
        assert_eq!(read.to_json(), file.to_json());
        let ready: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(ready["keys"]["write"]["secret"], "secret of w");
        assert!(!format!("{read:?}").contains("secret of"), "{read:?}");
        let onto_folder = folder.path().join("folder");
        fs::create_dir(&onto_folder).unwrap();
        assert!(file.write(&onto_folder).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nor where it cannot be written");
    }

    #[test]
    fn secrets_go_into_a_file_of_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let (one, file) = new_file_beside(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(one, new_file_beside(&path).unwrap().0);
        // What lies under the old, guessable name stays as it is.
        let foreseen = folder.path().join(format!(".ready.json.{}", std::process::id()));
        fs::write(&foreseen, "theirs").unwrap();
        let file = NodeFile { http: "h".to_owned(), admin: "a".to_owned(), ..NodeFile::default() };
        file.write(&path).unwrap();
        assert_eq!(fs::read_to_string(&foreseen).unwrap(), "theirs");
    }

    #[test]
    fn the_keys_of_the_first_start_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = ReadyKeys::path_in(folder.path());
        assert!(ReadyKeys::read(&path).unwrap().is_none());
        let pair = |id: &str| KeyPair { id: id.to_owned(), secret: format!("secret of {id}").into() };
        ReadyKeys { read: pair("r"), write: pair("w") }.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = ReadyKeys::read(&path).unwrap().unwrap();
        assert_eq!((kept.read.id.as_str(), kept.write.secret.expose_secret()), ("r", "secret of w"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(ReadyKeys::read(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{\"read\": {}}").unwrap();
        assert!(ReadyKeys::read(&path).unwrap_err().to_string().contains("\"write\""));
    }

    #[test]
    fn what_is_no_node_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        fs::write(&path, "{\"http\": \"http://127.0.0.1:1\"}").unwrap();
        assert!(NodeFile::read(&path).unwrap_err().to_string().contains("\"admin\""));
        fs::write(&path, "{").unwrap();
        assert!(NodeFile::read(&path).is_err());
    }
}
