//! The configuration as types. `config.default.toml` says what each key is for, and a test
//! holds the two against each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

use super::cassandra::Cassandra;
use super::hot::Redis;

/// The whole configuration of a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this node is and where its data is.
    pub node: Node,
    /// The HTTP doors and their limits.
    pub http: Http,
    /// What a request of ticks may hold.
    pub ingest: Ingest,
    /// The tape: writer, follower, tail.
    pub tape: Tape,
    /// What is stored and for how long.
    pub store: Store,
    /// The cluster of the scaled store.
    pub cassandra: Cassandra,
    /// The Redis of the region.
    pub redis: Redis,
    /// Keeper and reader.
    pub history: History,
    /// Latest values.
    pub live: Live,
    /// Subscriptions and the feed.
    pub subs: Subs,
    /// Keys and their limits.
    pub access: Access,
    /// Logs.
    pub telemetry: Telemetry,
    /// The demo's synthetic market.
    pub demo: Demo,
}

impl Config {
    /// All regions, the own one among them.
    #[must_use]
    pub fn regions(&self) -> Vec<&str> {
        match self.store.backend {
            Backend::Embedded => vec![&self.node.region],
            Backend::Cassandra => self.cassandra.regions.iter().map(|place| place.region.as_str()).collect(),
        }
    }
}

/// Who this node is and where its data is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name in logs and in the registry of tapes.
    pub name: String,
    /// Region, a short lower-case name.
    pub region: String,
    /// Folder of everything the node stores.
    pub data: PathBuf,
    /// How long a drain may take.
    pub drain_ms: u64,
}

/// The HTTP doors and their limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address of the public door; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Address of the admin door.
    pub admin_listen: SocketAddr,
    /// PEM file of the certificate and its chain; none: no TLS.
    #[serde(deserialize_with = "file")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(deserialize_with = "file")]
    pub tls_key: Option<PathBuf>,
    /// The oldest version of TLS that is spoken.
    pub tls_min_version: TlsVersion,
    /// Time for a TLS handshake.
    pub tls_handshake_ms: u64,
    /// Pause between looks at the two files.
    pub tls_reload_ms: u64,
    /// Origins whose pages may read this API, such as `https://charts.example`.
    pub cors_origins: Vec<String>,
    /// Open connections in all.
    pub connections_max: usize,
    /// Open connections from one source (IPv4 /24, IPv6 /64).
    pub connections_per_source_max: usize,
    /// Requests being answered at once.
    pub requests_in_flight_max: usize,
    /// Requests a minute from one address (IPv6: /64), before it has shown a key.
    pub source_requests_per_minute: u32,
    /// Addresses that are counted one by one.
    pub sources_max: usize,
    /// Time from connecting to the first request's headers.
    pub first_request_ms: u64,
    /// Time for the headers of a request.
    pub header_read_ms: u64,
    /// Time in which a client must take something of an answer.
    pub write_stall_ms: u64,
    /// Bytes that the system takes for a connection ahead of what it can send; 0: no limit of ours.
    pub send_buffer_bytes: u32,
    /// Bytes of path and query.
    pub uri_bytes_max: usize,
    /// Bytes of request line and headers.
    pub header_bytes_max: usize,
    /// Number of headers.
    pub headers_max: usize,
    /// Concurrent HTTP/2 streams of a connection.
    pub http2_streams_max: u32,
    /// Bytes of a body as sent.
    pub body_bytes_max: usize,
    /// Bytes of a body after decompression.
    pub body_decompressed_bytes_max: usize,
    /// How many times larger than sent a body may become.
    pub body_ratio_max: u32,
    /// Time for a whole body to arrive.
    pub body_ms: u64,
    /// Time for a whole request.
    pub request_ms: u64,
    /// Answers smaller than this are not compressed.
    pub compress_bytes_min: u64,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// What a request of ticks may hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// Ticks of one request.
    pub ticks_max: usize,
    /// Bytes of all bodies and their ticks being taken in at once.
    pub in_flight_bytes_max: usize,
    /// Verdicts that an answer lists.
    pub verdicts_max: usize,
    /// How far in the future a tick's time may be.
    pub future_ms: u64,
    /// After this an unanswered request is told that its outcome is unknown.
    pub answer_ms: u64,
    /// Producers that stay connected.
    pub streams_max: usize,
    /// Bytes of one of them that are not acknowledged.
    pub window_bytes_max: usize,
    /// Lines of one batch of them.
    pub batch_lines_max: usize,
    /// Bytes of one batch of them.
    pub batch_bytes_max: usize,
    /// How long lines are gathered for a batch while another is under way.
    pub batch_linger_ms: u64,
    /// Silence after which one of them is ended.
    pub stream_idle_ms: u64,
}

