//! A chart adapter: TradingView's UDF over history and latest values, for charting libraries that
//! poll.
//!
//! | route | answers |
//! |---|---|
//! | `/udf/config` | what this adapter can |
//! | `/udf/symbols?symbol=` | what a chart must know of a symbol, or 404 |
//! | `/udf/search?query=&limit=` | symbols that begin with the query |
//! | `/udf/history?symbol=&from=&to=&resolution=&countback=` | bars as columns ([`history`]) |
//! | `/udf/quotes?symbols=` | last price, change, bid and ask |
//! | `/udf/time` | seconds since 1970, as text |
//!
//! A key is shown by its headers or by the cookie of [`super::ticket`]. An error has its right
//! status and is the one envelope, with `s` and `errmsg` beside it for the libraries. There are
//! no marks: nothing here knows of news or orders.

mod history;
#[cfg(test)]
mod tests;

use axum::extract::{FromRef, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::alpaca::MarketData;
use super::auth::Subscriber;
use super::params::{Params, symbol};
use super::{ApiError, ApiResult};
use crate::live::Snapshot;
use crate::market::{Nanos, Price, Symbol};

/// Bars that may be asked for, in the words of the protocol.
const RESOLUTIONS: [&str; 11] = ["1", "5", "15", "30", "60", "240", "1D", "1W", "1M", "3M", "12M"];
/// Symbols that a search answers where it names no limit.
const SEARCH_DEFAULT: usize = 30;
/// Where all symbols are listed: which exchange is the primary one is not known here.
const EXCHANGE: &str = "US";

/// The routes of the chart adapter.
pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    MarketData: FromRef<S>,
{
    Router::new()
        .route("/udf/config", get(config))
        .route("/udf/symbols", get(symbols))
        .route("/udf/search", get(search))
        .route("/udf/history", get(bars))
        .route("/udf/quotes", get(quotes))
        .route("/udf/time", get(time))
}

/// What the libraries show of an error.
fn told(error: ApiError) -> ApiError {
    let message = error.message().to_owned();
    error.with("s", "error").with("errmsg", message)
}

async fn config(_: Subscriber) -> Json<Value> {
    Json(json!({
        "supports_search": true,
        "supports_group_request": false,
        "supports_marks": false,
        "supports_timescale_marks": false,
        "supports_time": true,
        "supported_resolutions": RESOLUTIONS,
        "exchanges": [{"value": EXCHANGE, "name": EXCHANGE, "desc": "All exchanges of the United States"}],
        "symbols_types": [{"name": "Stock", "value": "stock"}],
    }))
}

async fn time(_: Subscriber, State(data): State<MarketData>) -> Response {
    let seconds = (data.clock)().0 / Nanos::SECOND;
    ([(header::CONTENT_TYPE, "text/plain")], seconds.to_string()).into_response()
}

async fn symbols(
    _: Subscriber,
    data: State<MarketData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    symbol_info(&data, query.as_deref()).await.map(Json).map_err(told)
}

async fn search(_: Subscriber, data: State<MarketData>, RawQuery(query): RawQuery) -> ApiResult<Json<Value>> {
    found(&data, query.as_deref()).await.map(Json).map_err(told)
}

async fn bars(_: Subscriber, data: State<MarketData>, RawQuery(query): RawQuery) -> ApiResult<Response> {
    history::answer(&data, query.as_deref()).await.map_err(told)
}

async fn quotes(_: Subscriber, data: State<MarketData>, RawQuery(query): RawQuery) -> ApiResult<Json<Value>> {
    latest(&data, query.as_deref()).await.map(Json).map_err(told)
}

/// The symbol that a library names, perhaps with an exchange before it.
fn named(params: &Params) -> ApiResult<Symbol> {
    let text = params.required("symbol", "a symbol such as AAPL")?;
    symbol(text.rsplit_once(':').map_or(text, |(_, name)| name))
}

async fn symbol_info(data: &MarketData, query: Option<&str>) -> ApiResult<Value> {
    let params = Params::decode(query)?;
    params.only(&["symbol"])?;
    let symbol = named(&params)?;
    let known = data.reader.symbols(symbol.as_str(), None, 1).await?;
    if known.symbols.first().is_none_or(|row| row.symbol != symbol) {
        let error = ApiError::not_found(format!("unknown_symbol {symbol}"));
        return Err(error.with("reason", "no_data").with("field", "symbol"));
    }
    // Below a dollar prices move by hundredths of a cent.
    let last = data.newest.trade(symbol, (data.clock)()).await?;
    let pricescale = if last.is_some_and(|last| last.what.price < Price(Price::ONE)) { 10_000 } else { 100 };
    Ok(json!({
        "name": symbol.as_str(),
        "ticker": symbol.as_str(),
        "description": symbol.as_str(),
        "type": "stock",
        "session": "0930-1600",
        "timezone": "America/New_York",
        "exchange": EXCHANGE,
        "listed_exchange": EXCHANGE,
        "minmov": 1,
        "pricescale": pricescale,
        "has_intraday": true,
        "has_daily": true,
        "has_weekly_and_monthly": true,
        "supported_resolutions": RESOLUTIONS,
        "data_status": "streaming",
        "volume_precision": 0,
    }))
}

async fn found(data: &MarketData, query: Option<&str>) -> ApiResult<Value> {
    let params = Params::decode(query)?;
    params.only(&["query", "type", "exchange", "limit"])?;
    let limit = params.count("limit", data.config.history.page_limit_max)?.unwrap_or(SEARCH_DEFAULT);
    let of_type = params.get("type").is_none_or(|kind| kind == "stock");
    let of_exchange = params.get("exchange").is_none_or(|exchange| exchange == EXCHANGE);
    let typed = params.get("query").unwrap_or_default().to_ascii_uppercase();
    // What is no beginning of a symbol, such as a company's name, finds nothing.
    let is_prefix = typed.is_empty() || Symbol::parse(typed.as_bytes()).is_ok();
    if !(of_type && of_exchange && is_prefix) {
        return Ok(json!([]));
    }
    let page = data.reader.symbols(&typed, None, limit).await?;
    let entry = |symbol: &str| {
        json!({
            "symbol": symbol,
            "full_name": symbol,
            "ticker": symbol,
            "description": symbol,
            "exchange": EXCHANGE,
            "type": "stock",
        })
    };
    Ok(page.symbols.iter().map(|row| entry(row.symbol.as_str())).collect())
}

async fn latest(data: &MarketData, query: Option<&str>) -> ApiResult<Value> {
    let params = Params::decode(query)?;
    params.only(&["symbols"])?;
    let texts: Vec<&str> = params.required("symbols", "symbols with commas between")?.split(',').collect();
    let most = data.config.history.symbols_max;
    if texts.len() > most {
        return Err(ApiError::bad_field("symbols", "", format!("at most {most} symbols")));
    }
    let now = (data.clock)();
    let mut quotes = Vec::with_capacity(texts.len());
    for text in texts {
        let symbol = symbol(text)?;
        let snapshot = data.newest.snapshot(symbol, now).await?;
        let name = symbol.as_str();
        let Some(last) = &snapshot.trade else {
            quotes.push(json!({"s": "error", "n": name, "errmsg": "no data", "v": {}}));
            continue;
        };
        let v = values(name, last.what.price.to_f64(), &snapshot);
        quotes.push(json!({"s": "ok", "n": name, "v": v}));
    }
    Ok(json!({"s": "ok", "d": quotes}))
}

/// What is known of a symbol; what is not known is left out.
fn values(name: &str, lp: f64, snapshot: &Snapshot) -> Map<String, Value> {
    let mut v = Map::new();
    let mut tell = |field: &str, value: Value| {
        v.insert(field.to_owned(), value);
    };
    for field in ["short_name", "description"] {
        tell(field, name.into());
    }
    tell("exchange", EXCHANGE.into());
    tell("lp", lp.into());
    if let Some(quote) = &snapshot.quote {
        tell("ask", quote.what.ask_price.to_f64().into());
        tell("bid", quote.what.bid_price.to_f64().into());
    }
    if let Some(day) = &snapshot.day {
        tell("open_price", day.bar.open.to_f64().into());
        tell("high_price", day.bar.high.to_f64().into());
        tell("low_price", day.bar.low.to_f64().into());
        tell("volume", day.bar.volume.into());
    }
    if let Some(before) = &snapshot.previous_day {
        let close = before.bar.close.to_f64();
        tell("prev_close_price", close.into());
        tell("ch", (lp - close).into());
        tell("chp", (if close > 0.0 { (lp - close) / close * 100.0 } else { 0.0 }).into());
    }
    v
}
