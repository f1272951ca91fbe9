//! What a running node tells scripts and its own command line: a small JSON file.
//!
//! The node file is `node.json` in the data folder, with the token of the admin door, readable
//! by its owner alone. A ready file is where `--ready-file` says, with the keys that this start
//! made. Each is written whole under another name first, so that a reader never sees half of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

/// The name of the node file.
const NODE_FILE: &str = "node.json";

/// Where a node is, and how it is administered.
#[derive(Clone, Debug, Default)]
pub struct NodeFile {
    /// The public door, such as `http://127.0.0.1:8080`.
    pub http: String,
    /// The admin door.
    pub admin: String,
    /// Its token, in the node file.
    pub admin_token: Option<SecretString>,
    /// The keys that this start made, in the ready file.
    pub keys: Option<ReadyKeys>,
}

/// The keys that a start made.
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
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(format!("{:#}\n", self.to_json()).as_bytes())?;
        drop(file);
        fs::rename(&temporary, path)
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
        let pair = |name: &str| {
            let key = value.get("keys")?.get(name)?;
            let text = |part: &str| key.get(part).and_then(Value::as_str).map(str::to_owned);
            Some(KeyPair { id: text("id")?, secret: text("secret")?.into() })
        };
        Ok(Self {
            http: text("http").ok_or_else(|| missing("http"))?,
            admin: text("admin").ok_or_else(|| missing("admin"))?,
            admin_token: text("admin_token").map(SecretString::from),
            keys: pair("read").zip(pair("write")).map(|(read, write)| ReadyKeys { read, write }),
        })
    }

    fn to_json(&self) -> Value {
        let mut value = json!({"http": self.http, "admin": self.admin});
        let pair = |key: &KeyPair| json!({"id": key.id, "secret": key.secret.expose_secret()});
        if let Value::Object(fields) = &mut value {
            if let Some(token) = &self.admin_token {
                fields.insert("admin_token".to_owned(), token.expose_secret().into());
            }
            if let Some(keys) = &self.keys {
                let keys = json!({"read": pair(&keys.read), "write": pair(&keys.write)});
                fields.insert("keys".to_owned(), keys);
            }
        }
        value
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
