//! The screener.
//!
//! | route | answers |
//! |---|---|
//! | `/v1beta1/screener/stocks/most-actives?by=volume&top=10` | `{"most_actives":[{"symbol":"AAPL","volume":…,"trade_count":…}],"last_updated":"…"}` |
//! | `/v1beta1/screener/stocks/movers?top=10` | `{"gainers":[{"symbol":"AAPL","percent_change":…,"change":…,"price":…}],"losers":[…],"market_type":"stocks","last_updated":"…"}` |
//!
//! Both are made of what came live on the newest day since this node began, and the header
//! `X-Tapeline-Since` says since when. A mover's change is that since the close of the day before.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::MarketData;
use crate::http::auth::Subscriber;
use crate::http::params::Params;
use crate::http::{ApiError, ApiResult};
use crate::live::{By, Mover};
use crate::market::Price;

const SINCE: HeaderName = HeaderName::from_static("x-tapeline-since");
const TOP_DEFAULT: usize = 10;
const ACTIVES_MAX: usize = 100;
const MOVERS_MAX: usize = 50;
/// Digits after the point of a change in percent.
const PERCENT_STEPS: f64 = 10_000.0;

pub(super) async fn most_actives(
    _: Subscriber,
    State(data): State<MarketData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["by", "top"])?;
    let by = params.one_of("by", &[("volume", By::Volume), ("trades", By::Trades)])?.unwrap_or(By::Volume);
    let top = params.count("top", ACTIVES_MAX)?.unwrap_or(TOP_DEFAULT);
    let list: Vec<Value> = data
        .screener
        .most_active(by, top)
        .iter()
        .map(|active| {
            json!({
                "symbol": active.symbol.as_str(),
                "volume": active.volume,
                "trade_count": active.trades,
            })
        })
        .collect();
    answer(&data, json!({"most_actives": list, "last_updated": (data.clock)().to_string()}))
}

pub(super) async fn movers(
    _: Subscriber,
    State(data): State<MarketData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["top"])?;
    let top = params.count("top", MOVERS_MAX)?.unwrap_or(TOP_DEFAULT);
    let [gainers, losers] = data.screener.movers(top).await?.map(|list| list.iter().map(told).collect());
    let (gainers, losers): (Vec<Value>, Vec<Value>) = (gainers, losers);
    answer(
        &data,
        json!({
            "gainers": gainers,
            "losers": losers,
            "market_type": "stocks",
            "last_updated": (data.clock)().to_string(),
        }),
    )
}

fn told(mover: &Mover) -> Value {
    let change = Price(mover.change()).to_f64();
    let percent = change / mover.previous.to_f64() * 100.0;
    json!({
        "symbol": mover.symbol.as_str(),
        "percent_change": (percent * PERCENT_STEPS).round() / PERCENT_STEPS,
        "change": change,
        "price": mover.price.to_f64(),
    })
}

fn answer(data: &MarketData, body: Value) -> ApiResult<Response> {
    let mut response = Json(body).into_response();
    let since = HeaderValue::from_str(&data.screener.since().to_string());
    let since = since.map_err(|error| ApiError::internal(&error.to_string()))?;
    response.headers_mut().insert(SINCE, since);
    Ok(response)
}
