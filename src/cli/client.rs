//! What the clients of the HTTP API share: where the node is, who asks, and patience.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::config::Credentials;

/// Where a node is that was started with its defaults.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";
/// A request that is not answered by then is sent again.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The first wait before a request is sent again; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A server's `Retry-After` counts up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The most characters of an answer that is no error envelope that are shown.
const MESSAGE_CHARS_MAX: usize = 300;

/// Where the node is, and with which key to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConnectArgs {
    /// Address of the node [default: $TAPELINE_URL, else http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Id of the API key [default: $TAPELINE_KEY_ID]
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
    /// Secret of the API key; others on this machine can see flags, $TAPELINE_SECRET they cannot
    #[arg(long, value_name = "SECRET")]
    pub secret: Option<String>,
    /// File that a node wrote with its own --ready-file: address and keys come from there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "key_id", "secret"])]
    pub ready_file: Option<PathBuf>,
    /// How long a node that is away or overloaded is asked again
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub retry_s: u64,
}

/// What the key is for: which one of a ready file is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Market data is read.
    Read,
    /// Ticks are posted.
    Write,
}

/// Why a client gave up.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The key is missing.
    #[error(
        "no API key: give --key-id and --secret, or $TAPELINE_KEY_ID and $TAPELINE_SECRET, or --ready-file"
    )]
    NoKey,
    /// The ready file cannot be used.
    #[error("{}: {why}", path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The address is none.
    #[error("{url} is no address of a node, such as {URL_DEFAULT}: {why}")]
    Url {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client: {0}")]
    Client(reqwest::Error),
    /// The node cannot be reached, or was overloaded all the time.
    #[error("gave up after {} s: {why}", after.as_secs())]
    Away {
        /// How long it was tried.
        after: Duration,
        /// The last failure.
        why: String,
    },
    /// The node refuses the request; again it would say the same.
    #[error("the node answers {}: {message}", status.as_u16())]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// What it says.
        message: String,
    },
    /// The answer is not what this client understands.
    #[error("the answer cannot be understood: {0}")]
    Answer(String),
}

/// A node as its clients see it.
#[derive(Clone, Debug)]
pub struct Connection {
    http: reqwest::Client,
    url: String,
    key_id: String,
    secret: SecretString,
    patience: Duration,
}

#[derive(Deserialize)]
struct ReadyFile {
    http: String,
    keys: Option<ReadyKeys>,
}

#[derive(Deserialize)]
struct ReadyKeys {
    read: ReadyKey,
    write: ReadyKey,
}

#[derive(Deserialize)]
struct ReadyKey {
    id: String,
    secret: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

impl Connection {
    /// Finds address and key: flags first, then the ready file, then what the environment gave.
    ///
    /// # Errors
    /// [`ClientError`] where one is missing or cannot be used.
    pub fn new(args: &ConnectArgs, environment: &Credentials, purpose: Purpose) -> Result<Self, ClientError> {
        let (url, key_id, secret) = match &args.ready_file {
            Some(path) => read_ready_file(path, purpose)?,
            None => {
                let key_id = args.key_id.clone().or_else(|| environment.key_id.clone());
                let secret =
                    args.secret.clone().map(SecretString::from).or_else(|| environment.secret.clone());
                let url = args.url.clone().or_else(|| environment.url.clone());
                let (key_id, secret) = key_id.zip(secret).ok_or(ClientError::NoKey)?;
                (url.unwrap_or_else(|| URL_DEFAULT.to_owned()), key_id, secret)
            }
        };
        let url = url.trim_end_matches('/').to_owned();
        if let Err(error) = reqwest::Url::parse(&url) {
            return Err(ClientError::Url { url, why: error.to_string() });
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(REQUEST_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tapeline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError::Client)?;
        Ok(Self { http, url, key_id, secret, patience: Duration::from_secs(args.retry_s) })
    }

    /// Where the node is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request to a path, with the key.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .header("APCA-API-KEY-ID", &self.key_id)
            .header("APCA-API-SECRET-KEY", self.secret.expose_secret())
    }

