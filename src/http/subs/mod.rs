//! Subscriptions, the feed of what is newest of them, and their history.
//!
//! | route | answers |
//! |---|---|
//! | `POST /v1/subscriptions` | 201 with the subscription; 200 where the same `Idempotency-Key` and body made it before |
//! | `GET /v1/subscriptions?limit=&page_token=` | `{"subscriptions":[…],"next_page_token":null}`, by id |
//! | `GET /v1/subscriptions/{id}` | the subscription |
//! | `PUT /v1/subscriptions/{id}` | the same after the change; fields that are not given stay |
//! | `DELETE /v1/subscriptions/{id}` | the same with the state `deleted` |
//! | `GET /v1/feed?subscription=` | see `feed` |
//! | `GET /v1/subscriptions/{id}/history` | see `history` |
//!
//! Each account sees its own alone. `ETag` and the field `version` name a state of a
//! subscription: a change or deletion with another `If-Match` is refused 412, one with another
//! `version` 409, one without either goes through.

mod ask;
mod feed;
mod history;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRef, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;

use self::ask::{Change, write};
use super::alpaca::{MarketData, json_answer};
use super::auth::Subscriber;
use super::params::{IDEMPOTENCY_KEY, Params, header_text, named};
use super::{ApiError, ApiResult, App};
use crate::live::Live;
use crate::market::Symbol;
use crate::subs::{Subs, Subscription, TooMany};
use crate::wire::json;

/// The prefix of page tokens of the list: they carry the last id.
const LIST_PREFIX: &str = "l1.";
const LIST_LIMIT_DEFAULT: usize = 100;
const LIST_LIMIT_MAX: usize = 1_000;

/// What the handlers need of the node.
#[derive(Clone)]
pub struct SubsData {
    /// History and the latest.
    pub market: MarketData,
    /// The subscriptions.
    pub subs: Arc<Subs>,
    /// Whose streams may be of a subscription.
    pub hubs: Vec<Arc<Live>>,
}

impl FromRef<Arc<App>> for SubsData {
    fn from_ref(app: &Arc<App>) -> Self {
        let hubs = vec![Arc::clone(&app.streams.live), Arc::clone(&app.streams.test)];
        Self { market: MarketData::from_ref(app), subs: Arc::clone(&app.subs), hubs }
    }
}

/// The routes.
pub fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    SubsData: FromRef<S>,
{
    Router::new()
        .route("/v1/subscriptions", get(list).post(create))
        .route("/v1/subscriptions/{id}", get(one).put(change).delete(delete))
        .route("/v1/subscriptions/{id}/history", get(history::history))
        .route("/v1/feed", get(feed::feed))
}

impl SubsData {
    /// Streams of a subscription end before its change is answered: ticks after the answer come as it
    /// says now.
    fn end_streams(&self, row: &Subscription, is_deleted: bool) {
        let attached = row.attached();
        let delivers = (!is_deleted).then_some(attached.delivers);
        for live in &self.hubs {
            live.hub().end_attached(&attached.account, &attached.id, delivers);
        }
    }

    /// The symbols there are, for what asks for all of them.
    async fn all_symbols(&self) -> ApiResult<Vec<Symbol>> {
        let most = self.subs.limits().feed_symbols_max;
        let page = self.market.reader.symbols("", None, most).await?;
        if page.more {
            return Err(TooMany { most }.into());
        }
        Ok(page.symbols.into_iter().map(|row| row.symbol).collect())
    }
}

