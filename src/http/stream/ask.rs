//! What a client asks for with the address of its stream.

use std::time::Duration;

use super::super::params::Params;
use super::super::{ApiError, ApiResult, App};
use crate::access::Identity;
use crate::live::{ALL_SYMBOLS, Channel, Cursor, Interest, Personal, Start};
use crate::market::{Nanos, Symbol};
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
    /// What a browser shows instead of a key.
    pub(super) ticket: Option<String>,
    /// The id of a subscription that is streamed from the start.
    pub(super) subscription: Option<String>,
}

const SESSION_CHARACTERS_MAX: usize = 64;
/// Conflation this long or longer is no stream.
const CONFLATE_MS_MAX: usize = 60_000;

/// Where a cursor begins.
pub(super) fn start_of(cursor: &str, keyring: &Keyring) -> Result<Start, String> {
    let cursor = Cursor::open(cursor, keyring).map_err(|error| format!("cursor {error}"))?;
    Ok(Start::of(&cursor))
}

/// Where a time begins.
pub(super) fn start_at(time: &str) -> Result<Start, String> {
    Nanos::parse(time.as_bytes()).map(Start::Since).map_err(|error| format!("since {error}"))
}

/// What a stream of the platform is asked for.
pub(super) struct Wanted {
    /// Channels and symbols.
    pub(super) interest: Interest,
    /// What is done for it alone.
    pub(super) personal: Personal,
    /// Where it begins.
    pub(super) start: Option<Start>,
}

impl Wanted {
    /// Reads the query of `GET /v1/stream`: a list of symbols, or `*`, a channel; or a subscription.
    /// `last` is the cursor with which a browser comes again; it goes before the query's.
    pub(super) async fn read(
        app: &App,
        identity: &Identity,
        query: Option<&str>,
        last: Option<&str>,
    ) -> ApiResult<Self> {
        let params = Params::decode(query)?;
        let channels = Channel::ASKED.map(Channel::name);
        let others = ["subscription", "cursor", "since", "conflate_ms", "ticket"];
        params.only(&[&channels[..], &others[..]].concat())?;
        let bad = |name, value, why| move |_| ApiError::bad_field(name, value, why);
        let since = match params.get("since") {
            Some(time) => {
                Some(start_at(time).map_err(bad("since", time, "a time such as 2024-01-03T14:30:00Z"))?)
            }
            None => None,
        };
        let start = match last.or_else(|| params.get("cursor")) {
            Some(cursor) => {
                let start = start_of(cursor, app.reader.keyring());
                Some(start.map_err(bad("cursor", cursor, "a cursor of this service"))?)
            }
            None => since,
        };
        if let Some(id) = params.get("subscription") {
            let terms = app.subs.get(&identity.account, id).await?.terms;
            let personal = terms.personal(app.gate.config.subs.filter_symbols_max);
            return Ok(Self { interest: terms.interest(), personal, start });
        }
        let mut interest = Interest::default();
        for channel in Channel::ASKED {
            let names = params.get(channel.name()).unwrap_or_default();
            for name in names.split(',').filter(|name| !name.is_empty()) {
                if name == ALL_SYMBOLS {
                    interest.insert_all(channel);
                } else {
                    let symbol = Symbol::parse(name.as_bytes());
                    interest.insert(
                        channel,
                        symbol.map_err(|error| {
                            ApiError::bad_field(channel.name(), name, format!("symbols or *; it {error}"))
                        })?,
                    );
                }
            }
        }
        let most = app.gate.config.live.symbols_per_connection_max;
        if interest.is_empty() || interest.count() > most {
            let expected =
                format!("1 to {most} symbols, such as trades=AAPL,MSFT&bars=*, or subscription=ID");
            return Err(
                ApiError::bad_request(format!("a stream is of {expected}")).with("expected", expected)
            );
        }
        let conflate = params.count("conflate_ms", CONFLATE_MS_MAX)?;
        let conflate = conflate.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        Ok(Self { interest, personal: Personal::new(conflate, None), start })
    }
}

/// A time as text.
pub(super) fn text(time: Nanos) -> String {
    let mut text = Vec::new();
    time.write(&mut text);
    String::from_utf8(text).unwrap_or_default()
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
        let ticket = params.get("ticket").map(str::to_owned);
        let subscription = params.get("subscription").map(str::to_owned);
        Ok(Self { ext, start: cursor.or(since), conflate, session, ticket, subscription })
    }
}