    /// Sends a request until it is answered by something else than "later": at once where the
    /// answer will not change, else with growing waits, at least as long as the node asks for.
    ///
    /// `make` builds the same request each time. `on_wait` is told why it waits.
    ///
    /// # Errors
    /// [`ClientError::Away`] when the patience is used up, [`ClientError::Refused`] for every
    /// other answer that is no success.
    pub async fn send(
        &self,
        make: impl Fn() -> RequestBuilder,
        mut on_wait: impl FnMut(&str),
    ) -> Result<(HeaderMap, Vec<u8>), ClientError> {
        let begun = tokio::time::Instant::now();
        let mut backoff = BACKOFF_MIN;
        loop {
            let (why, at_least) = match once(make()).await {
                Ok((status, headers, body)) if status.is_success() => return Ok((headers, body)),
                Ok((status, headers, body)) => {
                    let message = message_of(&body);
                    if !is_transient(status) {
                        return Err(ClientError::Refused { status, message });
                    }
                    (format!("{}: {message}", status.as_u16()), retry_after(&headers))
                }
                Err(error) => (error, Duration::ZERO),
            };
            let wait = backoff.max(at_least);
            let spent = begun.elapsed();
            if spent + wait > self.patience {
                return Err(ClientError::Away { after: spent, why });
            }
            on_wait(&why);
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

async fn once(request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
    let response = request.send().await.map_err(|error| reason(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(|error| reason(&error))?;
    Ok((status, headers, body.to_vec()))
}

/// The innermost cause, which is what a person can act on ("connection refused").
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Whether the same request may succeed later.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(RETRY_AFTER_MAX)
}

/// The message of the error envelope, or the beginning of what came instead.
fn message_of(body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(error) => error.message,
        Err(_) => String::from_utf8_lossy(body).chars().take(MESSAGE_CHARS_MAX).collect(),
    }
}

fn read_ready_file(path: &PathBuf, purpose: Purpose) -> Result<(String, String, SecretString), ClientError> {
    let failed = |why: String| ClientError::ReadyFile { path: path.clone(), why };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let ready: ReadyFile =
        serde_json::from_slice(&text).map_err(|error| failed(format!("is no ready file: {error}")))?;
    let keys = ready.keys.ok_or_else(|| {
        failed("holds no keys, for this start of the node made none: give --key-id and --secret".to_owned())
    })?;
    let key = match purpose {
        Purpose::Read => keys.read,
        Purpose::Write => keys.write,
    };
    Ok((ready.http, key.id, SecretString::from(key.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Credentials {
        Credentials {
            url: Some("http://env:1/".to_owned()),
            key_id: Some("env-id".to_owned()),
            secret: Some("env-secret".to_owned().into()),
        }
    }

    fn install_provider() {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }

    #[test]
    fn flags_win_over_the_environment() {
        install_provider();
        let args = ConnectArgs { url: Some("http://flag:2".to_owned()), ..ConnectArgs::default() };
        let connection = Connection::new(&args, &environment(), Purpose::Read).unwrap();
        assert_eq!((connection.url(), connection.key_id.as_str()), ("http://flag:2", "env-id"));
        let connection = Connection::new(&ConnectArgs::default(), &environment(), Purpose::Read).unwrap();
        assert_eq!(connection.url(), "http://env:1");
        let none = Connection::new(&args, &Credentials::default(), Purpose::Read);
        assert!(matches!(none, Err(ClientError::NoKey)));
        let args = ConnectArgs { url: Some("nowhere".to_owned()), ..ConnectArgs::default() };
        let bad = Connection::new(&args, &environment(), Purpose::Read).unwrap_err().to_string();
        assert!(bad.contains("nowhere") && bad.contains(URL_DEFAULT), "{bad}");
    }

    #[test]
    fn a_ready_file_gives_the_key_for_the_purpose() {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let args = ConnectArgs { ready_file: Some(path.clone()), ..ConnectArgs::default() };
        let open = |purpose| Connection::new(&args, &environment(), purpose);
        assert!(matches!(open(Purpose::Read), Err(ClientError::ReadyFile { .. })));
        std::fs::write(&path, r#"{"http":"http://ready:3","admin":"x","keys":null}"#).unwrap();
        assert!(open(Purpose::Read).unwrap_err().to_string().contains("no keys"));
        let keys = r#"{"read":{"id":"r","secret":"rs"},"write":{"id":"w","secret":"ws"}}"#;
        std::fs::write(&path, format!(r#"{{"http":"http://ready:3","admin":"x","keys":{keys}}}"#)).unwrap();
        assert_eq!(open(Purpose::Read).unwrap().key_id, "r");
        let write = open(Purpose::Write).unwrap();
        assert_eq!((write.key_id.as_str(), write.secret.expose_secret()), ("w", "ws"));
        assert_eq!(write.url(), "http://ready:3");
    }

    #[test]
    fn secrets_are_not_printed() {
        install_provider();
        let connection = Connection::new(&ConnectArgs::default(), &environment(), Purpose::Read).unwrap();
        assert!(!format!("{connection:?}").contains("env-secret"));
    }

    #[test]
    fn messages_of_errors() {
        assert_eq!(message_of(br#"{"code":1,"message":"no such thing"}"#), "no such thing");
        assert_eq!(message_of(b"<html>"), "<html>");
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), Duration::ZERO);
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Duration::from_secs(7));
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("86400"));
        assert_eq!(retry_after(&headers), RETRY_AFTER_MAX);
    }
}
