//! One rule a key: its type, its range, and what would be right, in words.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use toml::Value;

use super::cassandra::RegionPlace;

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// A whole number, both ends included.
    Number(i64, i64),
    /// A text of 1 to 64 printable characters without blanks.
    Name,
    /// A short lower-case name, as it is written into frames and keys.
    Region,
    /// An IP address and port.
    Address,
    /// A folder.
    Folder,
    /// A file, or nothing.
    File,
    /// A list of origins of web pages.
    Origins,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of lower-case words.
    Words,
    /// Directives of the log filter.
    LogFilter,
    /// 32 bytes as base64url, or nothing.
    SealKey,
    /// On or off.
    Switch,
    /// A list of hosts with their ports.
    Hosts,
    /// A list of regions with their places.
    Places,
    /// The beginning of a name of a keyspace.
    Keyspace,
    /// A word, or nothing.
    Word,
    /// The address of a Redis without a password, or nothing.
    RedisUrl,
}

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
/// More than this is no URI to the HTTP library.
const URI_BYTES_MAX: i64 = 65_534;
const HOUR_MS: i64 = 3_600_000;
/// More than any count that makes sense on one node.
const MANY: i64 = 10_000_000;

/// The rule of every key. A test holds this against `config.default.toml`, both ways.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("node.name", Rule::Name),
    ("node.region", Rule::Region),
    ("node.data", Rule::Folder),
    ("node.drain_ms", Rule::Number(1_000, 600_000)),
    ("http.listen", Rule::Address),
    ("http.admin_listen", Rule::Address),
    ("http.tls_cert", Rule::File),
    ("http.tls_key", Rule::File),
    ("http.tls_min_version", Rule::OneOf(&["1.2", "1.3"])),
    ("http.tls_handshake_ms", Rule::Number(100, HOUR_MS)),
    ("http.tls_reload_ms", Rule::Number(100, HOUR_MS)),
    ("http.cors_origins", Rule::Origins),
    ("http.connections_max", Rule::Number(1, MANY)),
    ("http.connections_per_source_max", Rule::Number(1, MANY)),
    ("http.requests_in_flight_max", Rule::Number(1, MANY)),
    ("http.source_requests_per_minute", Rule::Number(1, MANY)),
    ("http.sources_max", Rule::Number(1, MANY)),
    ("http.first_request_ms", Rule::Number(100, HOUR_MS)),
    ("http.header_read_ms", Rule::Number(100, HOUR_MS)),
    ("http.write_stall_ms", Rule::Number(100, HOUR_MS)),
    ("http.send_buffer_bytes", Rule::Number(0, GIB)),
    ("http.uri_bytes_max", Rule::Number(KIB, URI_BYTES_MAX)),
    ("http.header_bytes_max", Rule::Number(8 * KIB, MIB)),
    ("http.headers_max", Rule::Number(16, 1_000)),
    ("http.http2_streams_max", Rule::Number(1, 10_000)),
    ("http.body_bytes_max", Rule::Number(KIB, GIB)),
    ("http.body_decompressed_bytes_max", Rule::Number(KIB, GIB)),
    ("http.body_ratio_max", Rule::Number(2, 10_000)),
    ("http.body_ms", Rule::Number(100, HOUR_MS)),
    ("http.request_ms", Rule::Number(100, HOUR_MS)),
    ("http.compress_bytes_min", Rule::Number(0, 65_535)),
    ("ingest.ticks_max", Rule::Number(1, MANY)),
    ("ingest.in_flight_bytes_max", Rule::Number(KIB, 64 * GIB)),
    ("ingest.verdicts_max", Rule::Number(1, 100_000)),
    ("ingest.future_ms", Rule::Number(0, HOUR_MS)),
    ("ingest.answer_ms", Rule::Number(100, HOUR_MS)),
    ("ingest.streams_max", Rule::Number(1, MANY)),
    ("ingest.window_bytes_max", Rule::Number(256 * KIB, GIB)),
    ("ingest.batch_lines_max", Rule::Number(1, 100_000)),
    ("ingest.batch_bytes_max", Rule::Number(KIB, 64 * MIB)),
    ("ingest.batch_linger_ms", Rule::Number(0, 10_000)),
    ("ingest.stream_idle_ms", Rule::Number(100, 24 * HOUR_MS)),
    ("tape.flush_bytes", Rule::Number(KIB, MIB)),
    ("tape.frame_bytes_max", Rule::Number(4 * KIB, 256 * KIB)),
    ("tape.in_flight_eager", Rule::Number(1, 64)),
    ("tape.in_flight_max", Rule::Number(1, 64)),
    ("tape.queue_bytes_max", Rule::Number(MIB, 64 * GIB)),
    ("tape.idle_ms", Rule::Number(100, 60_000)),
    ("tape.poll_own_ms", Rule::Number(10, 60_000)),
    ("tape.poll_remote_ms", Rule::Number(10, 60_000)),
    ("tape.retire_after_ms", Rule::Number(1_000, 24 * HOUR_MS)),
    ("tape.tail_bytes_max", Rule::Number(MIB, 1_024 * GIB)),
    ("tape.held_bytes_max", Rule::Number(MIB, 64 * GIB)),
    ("tape.requests_bytes_max", Rule::Number(MIB, 64 * GIB)),
    ("tape.requests_minutes", Rule::Number(1, 1_440)),
    ("store.backend", Rule::OneOf(&["embedded", "cassandra"])),
    ("store.require_durable_commitlog", Rule::Switch),
    ("store.seal_key", Rule::SealKey),
    ("store.segment_bytes", Rule::Number(64 * KIB, GIB)),
    ("store.append_queue_bytes_max", Rule::Number(MIB, 16 * GIB)),
    ("store.index_cache_bytes_max", Rule::Number(MIB, 16 * GIB)),
    ("store.records_bytes_max", Rule::Number(MIB, 16 * GIB)),
    ("store.block_cache_bytes", Rule::Number(MIB, 1_024 * GIB)),
    ("store.tape_hours", Rule::Number(0, 24 * 365)),
    ("store.low_space_percent", Rule::Number(0, 90)),
    ("cassandra.nodes", Rule::Hosts),
    ("cassandra.regions", Rule::Places),
    ("cassandra.keyspace", Rule::Keyspace),
    ("cassandra.rack", Rule::Word),
    ("cassandra.user", Rule::Word),
    ("cassandra.password_file", Rule::File),
    ("cassandra.tls_ca", Rule::File),
    ("cassandra.connect_ms", Rule::Number(100, HOUR_MS)),
    ("cassandra.request_ms", Rule::Number(100, HOUR_MS)),
    ("cassandra.hedge_ms", Rule::Number(0, HOUR_MS)),
    ("cassandra.connections", Rule::Number(1, 64)),
    ("cassandra.append_bytes_max", Rule::Number(MIB, 16 * GIB)),
    ("cassandra.flush_statements", Rule::Number(1, 4_096)),
    ("redis.url", Rule::RedisUrl),
    ("redis.password_file", Rule::File),
    ("redis.tls_ca", Rule::File),
    ("redis.call_ms", Rule::Number(1, 60_000)),
    ("redis.push_bytes_max", Rule::Number(64 * KIB, 16 * GIB)),
    ("redis.latest_ms", Rule::Number(0, 15_000)),
    ("redis.rates_ms", Rule::Number(0, 30_000)),
    ("history.linger_ms", Rule::Number(100, HOUR_MS)),
    ("history.block_ticks_max", Rule::Number(16, 65_536)),
    ("history.page_limit_default", Rule::Number(1, 1_000_000)),
    ("history.page_limit_max", Rule::Number(1, 1_000_000)),
    ("history.symbols_max", Rule::Number(1, 100_000)),
    ("history.page_read_bytes_max", Rule::Number(MIB, 16 * GIB)),
    ("history.after_wait_ms", Rule::Number(0, 60_000)),
    ("history.reads_max", Rule::Number(1, 65_536)),
    ("history.read_wait_ms", Rule::Number(0, 60_000)),
    ("live.latest_symbols_max", Rule::Number(0, MANY)),
    ("live.feeds", Rule::Words),
    ("live.auth_ms", Rule::Number(100, HOUR_MS)),
    ("live.message_bytes_max", Rule::Number(4 * KIB, 64 * MIB)),
    ("live.batch_bytes_max", Rule::Number(64 * KIB, 64 * MIB)),
    ("live.symbols_per_connection_max", Rule::Number(1, MANY)),
    ("live.streams_per_key_max", Rule::Number(0, MANY)),
    ("live.outbox_bytes_max", Rule::Number(64 * KIB, GIB)),
    ("live.stall_ms", Rule::Number(100, HOUR_MS)),
    ("live.heartbeat_ms", Rule::Number(100, HOUR_MS)),
    ("live.backlog_bytes_max", Rule::Number(MIB, 64 * GIB)),
    ("live.resume_minutes", Rule::Number(0, 1_440)),
    ("live.announced_bytes_max", Rule::Number(0, 64 * GIB)),
    ("live.scans_max", Rule::Number(1, 1_000)),
    ("live.scan_cache_bytes_max", Rule::Number(MIB, 64 * GIB)),
    ("live.replay_requests_bytes_max", Rule::Number(KIB, 16 * GIB)),
    ("live.move_ms", Rule::Number(0, 60_000)),
    ("live.bars_bytes_max", Rule::Number(MIB, 64 * GIB)),
    ("live.bars_mark_ms", Rule::Number(0, 10_000)),
    ("live.bars_slack_ms", Rule::Number(0, 60_000)),
    ("live.bars_quiet_ms", Rule::Number(1_000, HOUR_MS)),
    ("live.bars_asks_max", Rule::Number(1, 1_024)),
    ("live.bars_asks_queued_max", Rule::Number(1, MANY)),
    ("subs.per_account_max", Rule::Number(1, 10_000)),
    ("subs.deleted_per_account_max", Rule::Number(1, 100_000)),
    ("subs.symbols_max", Rule::Number(1, 50_000)),
    ("subs.conditions_max", Rule::Number(1, 95)),
    ("subs.conflate_ms_max", Rule::Number(1, HOUR_MS)),
    ("subs.filter_symbols_max", Rule::Number(1, MANY)),
    ("subs.feed_symbols_max", Rule::Number(1, 100_000)),
    ("subs.accounts_cached_max", Rule::Number(1, MANY)),
    ("subs.refresh_ms", Rule::Number(0, HOUR_MS)),
    ("access.requests_per_minute", Rule::Number(1, MANY)),
    ("access.requests_burst", Rule::Number(1, MANY)),
    ("access.refresh_ms", Rule::Number(100, HOUR_MS)),
    ("access.keys_max", Rule::Number(1, MANY)),
    ("access.audit_days", Rule::Number(1, 36_500)),
    ("access.ticket_s", Rule::Number(1, 3_600)),
    ("access.tickets_max", Rule::Number(1, MANY)),
    ("access.cookie_minutes", Rule::Number(1, 60 * 24 * 30)),
    ("telemetry.log_format", Rule::OneOf(&["human", "json"])),
    ("telemetry.log_level", Rule::LogFilter),
    ("demo.symbols", Rule::Number(1, 20_000)),
    ("demo.ticks_per_second", Rule::Number(1, 1_000_000)),
    ("demo.seed", Rule::Number(0, i64::MAX)),
];

