//! A request for history, read from its parameters.

use crate::bars::Timeframe;
use crate::config::History;
use crate::history::page::Bound;
use crate::http::ApiError;
use crate::http::params::{Edge, Params, bad_format, day, symbol};
use crate::ingest::POSITION_PREFIX;
use crate::market::{Kind, Nanos, Symbol, calendar};
use crate::seal::Keyring;
use crate::store::{Order, Span};
use crate::tape::WaitToken;
use crate::wire::beginning;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Trades,
    Quotes,
    Bars(Timeframe),
}

impl What {
    /// The kind of ticks; of bars none, for they are made of several.
    pub(crate) const fn kind(self) -> Option<Kind> {
        match self {
            Self::Trades => Some(Kind::Trade),
            Self::Quotes => Some(Kind::Quote),
            Self::Bars(_) => None,
        }
    }

    /// The member of the answer that holds it.
    pub(crate) const fn member(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::Quotes => "quotes",
            Self::Bars(_) => "bars",
        }
    }

    /// What a page token is bound to.
    fn bound(self) -> String {
        match self {
            Self::Bars(timeframe) => format!("bars {timeframe}"),
            Self::Trades | Self::Quotes => self.member().to_owned(),
        }
    }
}

/// Which of the routes for history was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Trades,
    Quotes,
    Bars,
}

/// A request for history.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) what: What,
    /// Ascending, each once.
    pub(crate) symbols: Vec<Symbol>,
    pub(crate) start: Option<Nanos>,
    pub(crate) end: Option<Nanos>,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    pub(crate) page_token: Option<String>,
    /// The currency, where it was given: it is echoed.
    pub(crate) currency: Option<String>,
    /// What the reader has seen acknowledged and wants to be included.
    pub(crate) after: Option<WaitToken>,
}

/// The directions of times, by the words of `sort`.
pub(crate) const SORT: [(&str, Order); 2] = [("asc", Order::Ascending), ("desc", Order::Descending)];

const COMMON: &[&str] = &["start", "end", "limit", "asof", "feed", "currency", "page_token", "sort", "after"];

impl Query {
    /// Reads the parameters of a route. `path_symbol` is the symbol in the path of a
    /// single-symbol route.
    ///
    /// # Errors
    /// 400, one sentence a case; the tests have the list.
    pub(crate) fn read(
        route: Route,
        path_symbol: Option<&str>,
        query: Option<&str>,
        limits: &History,
        keyring: &Keyring,
    ) -> Result<Self, ApiError> {
        let params = Params::decode(query)?;
        let mut names = COMMON.to_vec();
        if path_symbol.is_none() {
            names.push("symbols");
        }
        if route == Route::Bars {
            names.extend(["timeframe", "adjustment"]);
        }
        params.only(&names)?;
        let symbols = match path_symbol {
            Some(text) => vec![symbol(text)?],
            None => symbols(&params, limits.symbols_max)?,
        };
        let what = match route {
            Route::Trades => What::Trades,
            Route::Quotes => What::Quotes,
            Route::Bars => What::Bars(timeframe(&params)?),
        };
        if route == Route::Bars {
            check_adjustment(&params)?;
        }
        let feeds = ["sip", "iex", "otc", "boats", "delayed_sip"].map(|feed| (feed, ()));
        params.one_of("feed", &feeds)?;
        check_asof(&params)?;
        Ok(Self {
            what,
            symbols,
            start: params.time("start", Edge::First)?,
            end: params.time("end", Edge::Last)?,
            order: params.one_of("sort", &SORT)?.unwrap_or(Order::Ascending),
            limit: params.count("limit", limits.page_limit_max)?.unwrap_or(limits.page_limit_default),
            page_token: params.get("page_token").map(str::to_owned),
            currency: currency(&params)?,
            after: after(&params, keyring)?,
        })
    }

    /// What a page token of this query is bound to.
    pub(crate) fn digest(&self) -> crate::history::page::QueryDigest {
        let what = self.what.bound();
        let (start, end, order) = (self.start, self.end, self.order);
        Bound { what: &what, symbols: &self.symbols, start, end, order }.digest()
    }

