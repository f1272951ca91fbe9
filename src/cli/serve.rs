//! `tapeline serve`: a node until it is told to stop.
//!
//! SIGTERM and Ctrl-C are heeded from the beginning: a node that is only starting has nothing to
//! finish and ends at once, one that has started is drained, also where it is not ready yet.
//!
//! The node file is in the data folder as long as the admin door answers, the ready file is there
//! as long as the node is ready: both go when it begins to drain. The keys of the first start stay
//! in the data folder, so that the same command has them again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, KeyPair, NodeFile, ReadyKeys, ServeArgs, print};
use crate::access::NewKey;
use crate::config::{Config, Loaded};
use crate::node::backends::StorageError;
use crate::node::{Listeners, Node, PairAccount, StartError, key_pair};
use crate::store::StoreErrorKind;
use crate::telemetry::logs;

/// Runs `tapeline serve`.
pub(super) async fn run(args: ServeArgs) -> Result<(), CliError> {
    let stop = Stop::listen()?;
    let config = configured(args.node.load()?)?;
    let Some(running) = Running::start(config, PairAccount::First, args.ready_file, stop).await? else {
        return Ok(());
    };
    print(&running.greeting())?;
    running.until_stopped(std::future::pending()).await
}

/// The configuration, with logs going as it says.
pub(super) fn configured(loaded: Loaded) -> Result<Arc<Config>, CliError> {
    logs::install(&loaded.config.telemetry).map_err(|error| CliError::failed(error.to_string()))?;
    Ok(Arc::new(loaded.config))
}

/// Lets this process have as many files open as the system allows, and says where that is fewer than its
/// connections and what they are served from need.
fn raise_files(connections: usize) {
    /// Segments, blocks, connections to a database and other nodes, log files.
    const OTHERS: u64 = 512;
    let most = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }) {
        tracing::warn!(%error, "the limit of open files is left as it is");
    }
    let wanted = connections as u64 + OTHERS;
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < wanted) {
        tracing::warn!(
            files,
            wanted,
            "fewer files may be open than http.connections_max needs; raise the hard limit (LimitNOFILE=, ulimit -Hn)"
        );
    }
}

/// The signals that end a node. One that comes while nobody waits for it is not lost.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Takes the signals from the system, which would end the process.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Does some work; `None` where a signal came first, and the work was dropped.
    async fn unless_told<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
            done = work => Some(done),
        }
    }
}

/// A node that has started, and its files.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) keys: Option<ReadyKeys>,
    /// This start made the keys.
    are_new: bool,
    /// Where it has put them.
    kept_in: Option<PathBuf>,
    config: Arc<Config>,
    ready_file: Option<PathBuf>,
    stop: Stop,
}

impl Running {
    /// Starts a node; `None` where it was told to stop before it had started. It answers now, and
    /// may not be ready yet.
    pub(super) async fn start(
        config: Arc<Config>,
        of: PairAccount,
        ready_file: Option<PathBuf>,
        mut stop: Stop,
    ) -> Result<Option<Self>, CliError> {
        // Whoever waits for the file must not find that of the last run.
        ready_file.as_deref().map_or(Ok(()), removed).map_err(|error| {
            let path = ready_file.as_deref().unwrap_or(Path::new("")).display();
            CliError::failed(format!("the old ready file {path} cannot be removed: {error}"))
        })?;
        raise_files(config.http.connections_max);
        let listeners = Listeners::bind(&config)?;
        let Some(node) = stop.unless_told(Node::start(Arc::clone(&config), listeners)).await else {
            tracing::info!("told to stop before the node had started");
            return Ok(None);
        };
        let mut running =
            Self { node: node?, keys: None, are_new: false, kept_in: None, config, ready_file, stop };
        running.node_file(true).write(&running.node_file_path())?;
        running.find_keys(of).await?;
        Ok(Some(running))
    }

