//! `GET /v1/symbols?prefix=&limit=&page_token=`: what there is, ascending.
//!
//! `{"symbols":[{"symbol":"AAPL","kinds":["trades","quotes"],"first":"…","last":"…"}],"next_page_token":null}`:
//! the kinds that a symbol has, and the event times of its earliest and latest tick. Symbols
//! that are only in the tail yet are listed too.

use axum::Router;
use axum::extract::{FromRef, RawQuery, State};
use axum::response::Response;
use axum::routing::get;

use super::alpaca::{MarketData, json_answer};
use super::auth::Subscriber;
use super::params::Params;
use super::{ApiError, ApiResult};
use crate::history::SymbolPage;
use crate::history::page::SYMBOLS_PREFIX;
use crate::market::{Kind, Nanos, Symbol};
use crate::wire::{beginning, json};

/// The routes of the list of symbols.
pub fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    MarketData: FromRef<S>,
{
    Router::new().route("/v1/symbols", get(symbols))
}

async fn symbols(_: Subscriber, data: State<MarketData>, RawQuery(query): RawQuery) -> ApiResult<Response> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["prefix", "limit", "page_token"])?;
    let limits = &data.config.history;
    let limit = params.count("limit", limits.page_limit_max)?.unwrap_or(limits.page_limit_default);
    let prefix = match params.get("prefix") {
        None => String::new(),
        Some(text) => Symbol::parse(text.as_bytes())
            .map_err(|error| {
                let expected = format!("the beginning of a symbol, and {} {error}", beginning(text));
                ApiError::bad_field("prefix", text, expected)
            })?
            .to_string(),
    };
    let keyring = data.reader.keyring();
    let after = match params.get("page_token") {
        None => None,
        Some(text) => {
            let bytes = keyring.open_token(SYMBOLS_PREFIX, text).ok();
            let after = bytes.and_then(|bytes| Symbol::parse(&bytes).ok());
            Some(
                after
                    .ok_or_else(|| ApiError::bad_request("invalid page_token").with("field", "page_token"))?,
            )
        }
    };
    let page = data.reader.symbols(&prefix, after, limit).await?;
    let last = page.symbols.last().filter(|_| page.more);
    let token = last.map(|row| keyring.token(SYMBOLS_PREFIX, row.symbol.as_str().as_bytes()));
    Ok(json_answer(write(&page, token.as_deref())))
}

fn write(page: &SymbolPage, token: Option<&str>) -> Vec<u8> {
    let mut out = b"{\"symbols\":[".to_vec();
    for (at, row) in page.symbols.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"symbol\":");
        json::write_text(row.symbol.as_str(), &mut out);
        out.extend_from_slice(b",\"kinds\":[");
        let kinds = Kind::ALL.into_iter().filter(|kind| row.kinds & (1 << kind.number()) != 0);
        for (at, kind) in kinds.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            json::write_text(kind.plural(), &mut out);
        }
        out.extend_from_slice(b"],\"first\":");
        write_time(row.first, &mut out);
        out.extend_from_slice(b",\"last\":");
        write_time(row.last, &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"next_page_token\":");
    match token {
        Some(token) => json::write_text(token, &mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    out
}

fn write_time(time: Nanos, out: &mut Vec<u8>) {
    out.push(b'"');
    time.write(out);
    out.push(b'"');
}