async fn create(
    Subscriber(identity): Subscriber,
    State(data): State<SubsData>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<Response> {
    let key = header_text(&headers, IDEMPOTENCY_KEY)?.map(|key| named(IDEMPOTENCY_KEY, key)).transpose()?;
    let terms = Change::read(&body, data.subs.limits())?.terms()?;
    let now = (data.market.clock)();
    let (row, made) = data.subs.create(&identity.account, key.as_deref(), terms, now).await?;
    let mut response = answer(&row, "active");
    if made {
        *response.status_mut() = StatusCode::CREATED;
        if let Ok(location) = HeaderValue::from_str(&format!("/v1/subscriptions/{}", row.id)) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}

async fn list(
    Subscriber(identity): Subscriber,
    State(data): State<SubsData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["limit", "page_token"])?;
    let limit = params.count("limit", LIST_LIMIT_MAX)?.unwrap_or(LIST_LIMIT_DEFAULT);
    let keyring = data.market.reader.keyring();
    let after = params.get("page_token").map(|text| {
        let opened = keyring.open_token(LIST_PREFIX, text).ok();
        let after = opened.and_then(|bytes| String::from_utf8(bytes).ok());
        after.ok_or_else(|| ApiError::bad_request("invalid page_token").with("field", "page_token"))
    });
    let page = data.subs.list(&identity.account, after.transpose()?.as_deref(), limit).await?;
    let mut out = b"{\"subscriptions\":[".to_vec();
    for (at, row) in page.subscriptions.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(row, "active", &mut out);
    }
    out.extend_from_slice(b"],\"next_page_token\":");
    match page.subscriptions.last().filter(|_| page.more) {
        Some(last) => json::write_text(&keyring.token(LIST_PREFIX, last.id.as_bytes()), &mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Ok(json_answer(out))
}

async fn one(
    Subscriber(identity): Subscriber,
    State(data): State<SubsData>,
    Path(id): Path<String>,
) -> ApiResult<Response> {
    Ok(answer(&data.subs.get(&identity.account, &id).await?, "active"))
}

async fn change(
    Subscriber(identity): Subscriber,
    State(data): State<SubsData>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<Response> {
    let change = Change::read(&body, data.subs.limits())?;
    let expected = Expected::read(&headers, change.version)?;
    let now = (data.market.clock)();
    let apply = |row: &Subscription| {
        expected.check(row)?;
        Ok::<_, ApiError>(change.applied_to(row.terms.clone()))
    };
    let row = data.subs.change(&identity.account, &id, now, apply).await?;
    data.end_streams(&row, false);
    Ok(answer(&row, "active"))
}

async fn delete(
    Subscriber(identity): Subscriber,
    State(data): State<SubsData>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let expected = Expected::read(&headers, None)?;
    let now = (data.market.clock)();
    let row = data.subs.delete(&identity.account, &id, now, |row| expected.check(row)).await?;
    data.end_streams(&row, true);
    Ok(answer(&row, "deleted"))
}

/// Which state of a subscription a change is for.
struct Expected {
    if_match: Option<u64>,
    version: Option<u64>,
}

impl Expected {
    fn read(headers: &HeaderMap, version: Option<u64>) -> ApiResult<Self> {
        let text = header_text(headers, header::IF_MATCH.as_str())?.filter(|text| *text != "*");
        let if_match = text.map(|text| {
            let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
            let bad = || ApiError::bad_field("If-Match", text, "the ETag of the subscription, or *");
            number.parse().map_err(|_| bad())
        });
        Ok(Self { if_match: if_match.transpose()?, version })
    }

    fn check(&self, row: &Subscription) -> ApiResult<()> {
        let is_other = |expected: Option<u64>| expected.is_some_and(|version| version != row.version);
        let refused = |status, field| {
            let message =
                format!("subscription {} was changed meanwhile: it has version {}", row.id, row.version);
            Err(ApiError::new(status, message)
                .with("reason", "changed")
                .with("field", field)
                .with("expected", row.version.to_string()))
        };
        if is_other(self.if_match) {
            return refused(StatusCode::PRECONDITION_FAILED, "If-Match");
        }
        if is_other(self.version) {
            return refused(StatusCode::CONFLICT, "version");
        }
        Ok(())
    }
}

/// A subscription, with its version as `ETag`.
fn answer(row: &Subscription, state: &str) -> Response {
    let mut out = Vec::with_capacity(512);
    write(row, state, &mut out);
    let mut response = json_answer(out);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", row.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
