//! The latest trade, quote and bar of symbols, and snapshots.
//!
//! | route | answers |
//! |---|---|
//! | `/v2/stocks/{trades,quotes,bars}/latest?symbols=` | `{"trades":{"AAPL":{…}}}`, without the symbols that have none |
//! | `/v2/stocks/{symbol}/{trades,quotes,bars}/latest` | `{"symbol":"AAPL","trade":{…}}`, or 404 |
//! | `/v2/stocks/snapshots?symbols=` | a bare map: `{"AAPL":{"latestTrade":{…},…}}` |
//! | `/v2/stocks/{symbol}/snapshot` | `{"symbol":"AAPL","latestTrade":{…},…}`, or 404 |
//!
//! A trade that cannot update a bar's price, such as an odd lot, is no latest trade. The latest bar
//! is the last closed minute. What a snapshot has nothing of is left out.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;

use super::query::{currency, symbols};
use super::{MarketData, json_answer};
use crate::history::{BarSpan, ReadError};
use crate::http::auth::Subscriber;
use crate::http::params::{Params, symbol};
use crate::http::{ApiError, ApiResult};
use crate::live::{self, Member, Objects, Snapshot};
use crate::market::{Event, Nanos, Symbol, Tick};
use crate::wire::json;

/// The feeds: all serve the same data.
const FEEDS: [&str; 6] = ["sip", "iex", "otc", "boats", "delayed_sip", "overnight"];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Trades,
    Quotes,
    Bars,
}

impl Of {
    const fn many(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::Quotes => "quotes",
            Self::Bars => "bars",
        }
    }

    const fn one(self) -> &'static str {
        match self {
            Self::Trades => "trade",
            Self::Quotes => "quote",
            Self::Bars => "bar",
        }
    }
}

/// What was asked: symbols, ascending, each once, and the currency where it was given.
struct Ask {
    symbols: Vec<Symbol>,
    currency: Option<String>,
}

impl Ask {
    fn read(data: &MarketData, path_symbol: Option<&str>, query: Option<&str>) -> ApiResult<Self> {
        let params = Params::decode(query)?;
        match path_symbol {
            Some(_) => params.only(&["feed", "currency"])?,
            None => params.only(&["symbols", "feed", "currency"])?,
        }
        let symbols = match path_symbol {
            Some(text) => vec![symbol(text)?],
            None => symbols(&params, data.config.history.symbols_max)?,
        };
        params.one_of("feed", &FEEDS.map(|feed| (feed, ())))?;
        Ok(Self { symbols, currency: currency(&params)? })
    }

    fn write_currency(&self, out: &mut Vec<u8>) {
        if let Some(currency) = &self.currency {
            out.extend_from_slice(b",\"currency\":");
            json::write_text(currency, out);
        }
    }
}

/// Makes the two handlers of a kind.
macro_rules! handlers {
    ($many:ident, $one:ident, $of:expr) => {
        pub(super) async fn $many(
            _: Subscriber,
            State(data): State<MarketData>,
            RawQuery(query): RawQuery,
        ) -> ApiResult<Response> {
            many(&data, $of, query.as_deref()).await
        }

        pub(super) async fn $one(
            _: Subscriber,
            State(data): State<MarketData>,
            Path(symbol): Path<String>,
            RawQuery(query): RawQuery,
        ) -> ApiResult<Response> {
            one(&data, $of, &symbol, query.as_deref()).await
        }
    };
}

handlers!(trades, trade, Of::Trades);
handlers!(quotes, quote, Of::Quotes);
handlers!(bars, bar, Of::Bars);

async fn many(data: &MarketData, of: Of, query: Option<&str>) -> ApiResult<Response> {
    let ask = Ask::read(data, None, query)?;
    let now = (data.clock)();
    let mut out = Vec::with_capacity(64 + 128 * ask.symbols.len());
    out.push(b'{');
    json::write_text(of.many(), &mut out);
    out.extend_from_slice(b":{");
    let mut is_first = true;
    let objects = latest(data, of, &ask.symbols, now).await?;
    for (symbol, object) in ask.symbols.iter().zip(objects.iter()) {
        if let Some(object) = object {
            write_member(symbol.as_str(), &mut is_first, &mut out);
            out.extend_from_slice(object);
        }
    }
    out.push(b'}');
    ask.write_currency(&mut out);
    out.push(b'}');
    Ok(json_answer(out))
}