    /// Makes keys where this is a start that makes them, else finds those of the first start.
    async fn find_keys(&mut self, of: PairAccount) -> Result<(), CliError> {
        let (gate, path) = (self.node.gate(), ReadyKeys::path_in(&self.config.node.data));
        let now = (gate.clock)();
        // A pair of which one key is stored would never be shown: this is not cut short.
        let made = key_pair(&gate.keys, of, now).await.map_err(StartError::from)?;
        if let Some([read, write]) = made {
            let keys = ReadyKeys { read: pair(read), write: pair(write) };
            if of == PairAccount::First {
                match keys.write(&path) {
                    Ok(()) => self.kept_in = Some(path),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "the first keys are not kept: only this start tells them");
                    }
                }
            }
            (self.keys, self.are_new) = (Some(keys), true);
            return Ok(());
        }
        match ReadyKeys::read(&path) {
            Ok(kept) => {
                // One that was revoked, or is not what was kept, is told to nobody.
                let are_good = |keys: &ReadyKeys| {
                    [&keys.read, &keys.write]
                        .into_iter()
                        .all(|key| gate.keys.admit(&key.id, key.secret.expose_secret(), now).is_ok())
                };
                self.keys = kept.filter(are_good);
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the keys of the first start are not told again");
            }
        }
        Ok(())
    }

    fn node_file(&self, private: bool) -> NodeFile {
        NodeFile {
            http: self.node.url(),
            admin: format!("http://{}", self.node.admin()),
            admin_token: private.then(|| SecretString::from(self.node.admin_token())),
            keys: if private { None } else { self.keys.clone() },
        }
    }

    fn node_file_path(&self) -> PathBuf {
        NodeFile::path_in(&self.config.node.data)
    }

    fn greeting(&self) -> String {
        let mut text = format!("serving   {}\nadmin     http://{}\n", self.node.url(), self.node.admin());
        if let Some(keys) = self.keys.as_ref().filter(|_| self.are_new) {
            text.push_str("The first start made two keys:\n");
            text.push_str(&shown(keys));
            text.push_str(&match &self.kept_in {
                Some(path) => format!("They stay in {}; remove it to keep them elsewhere.\n", path.display()),
                None => "Their secrets are shown this once.\n".to_owned(),
            });
        }
        text
    }

    /// Tells that the node is ready as soon as it is, then does some work, until a signal comes; then
    /// drains the node. Work that fails ends the node too, work that is done does not.
    pub(super) async fn until_stopped(
        mut self,
        work: impl Future<Output = Result<(), CliError>>,
    ) -> Result<(), CliError> {
        let ready_file = self.ready_file.clone().map(|path| (path, self.node_file(false)));
        let node = &self.node;
        let lived = self.stop.unless_told(async {
            node.ready().await;
            if let Some((path, file)) = ready_file {
                file.write(&path).map_err(|error| {
                    CliError::failed(format!("the ready file {} cannot be written: {error}", path.display()))
                })?;
            }
            work.await?;
            std::future::pending().await
        });
        let lived: Option<Result<(), CliError>> = lived.await;
        tracing::info!("told to stop; draining");
        for path in self.ready_file.iter().chain([&self.node_file_path()]) {
            if let Err(error) = removed(path) {
                tracing::warn!(path = %path.display(), %error, "a file that is no longer true stays");
            }
        }
        let clean = self.node.drain().await;
        lived.unwrap_or(Ok(()))?;
        if clean {
            return Ok(());
        }
        Err(CliError::failed("the drain took longer than node.drain_ms; the next start does the rest"))
    }
}

/// Removes a file where there is one.
fn removed(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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
        let is_damage = match &error {
            StartError::Tapes(error) | StartError::Storage(StorageError::Store(error)) => {
                error.kind == StoreErrorKind::Corrupt
            }
            StartError::Access(_) => true,
            _ => false,
        };
        let next = match &error {
            StartError::Io { .. } => {
                "another process may use the address; choose one with --listen and --admin-listen"
            }
            StartError::Tls(_) => "`tapeline cert --out DIR` makes a pair of files for development",
            _ if is_damage => "`tapeline verify` walks what is stored and names what is damaged",
            _ => return Self::failed(error.to_string()),
        };
        Self::failed(error.to_string()).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_ends_any_work_also_where_it_came_before() {
        let mut stop = Stop::listen().unwrap();
        assert_eq!(stop.unless_told(async { 7 }).await, Some(7));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(stop.unless_told(std::future::pending::<()>()).await, None);
    }

    #[test]
    fn a_file_that_is_not_there_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "").unwrap();
        removed(&path).unwrap();
        removed(&path).unwrap();
        assert!(removed(folder.path()).is_err() && !path.exists());
    }
}
