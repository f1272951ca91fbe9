//! The node that is measured: the release binary, on a core of its own, in a folder of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::system::{Cores, Owned, pause};

/// What would hold a load of one source and one key back.
const SETS: &[&str] = &[
    "http.connections_max=50000",
    "http.connections_per_source_max=50000",
    "http.source_requests_per_minute=10000000",
    "access.requests_per_minute=10000000",
    "access.requests_burst=10000000",
    "telemetry.log_level=warn",
];

/// A key of the node.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// Where the node is and who may.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) address: SocketAddr,
    pub(crate) read: Key,
    pub(crate) write: Key,
}

impl Access {
    /// The lines of a head that carry a key.
    pub(crate) fn headers(&self, key: &Key) -> String {
        format!("APCA-API-KEY-ID: {}\r\nAPCA-API-SECRET-KEY: {}\r\n", key.id, key.secret)
    }
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) process: Owned,
    pub(crate) access: Access,
}

impl Node {
    /// Starts it in a folder and waits until it is ready.
    pub(crate) fn start(binary: &Path, folder: &Path, sets: &[String], cores: Cores) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (ready, log) = (folder.join("ready.json"), folder.join("node.log"));
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.arg("--data").arg(folder.join("data")).arg("--ready-file").arg(&ready);
        for set in SETS.iter().copied().chain(sets.iter().map(String::as_str)) {
            command.args(["--set", set]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        let mut process = Owned(cores.spawn(&mut command)?);
        for _ in 0..600 {
            if let Some(facts) =
                std::fs::read(&ready).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
            {
                let access = access_of(&facts).context("the ready file lacks an address or a key")?;
                return Ok(Self { process, access });
            }
            if process.0.try_wait()?.is_some() {
                break;
            }
            pause(Duration::from_millis(50));
        }
        bail!("the node did not start:\n{}", std::fs::read_to_string(&log).unwrap_or_default())
    }
}

fn access_of(facts: &Value) -> Option<Access> {
    let address = facts.get("http")?.as_str()?.strip_prefix("http://")?.parse().ok()?;
    let key = |name: &str| {
        let key = facts.get("keys")?.get(name)?;
        let text = |field: &str| key.get(field).and_then(Value::as_str).map(str::to_owned);
        Some(Key { id: text("id")?, secret: text("secret")? })
    };
    Some(Access { address, read: key("read")?, write: key("write")? })
}
