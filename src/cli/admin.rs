//! Where a node is administered: through its admin door where it runs, else in its data folder.
//!
//! - Which one: `--admin` or `--ready-file` name a door. Without them it is the node that wrote
//!   `node.json` in the data folder, if it still answers there and proves that it has the token of
//!   that file; if not (it was stopped or killed), the folder itself. Whether a node holds the
//!   folder after all is decided by the lock of the store, which opening it takes.
//! - With what: the token of `node.json` opens the door whose address stands in the same file, and
//!   is sent nowhere else, nor before that door has proved that it is the one. Every other door is
//!   opened with a key of the scope `admin` from `TAPELINE_KEY_ID` and `TAPELINE_SECRET`.
//! - Every call has a time limit, follows no redirect and takes no proxy.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::url_of;
use super::{AdminArgs, CliError, NodeFile};
use crate::config::{self, Config, Credentials};
use crate::http::ops::identity_proof;

/// A door on the own machine or network accepts within this.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The proof takes no disk: what does not answer it within this is not the node.
const PROOF_LIMIT: Duration = Duration::from_secs(5);
/// A change of a key waits for the disk.
const CALL_LIMIT: Duration = Duration::from_secs(90);

/// Where a node is administered.
pub(super) enum Door {
    /// The admin door of a running node.
    Node(AdminClient),
    /// The data folder, which no node seems to hold.
    Folder,
}

/// The admin door of a running node, and what opens it.
pub(super) struct AdminClient {
    url: String,
    authorization: SecretString,
    http: reqwest::Client,
}

impl Door {
    /// The door that the flags, the environment and the data folder lead to.
    ///
    /// # Errors
    /// [`CliError`] where a named door cannot be opened.
    pub(super) async fn find(args: &AdminArgs, config: &Config) -> Result<Self, CliError> {
        Self::find_with(args, config, config::env_credentials()).await
    }

    async fn find_with(
        args: &AdminArgs,
        config: &Config,
        environment: Credentials,
    ) -> Result<Self, CliError> {
        let data = &config.node.data;
        let own = NodeFile::read(&NodeFile::path_in(data)).ok();
        let own = own.and_then(|file| Some((url_of(&file.admin).ok()?, file.admin_token?)));
        let named = match (&args.admin, &args.ready_file) {
            (Some(url), _) => Some(url_of(url)?),
            (None, Some(path)) => Some(url_of(&ready_file(path)?.admin)?),
            (None, None) => None,
        };
        let http = client()?;
        match (named, own) {
            (None, None) => Ok(Self::Folder),
            (None, Some((url, token))) => match proves(&http, &url, &token).await {
                Proof::Given => Ok(Self::Node(AdminClient::with_token(http, url, &token))),
                Proof::Wrong | Proof::None => Ok(Self::Folder),
            },
            (Some(named), Some((url, token))) if named == url => match proves(&http, &url, &token).await {
                Proof::Given => Ok(Self::Node(AdminClient::with_token(http, url, &token))),
                Proof::None => Err(away(&url, "nothing answers there")),
                Proof::Wrong => AdminClient::with_key(http, named, environment).map(Self::Node),
            },
            (Some(named), _) => AdminClient::with_key(http, named, environment).map(Self::Node),
        }
    }
}

/// What came back for a nonce.
enum Proof {
    /// It is the node that wrote the file.
    Given,
    /// Something else answers there.
    Wrong,
    /// Nothing does.
    None,
}

async fn proves(http: &reqwest::Client, url: &str, token: &SecretString) -> Proof {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let request = http.get(format!("{url}/identity?nonce={nonce}")).timeout(PROOF_LIMIT);
    let Ok(response) = request.send().await else { return Proof::None };
    let answer: Option<Value> = response.json().await.ok();
    let proof = answer.as_ref().and_then(|answer| answer.get("proof")).and_then(Value::as_str);
    if proof == Some(identity_proof(token.expose_secret(), &nonce).as_str()) {
        Proof::Given
    } else {
        Proof::Wrong
    }
}

impl AdminClient {
    pub(super) fn with_token(http: reqwest::Client, url: String, token: &SecretString) -> Self {
        Self { url, authorization: format!("Bearer {}", token.expose_secret()).into(), http }
    }

    fn with_key(http: reqwest::Client, url: String, environment: Credentials) -> Result<Self, CliError> {
        let (Some(id), Some(secret)) = (environment.key_id, environment.secret) else {
            return Err(CliError::usage(format!("nothing opens the admin door {url}")).next(
                "name the data folder of that node with --data on its own machine, or set TAPELINE_KEY_ID \
                 and TAPELINE_SECRET to a key with the scope admin",
            ));
        };
        Ok(Self { url, authorization: format!("Bearer {id}.{}", secret.expose_secret()).into(), http })
    }

    /// Calls the door; the answer of a success.
    ///
    /// # Errors
    /// [`CliError`] where it does not answer, or refuses.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, CliError> {
        let (status, bytes) = self.send(method, path, body).await?;
        answer_of(status, &bytes)
    }

    /// The same, with `None` for an answer of this status.
    ///
    /// # Errors
    /// [`CliError`] as [`Self::call`].
    pub(super) async fn call_unless<T: DeserializeOwned>(
        &self,
        status: StatusCode,
        method: Method,
        path: &str,
    ) -> Result<Option<T>, CliError> {
        let (answered, bytes) = self.send(method, path, None).await?;
        if answered == status {
            return Ok(None);
        }
        answer_of(answered, &bytes).map(Some)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Vec<u8>), CliError> {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("authorization", self.authorization.expose_secret())
            .header("content-type", "application/json")
            .body(body.unwrap_or_default());
        let failed = |error: reqwest::Error| away(&self.url, &error.to_string());
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        Ok((status, response.bytes().await.map_err(failed)?.to_vec()))
    }
}

