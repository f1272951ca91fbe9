//! The one list of metrics.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Declares the list: field, type, name, help, labels. The help is the field's documentation.
macro_rules! metrics {
    ($($field:ident: $kind:ident = $name:literal, $help:literal, [$($label:literal),*];)*) => {
        /// All metrics of a node, in a registry of its own.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = concat!("`", $name, "`: ", $help, ".")] pub $field: $kind,)*
        }

        impl Metrics {
            /// Registers all of them, and those of the process.
            ///
            /// # Errors
            /// A name or label that Prometheus does not allow: a mistake in the list.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(let $field: $kind = made(&registry, $name, $help, &[$($label),*])?;)*
                #[cfg(target_os = "linux")]
                registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
                Ok(Self { registry, $($field,)* })
            }

            /// Name and help of each of them.
            pub const NAMES: &[(&str, &str)] = &[$(($name, $help),)*];
        }
    };
}

metrics! {
    http_requests: IntCounterVec = "tapeline_http_requests_total", "requests answered", ["route", "method", "status"];
    http_request_seconds: HistogramVec = "tapeline_http_request_duration_seconds", "time from a request's headers to its answer's", ["route"];
    http_in_flight: IntGauge = "tapeline_http_requests_in_flight", "requests being answered", [];
    http_refused: IntCounterVec = "tapeline_http_requests_refused_total", "requests refused before their handler, by reason", ["reason"];
    http_connections: IntGauge = "tapeline_http_connections", "open connections", [];
    http_connections_refused: IntCounterVec = "tapeline_http_connections_refused_total", "connections closed at once, by the limit that was full", ["limit"];
    http_connections_closed: IntCounterVec = "tapeline_http_connections_closed_total", "connections closed because nothing moved on them, by what did not", ["reason"];
    http_tls_expiry_seconds: Gauge = "tapeline_http_tls_expiry_timestamp_seconds", "when the certificate of the public door ends, in seconds since 1970", [];
    http_tls_reloads: IntCounterVec = "tapeline_http_tls_reloads_total", "looks at changed TLS files, by outcome", ["outcome"];
    http_panics: IntCounter = "tapeline_http_panics_total", "handlers that panicked", [];
    access_keys: IntGauge = "tapeline_access_keys", "keys known, the revoked ones too", [];
    access_shared: IntCounter = "tapeline_access_shared_requests_total", "requests of keys on other nodes of the region that were counted here", [];
    access_refresh_failures: IntCounter = "tapeline_access_refresh_failures_total", "reads of all keys that failed", [];
    ingest_in_flight_bytes: IntGauge = "tapeline_ingest_in_flight_bytes", "memory of requests being taken in", [];
    ingest_requests: IntCounterVec = "tapeline_ingest_requests_total", "requests of ticks, by outcome", ["outcome"];
    ingest_ticks: IntCounterVec = "tapeline_ingest_ticks_total", "ticks posted, by verdict", ["verdict"];
    ingest_streams: IntGauge = "tapeline_ingest_streams", "producers that are connected to stay", [];
    ingest_stream_ends: IntCounterVec = "tapeline_ingest_stream_ends_total", "ends of their connections, by reason", ["reason"];
    tape_frames: IntCounter = "tapeline_tape_frames_total", "frames appended and durable", [];
    tape_unacked_frames: IntGauge = "tapeline_tape_unacked_frames", "frames sealed and not acknowledged", [];
    tape_followed: IntGauge = "tapeline_tape_followed", "tapes that are followed", [];
    tape_unretired: IntGauge = "tapeline_tape_unretired", "followed tapes of the own region that are not retired", [];
    tape_holes: IntGauge = "tapeline_tape_holes", "tapes with a hole that is waited for", [];
    tape_hole_age_seconds: Gauge = "tapeline_tape_hole_age_seconds", "age of the oldest hole that is waited for", [];
    tape_behind_frames: IntGaugeVec = "tapeline_tape_behind_frames", "frames of a region that are known of and not followed here yet", ["region"];
    history_behind_frames: IntGaugeVec = "tapeline_history_behind_frames", "frames followed here that the history of a region does not hold yet", ["region"];
    tape_queue_bytes: IntGauge = "tapeline_tape_queue_bytes", "ticks that wait for a frame", [];
    tape_tail_bytes: IntGauge = "tapeline_tape_tail_bytes", "memory of the newest ticks", [];
    tape_held_bytes: IntGauge = "tapeline_tape_held_bytes", "memory of frames that came before their predecessors", [];
    tape_acked_frame_missing: IntCounter = "tapeline_tape_acked_frame_missing_total", "acknowledged frames that no replica has", [];
    history_unkept_ticks: IntGauge = "tapeline_history_unkept_ticks", "ticks in the tail that no mark covers", [];
    history_unkept_age_seconds: Gauge = "tapeline_history_unkept_age_seconds", "how long the oldest of them waits for its block", [];
    live_connections: IntGauge = "tapeline_live_connections", "open streams, those without a key yet too", [];
    live_closed: IntCounterVec = "tapeline_live_closed_total", "streams closed by the node, by close code", ["code"];
    live_ticks: IntCounter = "tapeline_live_ticks_total", "ticks sent to streams", [];
    live_left: IntCounter = "tapeline_live_left_total", "clients that left the live stream because they did not keep up", [];
    live_overruns: IntCounter = "tapeline_live_overruns_total", "times that all clients left it because the node did not keep up", [];
    live_scans: IntCounter = "tapeline_live_scans_total", "reads of tapes for clients that resume from further back than the tail reaches", [];
    live_backlog_bytes: IntGauge = "tapeline_live_backlog_bytes", "deliveries that are not handed out yet", [];
    live_requests_reach_seconds: Gauge = "tapeline_live_requests_reach_seconds", "how far back repeated requests are known, so that each tick is delivered once", [];
    store_append_bytes: IntCounter = "tapeline_store_append_bytes_total", "bytes of frames appended to the log", [];
    store_syncs: IntCounter = "tapeline_store_syncs_total", "syncs of the log, each shared by the frames that waited", [];
    store_refused_appends: IntCounter = "tapeline_store_refused_appends_total", "appends that the log refused", [];
    store_segments: IntGauge = "tapeline_store_segments", "segments of the log", [];
    store_log_cut_bytes: IntCounter = "tapeline_store_log_cut_bytes_total", "unacknowledged bytes cut from the end of a log when it was opened", [];
    store_free_ratio: Gauge = "tapeline_store_free_ratio", "free share of the disk", [];
    database_requests: IntCounter = "tapeline_database_requests_total", "statements sent to the database", [];
    database_errors: IntCounter = "tapeline_database_errors_total", "statements that failed", [];
    database_retries: IntCounter = "tapeline_database_retries_total", "statements that the driver has sent again", [];
    database_connections: IntGauge = "tapeline_database_connections", "open connections to the database", [];
    database_connection_timeouts: IntCounter = "tapeline_database_connection_timeouts_total", "connections to the database that took too long to open", [];
    database_request_timeouts: IntCounter = "tapeline_database_request_timeouts_total", "statements that took too long", [];
    redis_up: IntGauge = "tapeline_redis_up", "whether Redis is asked; after failures in a row it is not for a while", [];
    redis_failures: IntCounter = "tapeline_redis_failures_total", "calls to Redis that failed or were not tried", [];
    redis_poisoned: IntCounter = "tapeline_redis_poisoned_total", "values in Redis that were not what was cached", [];
    latest_warmed: IntGauge = "tapeline_latest_warmed_symbols", "symbols whose latest was known by Redis at the start", [];
    latest_sheets: IntCounter = "tapeline_latest_sheets_total", "times that this node has put what is latest into Redis", [];
    latest_reads: IntCounter = "tapeline_latest_reads_total", "reads of history for the latest of a symbol", [];
    push_sent: IntCounter = "tapeline_push_sent_total", "frames handed to the other nodes of the region", [];
    push_dropped: IntCounter = "tapeline_push_dropped_total", "frames that were left to their polls", [];
    push_received: IntCounter = "tapeline_push_received_total", "frames that other nodes have handed over, and this one itself", [];
    push_refused: IntCounter = "tapeline_push_refused_total", "hints that are no frames of this service", [];
}

