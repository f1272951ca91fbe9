//! What the clients of the HTTP API share: where the node is, who asks, and patience.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::Client;

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

/// How long a client asks again, unless told otherwise.
pub(super) const RETRY_S_DEFAULT: u64 = 300;

/// Why a client gave up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The address is none.
    #[error("{url} is no address of a node, such as http://127.0.0.1:8080: {why}")]
    Url {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client: {0}")]
    Client(reqwest::Error),
    /// The authority's file is none.
    #[error("the authority's file holds no certificate in PEM: {0}")]
    Authority(String),
    /// Something answers, but its certificate says that it is not the node.
    #[error("the node's certificate is not trusted: {0}; name the file of its authority with --ca")]
    Untrusted(String),
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
    /// The request cannot be made: a key that no header can carry.
    #[error("the request cannot be made: {0}; the key's id and secret are printable characters on one line")]
    Request(String),
    /// The answer is not what this client understands.
    #[error("the answer cannot be understood: {0}")]
    Answer(String),
}

/// A node as its clients see it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    http: reqwest::Client,
    url: String,
    key_id: String,
    secret: SecretString,
    patience: Duration,
    /// Waits are divided by this: 1, except in tests.
    hurry: u32,
}

/// How long to wait before each further attempt: twice as long as before up to a maximum, at
/// least as long as the node asks for, and within the patience in all.
struct Backoff {
    wait: Duration,
    waited: Duration,
    patience: Duration,
}

impl Backoff {
    const fn new(patience: Duration) -> Self {
        Self { wait: BACKOFF_MIN, waited: Duration::ZERO, patience }
    }

    /// The next wait; `None` when the patience is used up. `elapsed` is the time since the first attempt.
    fn next(&mut self, elapsed: Duration, at_least: Duration) -> Option<Duration> {
        let wait = self.wait.max(at_least);
        self.wait = (self.wait * 2).min(BACKOFF_MAX);
        self.waited += wait;
        (self.waited.max(elapsed + wait) <= self.patience).then_some(wait)
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

impl Connection {
    /// A connection to a node, with a key. What is away or overloaded is asked again for `retry_s`.
    ///
    /// # Errors
    /// [`ClientError`] where the address is none or the HTTP client cannot be made.
    pub(super) fn new(client: Client, retry_s: u64) -> Result<Self, ClientError> {
        let Client { url, key_id, secret, ca } = client;
        if let Err(error) = Url::parse(&url) {
            return Err(ClientError::Url { url, why: error.to_string() });
        }
        let mut http = reqwest::Client::builder();
        if let Some(ca) = ca {
            let authorities = Certificate::from_pem_bundle(&ca).map_err(|error| error.to_string());
            let authorities = authorities.and_then(|found| match found.as_slice() {
                [] => Err("it holds none".to_owned()),
                _ => Ok(found),
            });
            http = http.tls_certs_only(authorities.map_err(ClientError::Authority)?);
        }
        let http = http
            .connect_timeout(CONNECT_LIMIT)
            .timeout(REQUEST_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tapeline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError::Client)?;
        Ok(Self { http, url, key_id, secret, patience: Duration::from_secs(retry_s), hurry: 1 })
    }

    /// The same with waits a thousand times shorter.
    #[cfg(test)]
    pub(super) const fn hurried(mut self) -> Self {
        self.hurry = 1_000;
        self
    }

    /// Where the node is.
    #[must_use]
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A request to a path, with the key.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .header("APCA-API-KEY-ID", &self.key_id)
            .header("APCA-API-SECRET-KEY", self.secret.expose_secret())
    }

    /// The same as [`Self::send`] for an answer that is read as it comes.
    ///
    /// # Errors
    /// As of [`Self::send`].
    pub(super) async fn open(
        &self,
        make: impl Fn() -> RequestBuilder,
        on_wait: impl FnMut(&str),
    ) -> Result<Response, ClientError> {
        self.patiently(async || answered(make()).await, on_wait).await
    }

    /// Sends a request until it is answered by something else than "later": at once where the
    /// answer will not change, else with growing waits, at least as long as the node asks for.
    ///
    /// `make` builds the same request each time. `on_wait` is told why it waits.
    ///
    /// # Errors
    /// [`ClientError::Away`] when the patience is used up, [`ClientError::Refused`] for every
    /// other answer that is no success.
    pub(super) async fn send(
        &self,
        make: impl Fn() -> RequestBuilder,
        on_wait: impl FnMut(&str),
    ) -> Result<(HeaderMap, Vec<u8>), ClientError> {
        let attempt = async || {
            let response = answered(make()).await?;
            let headers = response.headers().clone();
            let body = response.bytes().await.map_err(|error| Failed::of(&error))?;
            Ok((headers, body.to_vec()))
        };
        self.patiently(attempt, on_wait).await
    }

    async fn patiently<T>(
        &self,
        attempt: impl AsyncFn() -> Result<T, Failed>,
        mut on_wait: impl FnMut(&str),
    ) -> Result<T, ClientError> {
        let begun = tokio::time::Instant::now();
        let mut backoff = Backoff::new(self.patience);
        loop {
            let (why, at_least) = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(Failed::ForGood(error)) => return Err(error),
                Err(Failed::ForNow(why, at_least)) => (why, at_least),
            };
            let wait = backoff.next(begun.elapsed(), at_least);
            let wait = wait.ok_or_else(|| ClientError::Away { after: begun.elapsed(), why: why.clone() })?;
            on_wait(&why);
            tokio::time::sleep(wait / self.hurry).await;
        }
    }
}

