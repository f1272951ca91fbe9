//! The subscriber of the logs.
//!
//! What is logged while a request is answered names it ([`naming`]): a span a request would cost
//! more than the answer's own lookups, and mostly nothing is logged.

use std::io;
use std::sync::Arc;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "telemetry.log_level = {0:?} must be a level or directives such as \"info,tapeline::http=debug\""
    )]
    Filter(String),
    /// This process logs already.
    #[error("logs are set up already")]
    Twice,
}

tokio::task_local! {
    static REQUEST_ID: Arc<str>;
}

/// Runs this so that every line that it logs has the request's id.
pub async fn naming<T>(request_id: Arc<str>, answered: impl Future<Output = T>) -> T {
    REQUEST_ID.scope(request_id, answered).await
}

/// Lines of another format with the id of the request under way at their end.
struct Named<F> {
    format: F,
    is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Named<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let Ok(id) = REQUEST_ID.try_with(Arc::clone) else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        // Ids are words: nothing of them is escaped.
        match line.trim_end().strip_suffix('}').filter(|_| self.is_json) {
            Some(fields) => writeln!(writer, "{fields},\"request_id\":\"{id}\"}}"),
            None => writeln!(writer, "{} request_id=\"{id}\"", line.trim_end()),
        }
    }
}

/// A subscriber that writes to `writer` as configured.
///
/// # Errors
/// [`LogError::Filter`] when the level cannot be read.
pub fn subscriber<W>(config: &config::Telemetry, writer: W) -> Result<impl Subscriber + use<W>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter: Targets = config.log_level.parse().map_err(|_| LogError::Filter(config.log_level.clone()))?;
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        config::LogFormat::Human => {
            let format = Named { format: fmt::format().with_ansi(false), is_json: false };
            fmt::layer().with_ansi(false).event_format(format).with_writer(writer).boxed()
        }
        config::LogFormat::Json => {
            let json = fmt::format().json().flatten_event(true).with_span_list(false);
            let format = Named { format: json, is_json: true };
            fmt::layer().json().event_format(format).with_writer(writer).boxed()
        }
    };
    Ok(tracing_subscriber::registry().with(lines.with_filter(filter)))
}

/// Makes the process log to standard error. For the command line alone; a library or a test
/// that wants logs sets a subscriber of its own.
///
/// # Errors
/// [`LogError`]
pub fn install(config: &config::Telemetry) -> Result<(), LogError> {
    let subscriber = subscriber(config, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::config::{Config, Credentials};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(sets: &[&str], log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let config = Config::with(sets).unwrap();
        let writer = memory.clone();
        let subscriber = subscriber(&config.telemetry, move || writer.clone()).unwrap();
        // Where there is one subscriber alone, a place that another test's thread reaches first is silent.
        let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = memory.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_for_people_or_json() {
        let log = || tracing::info!(lag_ms = 7, "caught up");
        let human = logged(&[], log);
        assert!(human.contains("caught up") && human.contains("lag_ms=7"), "{human}");
        let json = logged(&["telemetry.log_format=json"], log);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["message"], "caught up");
        assert_eq!(line["lag_ms"], 7);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_line_names_the_request_under_way() {
        let named = |sets: &[&str]| {
            logged(sets, || {
                let request = naming("r-1".into(), async { tracing::warn!(shard = 3, "inside") });
                tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(request);
                tracing::warn!("outside");
            })
        };
        let human = named(&[]);
        let lines: Vec<&str> = human.lines().collect();
        assert!(lines[0].ends_with("inside shard=3 request_id=\"r-1\""), "{human}");
        assert!(lines.len() == 2 && lines[1].ends_with("outside"), "{human}");
        let json = named(&["telemetry.log_format=json"]);
        let lines: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["request_id"], &lines[0]["shard"]), (&"r-1".into(), &3.into()));
        assert!(lines.len() == 2 && lines[1]["request_id"].is_null(), "{json}");
    }

    #[test]
    fn the_filter_is_by_level_and_by_module() {
        let log = || {
            tracing::info!("seen");
            tracing::debug!("hidden");
            tracing::debug!(target: "tapeline::tape", "chosen");
        };
        let text = logged(&["telemetry.log_level=info,tapeline::tape=debug"], log);
        assert!(text.contains("seen") && text.contains("chosen") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn a_secret_never_appears() {
        let canary = "canaryCANARYcanaryCANARYcanaryCANARYcanaryA";
        let config = Config::with(&[&format!("store.seal_key={canary}")]).unwrap();
        let credentials = Credentials { secret: Some(canary.into()), ..Credentials::default() };
        for format in ["human", "json"] {
            let text = logged(&[&format!("telemetry.log_format={format}")], || {
                tracing::error!(?config, ?credentials, "everything there is");
            });
            assert!(text.contains("everything there is") && text.contains("node-1"), "{text}");
            assert!(!text.contains(canary), "{text}");
        }
    }
}