impl Metrics {
    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// A metric without a value: never.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// A type of metric.
trait Kind: Collector + Clone + Sized + 'static {
    fn with(opts: Opts, labels: &[&str]) -> Result<Self, prometheus::Error>;
}

fn made<K: Kind>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<K, prometheus::Error> {
    let metric = K::with(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Buckets by the unit in the name.
fn buckets(opts: Opts) -> HistogramOpts {
    let buckets = if opts.name.ends_with("_bytes") {
        vec![256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 131_072.0, 262_144.0, 1_048_576.0]
    } else {
        vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
    };
    HistogramOpts { common_opts: opts, buckets }
}

macro_rules! kinds {
    ($($kind:ident: |$opts:ident, $labels:pat_param| $make:expr;)*) => {$(
        impl Kind for $kind {
            fn with($opts: Opts, $labels: &[&str]) -> Result<Self, prometheus::Error> {
                $make
            }
        }
    )*};
}

kinds! {
    Gauge: |opts, _| Self::with_opts(opts);
    IntGauge: |opts, _| Self::with_opts(opts);
    IntCounter: |opts, _| Self::with_opts(opts);
    IntCounterVec: |opts, labels| Self::new(opts, labels);
    IntGaugeVec: |opts, labels| Self::new(opts, labels);
    HistogramVec: |opts, labels| Self::new(buckets(opts), labels);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_form_and_is_there_once() {
        let mut names: Vec<&str> = Metrics::NAMES.iter().map(|(name, _)| *name).collect();
        for (name, help) in Metrics::NAMES {
            assert!(name.starts_with("tapeline_"), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn two_nodes_in_one_process_count_apart() {
        let (one, two) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.tape_frames.inc();
        let text = String::from_utf8(one.text().unwrap()).unwrap();
        assert!(text.contains("\ntapeline_tape_frames_total 1\n"), "{text}");
        assert_eq!(two.tape_frames.get(), 0);
        assert!(cfg!(not(target_os = "linux")) || text.contains("process_resident_memory_bytes"), "{text}");
    }
}