/// Why an attempt failed.
enum Failed {
    /// Again it would fail the same.
    ForGood(ClientError),
    /// It may succeed later, at the earliest after so long.
    ForNow(String, Duration),
}

impl Failed {
    fn of(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            return Self::ForGood(ClientError::Request(reason(error)));
        }
        if is_untrusted(error) {
            return Self::ForGood(ClientError::Untrusted(reason(error)));
        }
        Self::ForNow(reason(error), Duration::ZERO)
    }
}

/// An answer that is a success.
async fn answered(request: RequestBuilder) -> Result<Response, Failed> {
    let response = request.send().await.map_err(|error| Failed::of(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_success() {
        return Ok(response);
    }
    let message = message_of(&response.bytes().await.map_err(|error| Failed::of(&error))?);
    if is_transient(status) {
        Err(Failed::ForNow(format!("{}: {message}", status.as_u16()), retry_after(&headers)))
    } else {
        Err(Failed::ForGood(ClientError::Refused { status, message }))
    }
}

/// The innermost cause, which is what a person can act on ("connection refused").
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Whether the certificate was looked at and refused, which it would be again.
fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(this) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = this.downcast_ref() {
            return true;
        }
        // What an I/O error holds is not its source: that is the source of what it holds.
        let held = this.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = held.map_or_else(|| this.source(), |held| Some(held));
    }
    false
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stub::{Reply, Stub};

    fn client(url: &str) -> Client {
        Client { url: url.to_owned(), key_id: "id".to_owned(), secret: "the secret".into(), ca: None }
    }

    #[test]
    fn a_bad_address_is_named_and_secrets_are_not_printed() {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let bad = Connection::new(client("http://[::"), 1).unwrap_err().to_string();
        assert!(bad.contains("http://[::") && bad.contains("127.0.0.1:8080"), "{bad}");
        let no_authority = Client { ca: Some(b"nothing".to_vec()), ..client("https://127.0.0.1:1") };
        assert!(matches!(Connection::new(no_authority, 1), Err(ClientError::Authority(_))));
        let good = Connection::new(client("http://127.0.0.1:1"), 1).unwrap();
        assert!(!format!("{good:?}").contains("the secret"));
    }

    #[tokio::test]
    async fn a_key_that_no_header_carries_is_told_at_once() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client { secret: "two\nlines".into(), ..client("http://127.0.0.1:1") };
        let connection = Connection::new(client, 60).unwrap();
        let waited = std::cell::Cell::new(false);
        let error =
            connection.send(|| connection.request(Method::GET, "/"), |_| waited.set(true)).await.unwrap_err();
        assert!(matches!(error, ClientError::Request(_)) && !waited.get(), "{error}");
        assert!(!error.to_string().contains("two"), "{error}");
    }

    #[tokio::test]
    async fn damaged_data_is_told_at_once_and_a_slow_store_is_asked_again() {
        let mut asked = 0;
        let stub = Stub::start(move |_| {
            asked += 1;
            match asked {
                1 => Reply::json(504, r#"{"code":50400000,"message":"the store did not answer in time"}"#),
                _ => Reply::json(
                    501,
                    r#"{"code":50100000,"message":"stored data is damaged; run tapeline verify"}"#,
                ),
            }
        })
        .await;
        let connection = stub.connection();
        let waits = std::cell::Cell::new(0);
        let send = connection.send(|| connection.request(Method::GET, "/"), |_| waits.set(waits.get() + 1));
        let error = send.await.unwrap_err();
        assert_eq!(
            (waits.get(), error.to_string()),
            (1, "the node answers 501: stored data is damaged; run tapeline verify".to_owned())
        );
    }

    #[test]
    fn waits_grow_obey_the_node_and_end() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(60));
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(Duration::ZERO, Duration::ZERO)).collect();
        assert_eq!(waits[..3], [BACKOFF_MIN, BACKOFF_MIN * 2, BACKOFF_MIN * 4]);
        assert!(waits.contains(&BACKOFF_MAX) && waits.iter().sum::<Duration>() <= seconds(60));
        assert_eq!(Backoff::new(seconds(60)).next(Duration::ZERO, seconds(7)), Some(seconds(7)));
        assert_eq!(Backoff::new(seconds(60)).next(seconds(55), seconds(7)), None);
        assert_eq!(Backoff::new(Duration::ZERO).next(Duration::ZERO, Duration::ZERO), None);
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