fn answer_of<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, CliError> {
    if status.is_success() {
        return serde_json::from_slice(bytes)
            .map_err(|error| CliError::failed(format!("the node's answer cannot be read: {error}")));
    }
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let message = value.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    Err(CliError::failed(format!("the node answered {}: {message}", status.as_u16())))
}

pub(super) fn client() -> Result<reqwest::Client, CliError> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .timeout(CALL_LIMIT)
        .build()
        .map_err(|error| CliError::failed(format!("the HTTP client: {error}")))
}

fn away(url: &str, why: &str) -> CliError {
    CliError::failed(format!("the node at {url} does not answer: {why}"))
        .next("is it running? `tapeline serve` prints the address of its admin door")
}

fn ready_file(path: &std::path::Path) -> Result<NodeFile, CliError> {
    NodeFile::read(path).map_err(|error| {
        CliError::usage(format!("the ready file {} cannot be read: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::cli::stub::{Reply, Stub};

    const TOKEN: &str = "token-of-this-boot";

    /// A server, and what each request to it showed.
    struct Server {
        stub: Stub,
        shown: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        /// One that makes proofs with this token, and answers everything else with an empty list.
        async fn start(token: &'static str) -> Self {
            let shown: Arc<Mutex<Vec<String>>> = Arc::default();
            let seen = Arc::clone(&shown);
            let stub = Stub::start(move |request| {
                seen.lock().unwrap().push(request.header("authorization"));
                let nonce = request.line.split_once("/identity?nonce=").map(|(_, rest)| rest);
                match nonce.and_then(|rest| rest.split(' ').next()) {
                    Some(nonce) => {
                        let proof = identity_proof(token, nonce);
                        Reply::json(200, &format!(r#"{{"proof":"{proof}"}}"#))
                    }
                    None => Reply::json(200, "[]"),
                }
            });
            // The clients need the process's TLS provider.
            let stub = stub.await;
            let _ = stub.client();
            Self { stub, shown }
        }

        fn shown(&self) -> Vec<String> {
            self.shown.lock().unwrap().clone()
        }
    }

    /// A data folder whose node file names this door.
    fn folder(admin: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = NodeFile {
            http: "http://127.0.0.1:1".to_owned(),
            admin: admin.to_owned(),
            admin_token: Some(TOKEN.into()),
            keys: None,
        };
        file.write(&NodeFile::path_in(folder.path())).unwrap();
        folder
    }

    async fn find(data: &Path, admin: Option<&str>, key: bool) -> Result<Door, CliError> {
        let config = Config::with(&[&format!("node.data={}", data.display())]).unwrap();
        let args = AdminArgs { admin: admin.map(str::to_owned), ready_file: None };
        let mut environment = Credentials::default();
        if key {
            environment = Credentials {
                key_id: Some("TLA".to_owned()),
                secret: Some("s3".into()),
                ..Credentials::default()
            };
        }
        Door::find_with(&args, &config, environment).await
    }

    async fn list(door: Door) -> Vec<u32> {
        let Door::Node(client) = door else { panic!("no node was found") };
        client.call(Method::GET, "/admin/keys", None).await.unwrap()
    }

    #[tokio::test]
    async fn the_token_opens_the_door_of_its_own_file() {
        let node = Server::start(TOKEN).await;
        let folder = folder(node.stub.url());
        for (admin, key) in [(None, false), (None, true), (Some(format!("{}/", node.stub.url())), true)] {
            node.shown.lock().unwrap().clear();
            let door = find(folder.path(), admin.as_deref(), key).await.unwrap();
            list(door).await;
            assert_eq!(node.shown(), ["", "Bearer token-of-this-boot"], "{admin:?} {key}");
        }
    }

    #[tokio::test]
    async fn another_door_is_opened_with_a_key_alone() {
        let (node, other) = (Server::start(TOKEN).await, Server::start(TOKEN).await);
        let folder = folder(node.stub.url());
        let error = find(folder.path(), Some(other.stub.url()), false).await.err().unwrap().to_string();
        assert!(error.contains("TAPELINE_KEY_ID") && error.contains(other.stub.url()), "{error}");
        assert!(other.shown().is_empty());
        list(find(folder.path(), Some(other.stub.url()), true).await.unwrap()).await;
        assert_eq!(other.shown(), ["Bearer TLA.s3"]);
        assert!(node.shown().is_empty());
    }

    #[tokio::test]
    async fn what_took_the_port_of_a_dead_node_is_not_told_the_token() {
        let stranger = Server::start("another token").await;
        let folder = folder(stranger.stub.url());
        assert!(matches!(find(folder.path(), None, true).await, Ok(Door::Folder)));
        assert!(find(folder.path(), Some(stranger.stub.url()), false).await.is_err());
        assert!(!stranger.shown().is_empty() && stranger.shown().iter().all(String::is_empty));
    }

    #[tokio::test]
    async fn a_node_that_is_gone_leaves_its_folder() {
        let _ = Server::start(TOKEN).await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let folder = folder(&url);
        assert!(matches!(find(folder.path(), None, false).await, Ok(Door::Folder)));
        assert!(find(folder.path(), Some(&url), false).await.err().unwrap().to_string().contains(&url));
        std::fs::write(NodeFile::path_in(folder.path()), "{").unwrap();
        assert!(matches!(find(folder.path(), None, false).await, Ok(Door::Folder)));
    }
}
