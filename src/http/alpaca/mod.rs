//! Market data v2, wire-compatible with Alpaca's Market Data API: history, latest values and meta tables.
//!
//! | route | answers |
//! |---|---|
//! | `/v2/stocks/{trades,quotes,bars}?symbols=` | `{"trades":{"AAPL":[…]},"next_page_token":null}` |
//! | `/v2/stocks/{symbol}/{trades,quotes,bars}` | `{"symbol":"AAPL","trades":[…],"next_page_token":null}` |
//! | latest trades, quotes, bars and snapshots | see `latest` |
//! | `/v2/stocks/meta/exchanges`, `/v2/stocks/meta/conditions/{trade,quote}?tape=` | `{"N":"New York Stock Exchange",…}` |
//! | `/v1beta1/screener/stocks/{most-actives,movers}` | see `screener` |
//! | what else Alpaca has for market data | 404 that says it is not offered |
//!
//! The feeds `sip`, `iex`, `otc`, `boats` and `delayed_sip` serve the same data. Two things are
//! ours, both opt-in or out of the body: `after=`, the `position` of an answer to
//! `POST /v1/ticks`, makes a read wait until it includes what was acknowledged; and the header
//! `X-Tapeline-Incomplete: true` says that frames of the span are lost to this region.

pub(super) mod body;
mod latest;
mod meta;
pub(super) mod query;
mod screener;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, OriginalUri, Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use axum::routing::get;

use self::body::{Frame, Item};
use self::query::{Query, Route, What};
use super::auth::Subscriber;
use super::{ApiError, ApiResult, App, Clock};
use crate::config::Config;
use crate::history::page::{PAGE_PREFIX, PageError};
use crate::history::{BarQuery, Cursor, Page, PageToken, Reader, TickQuery};
use crate::live::{Newest, Screener};
use crate::store::Span;

/// Set where ticks of the span are lost to this region.
pub(crate) const INCOMPLETE: HeaderName = HeaderName::from_static("x-tapeline-incomplete");

/// Routes of Alpaca's market data that are not offered, and the beginning of the message.
const NOT_OFFERED: &[(&str, &str)] = &[
    ("/v2/stocks/auctions", "auctions are"),
    ("/v2/stocks/{symbol}/auctions", "auctions are"),
    ("/v1beta1/screener/crypto/{*rest}", "the screener of crypto is"),
    ("/v1/corporate-actions", "corporate actions are"),
    ("/v1beta1/corporate-actions/{*rest}", "corporate actions are"),
    ("/v1beta1/events/corporate-actions", "corporate actions are"),
    ("/v1beta1/news", "news is"),
    ("/v1beta1/logos/{symbol}", "a logo is"),
    ("/v1beta1/forex/{*rest}", "foreign exchange is"),
    ("/v1beta1/options/{*rest}", "market data of options is"),
    ("/v1beta3/crypto/{*rest}", "market data of crypto is"),
];

/// What the handlers of history need of the node.
#[derive(Clone)]
pub struct MarketData {
    /// Where history comes from.
    pub reader: Arc<Reader>,
    /// Where the latest of each series comes from.
    pub newest: Arc<Newest>,
    /// The day's activity.
    pub screener: Arc<Screener>,
    /// The configuration, for its limits.
    pub config: Arc<Config>,
    /// The wall clock.
    pub clock: Clock,
}

impl FromRef<Arc<App>> for MarketData {
    fn from_ref(app: &Arc<App>) -> Self {
        Self {
            reader: Arc::clone(&app.reader),
            newest: Arc::clone(&app.newest),
            screener: Arc::clone(&app.screener),
            config: Arc::clone(&app.gate.config),
            clock: Arc::clone(&app.gate.clock),
        }
    }
}

/// The routes of market data v2.
pub fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    MarketData: FromRef<S>,
{
    let mut router = Router::new()
        .route("/v2/stocks/trades", get(many_trades))
        .route("/v2/stocks/quotes", get(many_quotes))
        .route("/v2/stocks/bars", get(many_bars))
        .route("/v2/stocks/{symbol}/trades", get(trades))
        .route("/v2/stocks/{symbol}/quotes", get(quotes))
        .route("/v2/stocks/{symbol}/bars", get(bars))
        .route("/v2/stocks/trades/latest", get(latest::trades))
        .route("/v2/stocks/quotes/latest", get(latest::quotes))
        .route("/v2/stocks/bars/latest", get(latest::bars))
        .route("/v2/stocks/{symbol}/trades/latest", get(latest::trade))
        .route("/v2/stocks/{symbol}/quotes/latest", get(latest::quote))
        .route("/v2/stocks/{symbol}/bars/latest", get(latest::bar))
        .route("/v2/stocks/snapshots", get(latest::snapshots))
        .route("/v2/stocks/{symbol}/snapshot", get(latest::snapshot))
        .route("/v1beta1/screener/stocks/most-actives", get(screener::most_actives))
        .route("/v1beta1/screener/stocks/movers", get(screener::movers))
        .route("/v2/stocks/meta/exchanges", get(meta::exchanges))
        .route("/v2/stocks/meta/conditions/{ticktype}", get(meta::conditions));
    for (path, what) in NOT_OFFERED {
        router = router.route(path, get(move |uri| not_offered(what, uri)));
    }
    router
}