async fn one(data: &MarketData, of: Of, path: &str, query: Option<&str>) -> ApiResult<Response> {
    let ask = Ask::read(data, Some(path), query)?;
    let mut out = Vec::with_capacity(256);
    let objects = latest(data, of, &ask.symbols, (data.clock)()).await?;
    for (symbol, object) in ask.symbols.iter().zip(objects.iter()) {
        let Some(object) = object else { return Err(nothing(of.one(), *symbol)) };
        out.extend_from_slice(b"{\"symbol\":");
        json::write_text(symbol.as_str(), &mut out);
        out.push(b',');
        json::write_text(of.one(), &mut out);
        out.push(b':');
        out.extend_from_slice(object);
        ask.write_currency(&mut out);
        out.push(b'}');
    }
    Ok(json_answer(out))
}

pub(super) async fn snapshots(
    _: Subscriber,
    State(data): State<MarketData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let ask = Ask::read(&data, None, query.as_deref())?;
    let now = (data.clock)();
    let mut out = Vec::with_capacity(64 + 700 * ask.symbols.len());
    out.push(b'{');
    let mut is_first = true;
    for symbol in &ask.symbols {
        let snapshot = data.newest.snapshot(*symbol, now).await?;
        if snapshot != Snapshot::default() {
            write_member(symbol.as_str(), &mut is_first, &mut out);
            out.push(b'{');
            write_snapshot(*symbol, &snapshot, true, &mut out);
            out.push(b'}');
        }
    }
    out.push(b'}');
    Ok(json_answer(out))
}

pub(super) async fn snapshot(
    _: Subscriber,
    State(data): State<MarketData>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let ask = Ask::read(&data, Some(&path), query.as_deref())?;
    let mut out = Vec::with_capacity(768);
    for symbol in &ask.symbols {
        let snapshot = data.newest.snapshot(*symbol, (data.clock)()).await?;
        if snapshot == Snapshot::default() {
            return Err(nothing("snapshot", *symbol));
        }
        out.extend_from_slice(b"{\"symbol\":");
        json::write_text(symbol.as_str(), &mut out);
        write_snapshot(*symbol, &snapshot, false, &mut out);
        ask.write_currency(&mut out);
        out.push(b'}');
    }
    Ok(json_answer(out))
}

fn nothing(what: &str, symbol: Symbol) -> ApiError {
    ApiError::not_found(format!("no {what} found for {symbol}")).numbered(10_000).with("reason", "no_data")
}

/// The latest of each symbol, in their order.
async fn latest(data: &MarketData, of: Of, symbols: &[Symbol], now: Nanos) -> Result<Objects, ReadError> {
    let member = match of {
        Of::Trades => Member::Trade,
        Of::Quotes => Member::Quote,
        Of::Bars => Member::Bar,
    };
    let asks: Vec<live::Ask> = symbols.iter().map(|symbol| live::Ask { symbol: *symbol, member }).collect();
    data.newest.newest(&asks, now).await
}

fn write_member(name: &str, is_first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(is_first) {
        out.push(b',');
    }
    json::write_text(name, out);
    out.push(b':');
}

/// The members of a snapshot; `is_first`: nothing stands before them.
fn write_snapshot(symbol: Symbol, snapshot: &Snapshot, mut is_first: bool, out: &mut Vec<u8>) {
    let Snapshot { trade, quote, minute, day, previous_day } = snapshot;
    let trade =
        trade.as_ref().map(|trade| Tick { symbol, time: trade.time, event: Event::Trade(trade.what) });
    let quote =
        quote.as_ref().map(|quote| Tick { symbol, time: quote.time, event: Event::Quote(quote.what) });
    let bar = |bar: &Option<BarSpan>| bar.map(|bar| bar.to_tick(symbol));
    let members = [
        ("latestTrade", trade),
        ("latestQuote", quote),
        ("minuteBar", bar(minute)),
        ("dailyBar", bar(day)),
        ("prevDailyBar", bar(previous_day)),
    ];
    for (name, tick) in members.iter().filter_map(|(name, tick)| Some((name, tick.as_ref()?))) {
        write_member(name, &mut is_first, out);
        json::write_history(tick, None, out);
    }
}
