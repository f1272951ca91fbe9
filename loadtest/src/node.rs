//! The node that is measured: the release binary, on a core of its own, in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::publish::Http;
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
    /// Of its metrics.
    pub(crate) admin: SocketAddr,
    pub(crate) read: Key,
    pub(crate) write: Key,
}

impl Access {
    /// The lines of a head that carry a key.
    pub(crate) fn headers(&self, key: &Key) -> String {
        format!("APCA-API-KEY-ID: {}\r\nAPCA-API-SECRET-KEY: {}\r\n", key.id, key.secret)
    }

    /// A metric with its labels; `None` where the node does not have it, or not yet.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let mut http = Http::connect(self.admin).ok()?;
        http.call("GET /metrics HTTP/1.1\r\nHost: localhost\r\n", b"")
            .ok()
            .filter(|status| *status == 200)?;
        let text = String::from_utf8_lossy(http.body()).into_owned();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
    }
}

/// What a node has noticed of clients that do not keep up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noticed {
    /// Clients that left the live stream.
    pub(crate) left: f64,
    /// Clients that were closed with 1008.
    pub(crate) closed: f64,
}

impl Noticed {
    pub(crate) fn of(access: &Access) -> Self {
        Self {
            left: access.metric("tapeline_live_left_total").unwrap_or(0.0),
            closed: access.metric("tapeline_live_closed_total{code=\"1008\"}").unwrap_or(0.0),
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { left: self.left - before.left, closed: self.closed - before.closed }
    }
}

impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { left: 0.0, closed: 0.0 } => f.write_str("the node noticed nobody who stalls"),
            Self { left, closed } => {
                write!(f, "the node noticed: {left} left the live stream, {closed} closed 1008")
            }
        }
    }
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) process: Owned,
    pub(crate) access: Access,
    binary: PathBuf,
    folder: PathBuf,
    sets: Vec<String>,
}

impl Node {
    /// Starts it in a folder and waits until it is ready.
    pub(crate) fn start(binary: &Path, folder: &Path, sets: &[String], cores: Cores) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (process, facts) = launch(binary, folder, sets, "127.0.0.1:0", cores)?;
        let access = access_of(&facts).context("the ready file lacks an address or a key")?;
        let (binary, folder, sets) = (binary.to_path_buf(), folder.to_path_buf(), sets.to_vec());
        Ok(Self { process, access, binary, folder, sets })
    }

    /// Kills it, and starts it again with its data, at its address.
    pub(crate) fn kill_and_start(&mut self, cores: Cores) -> anyhow::Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        let address = self.access.address.to_string();
        let (process, facts) = launch(&self.binary, &self.folder, &self.sets, &address, cores)?;
        self.process = process;
        self.access.admin = address_of(&facts, "admin").context("the ready file lacks an address")?;
        Ok(())
    }
}

/// Starts a process and waits until it is ready; answers what it tells then.
fn launch(
    binary: &Path,
    folder: &Path,
    sets: &[String],
    listen: &str,
    cores: Cores,
) -> anyhow::Result<(Owned, Value)> {
    let (ready, log) = (folder.join("ready.json"), folder.join("node.log"));
    let _ = std::fs::remove_file(&ready);
    let mut command = Command::new(binary);
    command.args(["serve", "--listen", listen, "--admin-listen", "127.0.0.1:0"]);
    command.arg("--data").arg(folder.join("data")).arg("--ready-file").arg(&ready);
    for set in SETS.iter().copied().chain(sets.iter().map(String::as_str)) {
        command.args(["--set", set]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::options().create(true).append(true).open(&log)?);
    let mut process = Owned(cores.spawn(&mut command)?);
    for _ in 0..600 {
        if let Some(facts) =
            std::fs::read(&ready).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
        {
            return Ok((process, facts));
        }
        if process.0.try_wait()?.is_some() {
            break;
        }
        pause(Duration::from_millis(50));
    }
    bail!("the node did not start:\n{}", std::fs::read_to_string(&log).unwrap_or_default())
}

fn address_of(facts: &Value, name: &str) -> Option<SocketAddr> {
    facts.get(name)?.as_str()?.strip_prefix("http://")?.parse().ok()
}

fn access_of(facts: &Value) -> Option<Access> {
    let (address, admin) = (address_of(facts, "http")?, address_of(facts, "admin")?);
    let key = |name: &str| {
        let key = facts.get("keys")?.get(name)?;
        let text = |field: &str| key.get(field).and_then(Value::as_str).map(str::to_owned);
        Some(Key { id: text("id")?, secret: text("secret")? })
    };
    Some(Access { address, admin, read: key("read")?, write: key("write")? })
}
