//! What a client asks for with the address of its stream.

use std::time::Duration;

use super::super::params::Params;
use super::super::{ApiError, ApiResult, App};
use crate::access::Identity;
use crate::live::{ALL_SYMBOLS, Attached, Channel, Cursor, Interest, Personal, Start};
use crate::market::{Nanos, Symbol};
use crate::seal::Keyring;
use crate::subs::Subscription;

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

/// Their names.
const PARAMETERS: [&str; 7] = ["ext", "cursor", "since", "conflate_ms", "session", "ticket", "subscription"];
pub(super) const SESSION_CHARACTERS_MAX: usize = 64;
/// Conflation this long or longer is no stream.
pub(super) const CONFLATE_MS_MAX: usize = 60_000;

/// Where a cursor begins.
///
/// # Errors
/// 400 that names `cursor`.
pub(super) fn start_of(cursor: &str, keyring: &Keyring) -> ApiResult<Start> {
    match Cursor::open(cursor, keyring) {
        Ok(cursor) => Ok(Start::of(&cursor)),
        Err(error) => {
            let expected = format!("the last cursor of a stream of this service; this one {error}");
            Err(ApiError::bad_field("cursor", cursor, expected))
        }
    }
}

/// Where a time begins.
///
/// # Errors
/// 400 that names `since`.
pub(super) fn start_at(time: &str) -> ApiResult<Start> {
    Nanos::parse(time.as_bytes()).map(Start::Since).map_err(|error| {
        ApiError::bad_field("since", time, format!("a time such as 2024-01-03T14:30:00Z; this one {error}"))
    })
}

/// What a subscription says is not said twice.
fn refuse_beside_subscription<'n>(
    params: &Params,
    mut names: impl Iterator<Item = &'n str>,
) -> ApiResult<()> {
    let said = names.find_map(|name| params.get(name).map(|value| (name, value)));
    said.map_or(Ok(()), |(name, value)| {
        Err(ApiError::bad_field(name, value, "left out beside subscription, which says it"))
    })
}

fn conflate_of(params: &Params) -> ApiResult<Option<Duration>> {
    let ms = params.count("conflate_ms", CONFLATE_MS_MAX)?;
    Ok(ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis))
}

/// What a stream of the platform is asked for.
pub(super) struct Wanted {
    /// Channels and symbols.
    pub(super) interest: Interest,
    /// What is done for it alone.
    pub(super) personal: Personal,
    /// Where it begins.
    pub(super) start: Option<Start>,
    /// The subscription that it is of.
    pub(super) attached: Option<Attached>,
}

impl Wanted {
    /// What a subscription is streamed with.
    pub(super) fn of(app: &App, subscription: &Subscription, start: Option<Start>) -> Self {
        let terms = &subscription.terms;
        Self {
            interest: terms.interest(),
            personal: terms.personal(app.gate.config.subs.filter_symbols_max),
            start,
            attached: Some(subscription.attached()),
        }
    }

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
        let since = params.get("since").map(start_at).transpose()?;
        let cursor = last.or_else(|| params.get("cursor"));
        let cursor = cursor.map(|cursor| start_of(cursor, app.reader.keyring())).transpose()?;
        let start = cursor.or(since);
        if let Some(id) = params.get("subscription") {
            refuse_beside_subscription(&params, channels.into_iter().chain(["conflate_ms"]))?;
            return Ok(Self::of(app, &app.subs.get(&identity.account, id).await?, start));
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
        Ok(Self { interest, personal: Personal::new(conflate_of(&params)?, None), start, attached: None })
    }
}

/// A time as text.
pub(super) fn text(time: Nanos) -> String {
    let mut text = Vec::new();
    time.write(&mut text);
    String::from_utf8(text).unwrap_or_default()
}

impl Ask {
    /// Reads a query. SDKs may send parameters of others: they are let go where none of ours is
    /// there, else they may be ours misspelt.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(super) fn read(query: Option<&str>, keyring: &Keyring) -> ApiResult<Self> {
        let params = Params::decode(query)?;
        if PARAMETERS.iter().any(|name| params.has(name)) {
            params.only(&PARAMETERS)?;
        }
        let cursor = params.get("cursor").map(|cursor| start_of(cursor, keyring)).transpose()?;
        let since = params.get("since").map(start_at).transpose()?;
        let session = params.get("session").map(str::to_owned);
        if let Some(long) = session.as_ref().filter(|session| session.len() > SESSION_CHARACTERS_MAX) {
            let expected = format!("at most {SESSION_CHARACTERS_MAX} characters");
            return Err(ApiError::bad_field("session", long, expected));
        }
        if params.has("subscription") {
            refuse_beside_subscription(&params, ["conflate_ms"].into_iter())?;
        }
        let ext = params.one_of("ext", &[("1", true), ("true", true), ("0", false), ("false", false)])?;
        Ok(Self {
            ext: ext.unwrap_or_default(),
            start: cursor.or(since),
            conflate: conflate_of(&params)?,
            session,
            ticket: params.get("ticket").map(str::to_owned),
            subscription: params.get("subscription").map(str::to_owned),
        })
    }
}