/// The tape: writer, follower, tail.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tape {
    /// The writer sends a frame as soon as it holds this.
    pub flush_bytes: usize,
    /// Bytes of one frame.
    pub frame_bytes_max: usize,
    /// Appends in flight up to which the writer does not wait to fill a frame.
    pub in_flight_eager: usize,
    /// Appends in flight at most.
    pub in_flight_max: usize,
    /// Bytes of ticks that wait for a frame.
    pub queue_bytes_max: usize,
    /// Silence after which the writer sends an empty frame.
    pub idle_ms: u64,
    /// Pause between polls of tapes of this region.
    pub poll_own_ms: u64,
    /// Pause between polls of tapes of other regions.
    pub poll_remote_ms: u64,
    /// Silence after which a tape is retired.
    pub retire_after_ms: u64,
    /// Memory for the newest ticks.
    pub tail_bytes_max: usize,
    /// Memory for frames that came before their predecessors.
    pub held_bytes_max: usize,
    /// Memory for requests seen.
    pub requests_bytes_max: usize,
    /// How long requests are remembered.
    pub requests_minutes: u64,
}

/// What is stored and for how long.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Where it is stored.
    pub backend: Backend,
    /// A database that answers before its commit log is synced is refused.
    pub require_durable_commitlog: bool,
    /// Key of the envelope around all stored bytes, base64url; none: made at first start.
    #[serde(deserialize_with = "secret")]
    pub seal_key: Option<SecretString>,
    /// Size of a segment of a tape.
    pub segment_bytes: u32,
    /// Frames that wait for the disk.
    pub append_queue_bytes_max: usize,
    /// Indexes of finished segments in memory.
    pub index_cache_bytes_max: usize,
    /// Small rows in memory.
    pub records_bytes_max: usize,
    /// Cache of blocks.
    pub block_cache_bytes: u64,
    /// How long tapes are kept.
    pub tape_hours: u64,
    /// Free space of the disk below which the node warns.
    pub low_space_percent: u64,
}

/// Where ticks and history are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In the data folder, for one node.
    Embedded,
    /// In a cluster of Cassandra or ScyllaDB, for any number of nodes.
    Cassandra,
}

impl Store {
    /// The bytes of the given seal key, if one is given.
    #[must_use]
    pub fn seal_secret(&self) -> Option<[u8; 32]> {
        let text = self.seal_key.as_ref()?.expose_secret();
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
    }
}

