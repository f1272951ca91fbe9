//! The subscriber of the logs.

use std::io;

use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
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
        config::LogFormat::Human => fmt::layer().with_ansi(false).with_writer(writer).boxed(),
        config::LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer).boxed()
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