    /// The span of the first page.
    ///
    /// # Errors
    /// 400 `end should not be before start`.
    pub(crate) fn span(&self, now: Nanos) -> Result<Span, ApiError> {
        span(self.start, self.end, now)
    }
}

/// The span of a first page: from the beginning of today in New York until now, where nothing else
/// is said.
///
/// # Errors
/// 400 `end should not be before start`.
pub(crate) fn span(start: Option<Nanos>, end: Option<Nanos>, now: Nanos) -> Result<Span, ApiError> {
    let today = || calendar::new_york_midnight(calendar::new_york_date(now));
    let (first, last) = (start.unwrap_or_else(today), end.unwrap_or(now));
    if first <= last {
        return Ok(first..=last);
    }
    let mut error = ApiError::bad_request("end should not be before start")
        .with("field", "end")
        .with("value", last.to_string())
        .with("expected", format!("not before {first}"));
    if start.is_none() {
        error = error.with("reason", "start_default");
    }
    Err(error)
}

pub(crate) fn symbols(params: &Params, most: usize) -> Result<Vec<Symbol>, ApiError> {
    let list = params.required("symbols", "symbols, separated by commas")?;
    let mut symbols = list.split(',').map(symbol).collect::<Result<Vec<_>, _>>()?;
    symbols.sort_unstable();
    symbols.dedup();
    if symbols.len() > most {
        return Err(ApiError::bad_request(format!("symbol limit is {most}"))
            .with("field", "symbols")
            .with("value", symbols.len())
            .with("expected", format!("at most {most} symbols")));
    }
    Ok(symbols)
}

fn timeframe(params: &Params) -> Result<Timeframe, ApiError> {
    let text = params.required("timeframe", "a timeframe such as 1Min, 1Hour or 1Day")?;
    Timeframe::parse(text).map_err(|error| {
        let expected = error.to_string();
        let expected = expected.strip_prefix("is not ").unwrap_or(&expected);
        ApiError::bad_request(format!("invalid timeframe: {}", beginning(text)))
            .with("field", "timeframe")
            .with("expected", expected)
    })
}

fn check_adjustment(params: &Params) -> Result<(), ApiError> {
    const KNOWN: [&str; 5] = ["raw", "split", "dividend", "spin-off", "all"];
    let Some(value) = params.get("adjustment") else {
        return Ok(());
    };
    if let Some(unknown) = value.split(',').find(|word| !KNOWN.contains(word)) {
        return Err(ApiError::bad_field("adjustment", unknown, "raw, split, dividend, spin-off or all"));
    }
    if value.split(',').any(|word| word != "raw") {
        let value = beginning(value);
        return Err(ApiError::bad_request(format!("adjustment {value} is not offered: prices are raw"))
            .with("field", "adjustment")
            .with("value", value)
            .with("expected", "raw"));
    }
    Ok(())
}

fn check_asof(params: &Params) -> Result<(), ApiError> {
    match params.get("asof") {
        Some(value) if value != "-" && day(value).is_none() => {
            Err(bad_format("asof", value, "YYYY-MM-DD or -"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn currency(params: &Params) -> Result<Option<String>, ApiError> {
    match params.get("currency") {
        None => Ok(None),
        Some("USD") => Ok(Some("USD".to_owned())),
        Some(other) => {
            let other = beginning(other);
            Err(ApiError::bad_request(format!("currency {other} is not offered: prices are in USD"))
                .with("field", "currency")
                .with("value", other)
                .with("expected", "USD"))
        }
    }
}

fn after(params: &Params, keyring: &Keyring) -> Result<Option<WaitToken>, ApiError> {
    let Some(text) = params.get("after") else {
        return Ok(None);
    };
    let token = keyring.open_token(POSITION_PREFIX, text).ok();
    let token = token.and_then(|bytes| WaitToken::decode(&bytes).ok());
    token.map(Some).ok_or_else(|| {
        ApiError::bad_request("invalid after")
            .with("field", "after")
            .with("expected", "the `position` that an answer to POST /v1/ticks gave")
    })
}