/// What is new.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Symbols whose latest trade and quote are in memory.
    pub latest_symbols_max: usize,
    /// Feeds of the stream.
    pub feeds: Vec<String>,
    /// A client must have shown a key by then.
    pub auth_ms: u64,
    /// A message of a client.
    pub message_bytes_max: usize,
    /// Ticks in a message to a client.
    pub batch_bytes_max: usize,
    /// Symbols of one connection.
    pub symbols_per_connection_max: usize,
    /// Connections of one key; 0: no limit.
    pub streams_per_key_max: usize,
    /// What waits for one client.
    pub outbox_bytes_max: usize,
    /// How long a client may take nothing.
    pub stall_ms: u64,
    /// How often there is a heartbeat.
    pub heartbeat_ms: u64,
    /// Deliveries that are not handed out yet.
    pub backlog_bytes_max: usize,
    /// How far back a client may resume.
    pub resume_minutes: u64,
    /// Bars that were announced, kept for who resumes.
    pub announced_bytes_max: usize,
    /// Reads of tapes at once.
    pub scans_max: usize,
    /// Frames that they have read.
    pub scan_cache_bytes_max: usize,
    /// Which requests replays have given, over all of them.
    pub replay_requests_bytes_max: usize,
    /// Over which time clients are told to come back, at a stop.
    pub move_ms: u64,
    /// Memory for bars that are open.
    pub bars_bytes_max: usize,
    /// After its end by the wall clock a minute of today closes.
    pub bars_mark_ms: u64,
    /// By this much the ticks' own time must be past a minute's end to close it.
    pub bars_slack_ms: u64,
    /// After this silence a minute of a day that is past closes.
    pub bars_quiet_ms: u64,
    /// Bars being asked of history at once.
    pub bars_asks_max: usize,
    /// Bars that wait to be asked of history.
    pub bars_asks_queued_max: usize,
}

/// Subscriptions and the feed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subs {
    /// Subscriptions of one account.
    pub per_account_max: usize,
    /// Deleted subscriptions of one account that are remembered.
    pub deleted_per_account_max: usize,
    /// Symbols of one subscription.
    pub symbols_max: usize,
    /// Condition codes of one filter.
    pub conditions_max: usize,
    /// The longest span of which only the latest quote goes out.
    pub conflate_ms_max: u32,
    /// Symbols of one filter whose last price is remembered.
    pub filter_symbols_max: usize,
    /// Symbols of one answer of the feed.
    pub feed_symbols_max: usize,
    /// Accounts whose feed is in memory.
    pub accounts_cached_max: usize,
    /// How long that may be out of date where another node changed it.
    pub refresh_ms: u64,
}

/// Keeper and reader.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// How long ticks are gathered for a block.
    pub linger_ms: u64,
    /// Ticks of one block.
    pub block_ticks_max: usize,
    /// Data points of a page where the request names no limit.
    pub page_limit_default: usize,
    /// Data points of a page.
    pub page_limit_max: usize,
    /// Symbols of one request.
    pub symbols_max: usize,
    /// Stored bytes that one page may read.
    pub page_read_bytes_max: usize,
    /// How long a read waits for the position that it names.
    pub after_wait_ms: u64,
    /// Reads at once.
    pub reads_max: usize,
    /// How long one more waits for its turn, in milliseconds.
    pub read_wait_ms: u64,
}

/// Keys and their limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Requests a minute of one key.
    pub requests_per_minute: u32,
    /// Requests that one key may make at once.
    pub requests_burst: u32,
    /// Pause between reads of all keys.
    pub refresh_ms: u64,
    /// Keys in all.
    pub keys_max: usize,
    /// How long entries of the audit are kept, in days.
    pub audit_days: u64,
    /// How long a ticket may be used, in seconds.
    pub ticket_s: u64,
    /// Used tickets that are remembered.
    pub tickets_max: usize,
    /// How long a cookie of the chart adapter is good.
    pub cookie_minutes: u64,
}

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Form of the logs.
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,tapeline::http=debug`.
    pub log_level: String,
}

/// Form of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The demo's synthetic market.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demo {
    /// Symbols of the market.
    pub symbols: usize,
    /// Ticks a second over all symbols.
    pub ticks_per_second: u32,
    /// Seed of the market.
    pub seed: u64,
}

/// An empty text is no file.
pub(super) fn file<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// An empty text is none.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then_some(text))
}

/// An empty text is no secret.
fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then(|| SecretString::from(text)))
}