/// The rule of a key, if there is such a key.
pub(super) fn rule_of(key: &str) -> Option<Rule> {
    RULES.iter().find(|(name, _)| *name == key).map(|(_, rule)| *rule)
}

impl Rule {
    /// A text from the environment or a flag as the value it stands for.
    pub(super) fn value_of(self, text: &str) -> Value {
        match self {
            Self::Number(..) => match text.trim().replace('_', "").parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::String(text.to_owned()),
            },
            Self::Switch => {
                text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Boolean)
            }
            Self::Words | Self::Origins | Self::Hosts | Self::Places => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                Value::Array(words.map(|word| Value::String(word.to_owned())).collect())
            }
            _ => Value::String(text.to_owned()),
        }
    }

    /// Whether the value is right.
    pub(super) fn allows(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Number(min, max), Value::Integer(number)) => (min..=max).contains(number),
            (Self::Name, Value::String(text)) => {
                (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
            }
            (Self::Region, Value::String(text)) => {
                (1..=16).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && text.starts_with(|first: char| first.is_ascii_lowercase())
            }
            (Self::Address, Value::String(text)) => text.parse::<SocketAddr>().is_ok(),
            (Self::Folder, Value::String(text)) => !text.is_empty() && !text.contains('\0'),
            (Self::File, Value::String(text)) => !text.contains('\0'),
            (Self::Origins, Value::Array(texts)) => {
                texts.iter().all(|text| text.as_str().is_some_and(is_origin))
            }
            (Self::OneOf(texts), Value::String(text)) => texts.contains(&text.as_str()),
            (Self::Words, Value::Array(words)) => words.iter().all(|word| {
                word.as_str().is_some_and(|word| {
                    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                    !word.is_empty() && word.bytes().all(plain)
                })
            }),
            (Self::LogFilter, Value::String(text)) => {
                !text.is_empty() && text.parse::<tracing_subscriber::filter::Targets>().is_ok()
            }
            (Self::SealKey, Value::String(text)) => {
                text.is_empty() || URL_SAFE_NO_PAD.decode(text).is_ok_and(|key| key.len() == 32)
            }
            (Self::Switch, Value::Boolean(_)) => true,
            (Self::Hosts, Value::Array(hosts)) => hosts.iter().all(|host| host.as_str().is_some_and(is_host)),
            (Self::Places, Value::Array(places)) => {
                let region = |place: &Value| {
                    let place = RegionPlace::parse(place.as_str()?)?;
                    Self::Region.allows(&Value::String(place.region.clone())).then_some(place.region)
                };
                let regions: Option<std::collections::BTreeSet<_>> = places.iter().map(region).collect();
                regions.is_some_and(|regions| regions.len() == places.len())
            }
            (Self::Keyspace, Value::String(text)) => {
                (1..=24).contains(&text.len())
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
                    && text.starts_with(|first: char| first.is_ascii_lowercase())
            }
            (Self::Word, Value::String(text)) => {
                text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())
            }
            // A secret in an address would be shown wherever the address is.
            (Self::RedisUrl, Value::String(text)) => {
                let address = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
                text.is_empty()
                    || address.is_some_and(|address| {
                        !address.is_empty()
                            && !address.contains('@')
                            && address.bytes().all(|byte| byte.is_ascii_graphic())
                    })
            }
            _ => false,
        }
    }

    /// What would be right.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Number(min, i64::MAX) => format!("a whole number from {min}"),
            Self::Number(min, max) => format!("a whole number from {min} to {max}"),
            Self::Name => "1 to 64 printable characters without blanks".to_owned(),
            Self::Region => "1 to 16 of a-z, 0-9 and '-', the first a letter, such as \"us-east\"".to_owned(),
            Self::Address => "an IP address and port such as \"127.0.0.1:8080\"".to_owned(),
            Self::Folder => "the path of a folder".to_owned(),
            Self::File => "the path of a file, or empty".to_owned(),
            Self::Origins => {
                "a list of origins as browsers send them: http or https, a host in lower case, a port that is \
                 not the scheme's own, no path, such as [\"https://charts.example\"]"
                    .to_owned()
            }
            Self::OneOf(texts) => {
                let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
                quoted.join(" or ")
            }
            Self::Words => "a list of lower-case words such as [\"sip\", \"iex\"], or a,b".to_owned(),
            Self::LogFilter => "a level (error, warn, info, debug, trace) or directives such as \
                 \"info,tapeline::http=debug\""
                .to_owned(),
            Self::SealKey => "43 characters of base64url (32 bytes), or empty".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Hosts => "a list of hosts with their ports such as [\"10.0.0.1:9042\"], or a:9042,b:9042".to_owned(),
            Self::Places => {
                "a list of region=datacenter:replicas such as [\"eu=dc1:3\", \"us=dc2:3\"], each region once, 1 to 9 replicas"
                    .to_owned()
            }
            Self::Keyspace => "1 to 24 of a-z, 0-9 and '_', the first a letter".to_owned(),
            Self::RedisUrl => {
                "an address such as \"redis://10.0.0.1:6379/0\" or \"rediss://…\" without name and password, or empty".to_owned()
            }
            Self::Word => "at most 128 printable characters without blanks, or empty".to_owned(),
        }
    }

    /// Whether the value is never shown.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::SealKey)
    }
}

/// Whether a text is a host and its port.
fn is_host(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Whether a text is the origin of a page as browsers send it (RFC 6454, 6.1).
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let of_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_[]:".contains(&byte);
    let port_fits = |port: &str| port.parse::<u16>().is_ok_and(|number| number != default_port);
    !host.is_empty() && host.bytes().all(of_host) && port.is_none_or(port_fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        for good in ["https://charts.example", "http://localhost:3000", "http://[::1]:8080", "http://[::1]"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "*",
            "null",
            "charts.example",
            "https://charts.example/",
            "https://Charts.example",
            "https://charts.example:443",
            "https://charts.example:x",
            "https://",
            "ftp://charts.example",
            "https://a b",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
        let listed = Rule::Origins.value_of("https://a.example, http://b.example:81");
        assert!(Rule::Origins.allows(&listed) && listed.as_array().is_some_and(|list| list.len() == 2));
        assert!(Rule::Origins.allows(&Rule::Origins.value_of("")));
    }
}
