//! `tapeline serve`: a node until it is told to stop.

use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, KeyPair, NodeArgs, NodeFile, ReadyKeys, ServeArgs, print};
use crate::access::NewKey;
use crate::config::Config;
use crate::node::{Listeners, Node, PairAccount, StartError, key_pair};
use crate::telemetry::logs;

/// Runs `tapeline serve`.
pub(super) async fn run(args: ServeArgs) -> Result<(), CliError> {
    let config = configured(&args.node)?;
    let running = Running::start(config, PairAccount::First, args.ready_file.as_deref()).await?;
    print(&running.greeting())?;
    running.until_stopped().await
}

/// The configuration, with logs going as it says.
pub(super) fn configured(args: &NodeArgs) -> Result<Arc<Config>, CliError> {
    let config = args.load()?.config;
    logs::install(&config.telemetry).map_err(|error| CliError::failed(error.to_string()))?;
    Ok(Arc::new(config))
}

/// A node that is ready, its files, and the signals that end it.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) keys: Option<ReadyKeys>,
    config: Arc<Config>,
    signals: [Signal; 2],
}

impl Running {
    /// Starts a node and waits until it is ready.
    pub(super) async fn start(
        config: Arc<Config>,
        of: PairAccount,
        ready_file: Option<&Path>,
    ) -> Result<Self, CliError> {
        let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let listeners = Listeners::bind(&config)?;
        let node = Node::start(Arc::clone(&config), listeners).await?;
        let gate = node.gate();
        let made = key_pair(&gate.keys, of, (gate.clock)()).await.map_err(StartError::from)?;
        let keys = made.map(|[read, write]| ReadyKeys { read: pair(read), write: pair(write) });
        node.ready().await;
        let running = Self { node, keys, config, signals };
        running.node_file(true).write(&NodeFile::path_in(&running.config.node.data))?;
        if let Some(path) = ready_file {
            running.node_file(false).write(path).map_err(|error| {
                CliError::failed(format!("the ready file {} cannot be written: {error}", path.display()))
            })?;
        }
        Ok(running)
    }

    fn node_file(&self, private: bool) -> NodeFile {
        NodeFile {
            http: format!("http://{}", self.node.http()),
            admin: format!("http://{}", self.node.admin()),
            admin_token: private.then(|| SecretString::from(self.node.admin_token())),
            keys: if private { None } else { self.keys.clone() },
        }
    }

    fn greeting(&self) -> String {
        let mut text =
            format!("serving   http://{}\nadmin     http://{}\n", self.node.http(), self.node.admin());
        if let Some(keys) = &self.keys {
            text.push_str("The first start made two keys. Their secrets are shown this once:\n");
            text.push_str(&shown(keys));
        }
        text
    }

    /// Waits for a signal, drains the node and removes its file.
    pub(super) async fn until_stopped(mut self) -> Result<(), CliError> {
        let [terminate, interrupt] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop; draining");
        let clean = self.node.drain().await;
        let _ = std::fs::remove_file(NodeFile::path_in(&self.config.node.data));
        if clean {
            return Ok(());
        }
        Err(CliError::failed("the drain took longer than node.drain_ms; the next start does the rest"))
    }
}

/// Both keys, as people read them.
pub(super) fn shown(keys: &ReadyKeys) -> String {
    let line = |name: &str, key: &KeyPair| {
        format!("{name} key  id {}  secret {}\n", key.id, key.secret.expose_secret())
    };
    line("read ", &keys.read) + &line("write", &keys.write)
}

fn pair(key: NewKey) -> KeyPair {
    KeyPair { id: key.row.id, secret: key.secret }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let next = match &error {
            StartError::Io { .. } => {
                "another process may use the address; choose one with --listen and --admin-listen"
            }
            _ => "`tapeline verify` walks what is stored and names what is damaged",
        };
        Self::failed(error.to_string()).next(next)
    }
}
