//! What a client asks for with the address of its stream.

use std::sync::Arc;
use std::time::Duration;

use super::super::params::Params;
use crate::live::{Cursor, Start};
use crate::market::Nanos;
use crate::seal::Keyring;

/// The parameters of a stream. None of them is Alpaca's.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// The client takes messages that Alpaca has not.
    pub(super) ext: bool,
    /// Where it begins.
    pub(super) start: Option<Start>,
    /// Of each symbol the latest quote alone, so often.
    pub(super) conflate: Option<Duration>,
    /// The name of its session.
    pub(super) session: Option<String>,
}

const SESSION_CHARACTERS_MAX: usize = 64;
/// Conflation this long or longer is no stream.
const CONFLATE_MS_MAX: usize = 60_000;

/// Where a cursor begins.
pub(super) fn start_of(cursor: &str, keyring: &Keyring) -> Result<Start, String> {
    let cursor = Cursor::open(cursor, keyring).map_err(|error| format!("cursor {error}"))?;
    Ok(Start::After(Arc::new(cursor.position), cursor.at))
}

/// Where a time begins.
pub(super) fn start_at(time: &str) -> Result<Start, String> {
    Nanos::parse(time.as_bytes()).map(Start::Since).map_err(|error| format!("since {error}"))
}

impl Ask {
    /// Reads a query. What it cannot read is told in words: a stream has no status to say it with.
    /// What it does not know is let go, as SDKs may send parameters of others.
    pub(super) fn read(query: Option<&str>, keyring: &Keyring) -> Result<Self, String> {
        let params = Params::decode(query).map_err(|error| error.message().to_owned())?;
        let cursor = params.get("cursor").map(|cursor| start_of(cursor, keyring)).transpose()?;
        let since = params.get("since").map(start_at).transpose()?;
        let session = params.get("session").map(str::to_owned);
        if session.as_ref().is_some_and(|session| session.len() > SESSION_CHARACTERS_MAX) {
            return Err(format!("session has at most {SESSION_CHARACTERS_MAX} characters"));
        }
        let conflate =
            params.count("conflate_ms", CONFLATE_MS_MAX).map_err(|error| error.message().to_owned())?;
        let conflate = conflate.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        let ext = matches!(params.get("ext"), Some("1" | "true"));
        Ok(Self { ext, start: cursor.or(since), conflate, session })
    }
}