async fn not_offered(what: &'static str, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::not_found(format!("{what} not offered by this server: {}", uri.path()))
        .numbered(10_000)
        .with("reason", "not_offered")
}

async fn many_trades(
    _: Subscriber,
    data: State<MarketData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    answer(&data, Route::Trades, None, query.as_deref()).await
}

async fn many_quotes(
    _: Subscriber,
    data: State<MarketData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    answer(&data, Route::Quotes, None, query.as_deref()).await
}

async fn many_bars(_: Subscriber, data: State<MarketData>, RawQuery(query): RawQuery) -> ApiResult<Response> {
    answer(&data, Route::Bars, None, query.as_deref()).await
}

async fn trades(
    _: Subscriber,
    data: State<MarketData>,
    Path(symbol): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    answer(&data, Route::Trades, Some(&symbol), query.as_deref()).await
}

async fn quotes(
    _: Subscriber,
    data: State<MarketData>,
    Path(symbol): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    answer(&data, Route::Quotes, Some(&symbol), query.as_deref()).await
}

async fn bars(
    _: Subscriber,
    data: State<MarketData>,
    Path(symbol): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    answer(&data, Route::Bars, Some(&symbol), query.as_deref()).await
}

async fn answer(
    data: &MarketData,
    route: Route,
    path_symbol: Option<&str>,
    query: Option<&str>,
) -> ApiResult<Response> {
    let reader = &data.reader;
    let limits = &data.config.history;
    let query = Query::read(route, path_symbol, query, limits, reader.keyring())?;
    let (span, cursor) = place(data, &query)?;
    if let Some(token) = &query.after
        && !reader.wait_for(token).await
    {
        let message = "this node has not yet followed the position that `after` names";
        return Err(ApiError::unavailable("after", message, 1));
    }
    let single = path_symbol.is_some();
    let Query { symbols, order, limit, .. } = query.clone();
    let body = match (query.what, query.what.kind()) {
        (What::Bars(timeframe), _) => {
            let asked = BarQuery { symbols, timeframe, span: span.clone(), order, limit, cursor };
            write(data, &query, &span, single, &reader.bars(&asked).await?)
        }
        (_, Some(kind)) => {
            let asked = TickQuery { symbols, kind, span: span.clone(), order, limit, cursor };
            write(data, &query, &span, single, &reader.ticks(&asked).await?)
        }
        (_, None) => return Err(ApiError::internal("a route that is neither of ticks nor of bars")),
    };
    let mut response = json_answer(body);
    if reader.is_incomplete(&span).await? {
        response.headers_mut().insert(INCOMPLETE, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The span and where in it the page starts: from the page token, or else from the parameters.
fn place(data: &MarketData, query: &Query) -> ApiResult<(Span, Option<Cursor>)> {
    let Some(text) = &query.page_token else {
        return Ok((query.span((data.clock)())?, None));
    };
    let opened = data.reader.keyring().open_token(PAGE_PREFIX, text).map_err(|_| PageError::Invalid);
    let token = opened.and_then(|bytes| PageToken::decode(&bytes, query.digest()));
    let token =
        token.map_err(|error| ApiError::bad_request(error.to_string()).with("field", "page_token"))?;
    Ok((token.span, Some(token.cursor)))
}

fn write<T: Item>(data: &MarketData, query: &Query, span: &Span, single: bool, page: &Page<T>) -> Vec<u8> {
    let token = page.next.map(|cursor| {
        let token = PageToken { query: query.digest(), span: span.clone(), cursor };
        data.reader.keyring().token(PAGE_PREFIX, &token.encode())
    });
    let frame = Frame {
        member: query.what.member(),
        next_page_token: token.as_deref(),
        currency: query.currency.as_deref(),
    };
    match query.symbols.first() {
        Some(symbol) if single => body::of_one(*symbol, page, &frame),
        _ => body::of_many(page, &frame),
    }
}

/// 200 with a JSON body.
pub(crate) fn json_answer(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
