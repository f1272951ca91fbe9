//! `GET /v1/subscriptions/{id}/history?kind=&start=&end=&sort=&limit=&page_token=`: the history of a
//! subscription's symbols in one sequence of pages.
//!
//! A page is that of `/v2/stocks/…`: `{"trades":{"AAPL":[…]},"next_page_token":"…"}`. With `kind` it
//! is that kind alone. Without it the kinds of the subscription come one after the other, each
//! page holds one of them and is named by it, and the last page of the last kind has no token.
//! `bars` are those of a minute; `updatedBars` are the same bars in history and are not told
//! twice. Filters and conflation do not apply: history is whole. A token is bound to the
//! subscription's version: after a change the pages begin anew.

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderValue;
use axum::response::Response;

use super::SubsData;
use crate::bars::Timeframe;
use crate::history::page::{Bound, PageError, QueryDigest};
use crate::history::{BarQuery, Cursor, Page, PageToken, Resume, TickQuery};
use crate::http::alpaca::body::{self, Frame, Item};
use crate::http::alpaca::query::{SORT, span};
use crate::http::alpaca::{INCOMPLETE, json_answer};
use crate::http::auth::Subscriber;
use crate::http::params::{Edge, Params};
use crate::http::{ApiError, ApiResult};
use crate::live::Channel;
use crate::market::Symbol;
use crate::store::{Order, Span};
use crate::subs::{Subscription, Symbols};

/// The prefix of page tokens: they carry the channel's number and then a page token's bytes.
const HISTORY_PREFIX: &str = "h1.";

/// What is asked for.
struct Ask {
    /// The kinds that come, in order.
    channels: Vec<Channel>,
    order: Order,
    limit: usize,
    span: Span,
    digest: QueryDigest,
    /// Where the page starts, where it is not the first.
    place: Option<(Channel, Cursor)>,
}

pub(super) async fn history(
    Subscriber(identity): Subscriber,
    State(data): State<SubsData>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let row = data.subs.get(&identity.account, &id).await?;
    let ask = Ask::read(&data, &row, query.as_deref())?;
    let symbols = match &row.terms.symbols {
        Symbols::Listed(symbols) => symbols.clone(),
        Symbols::All => data.all_symbols().await?,
    };
    let begin = ask.place.map_or_else(|| ask.channels.first().copied(), |(channel, _)| Some(channel));
    let at = ask.channels.iter().position(|channel| Some(*channel) == begin).unwrap_or_default();
    let mut out = Vec::new();
    let mut cursor = ask.place.map(|(_, cursor)| cursor);
    for (at, channel) in ask.channels.iter().enumerate().skip(at) {
        let then = ask.channels.get(at + 1).copied();
        let (body, is_empty) = page(&data, &ask, &symbols, *channel, cursor.take(), then).await?;
        out = body;
        // A kind of which there is nothing makes no page of its own.
        if !is_empty || then.is_none() {
            break;
        }
    }
    let mut response = json_answer(out);
    if data.market.reader.is_incomplete(&ask.span).await? {
        response.headers_mut().insert(INCOMPLETE, HeaderValue::from_static("true"));
    }
    Ok(response)
}

impl Ask {
    fn read(data: &SubsData, row: &Subscription, query: Option<&str>) -> ApiResult<Self> {
        let params = Params::decode(query)?;
        params.only(&["kind", "start", "end", "sort", "limit", "page_token"])?;
        let limits = &data.market.config.history;
        let mut channels: Vec<Channel> = row.terms.channels.iter().collect();
        if channels.contains(&Channel::Bars) {
            channels.retain(|channel| *channel != Channel::UpdatedBars);
        }
        let kind = params.get("kind");
        if let Some(kind) = kind {
            channels = vec![of_kind(row, kind)?];
        }
        let (start, end) = (params.time("start", Edge::First)?, params.time("end", Edge::Last)?);
        let order = params.one_of("sort", &SORT)?.unwrap_or(Order::Ascending);
        let limit = params.count("limit", limits.page_limit_max)?.unwrap_or(limits.page_limit_default);
        let what = format!("subscription {} {} {}", row.id, row.version, kind.unwrap_or("*"));
        let digest = Bound { what: &what, symbols: &[], start, end, order }.digest();
        let (span, place) = match params.get("page_token") {
            None => (span(start, end, (data.market.clock)())?, None),
            Some(text) => {
                let (channel, token) = open(data, text, digest).map_err(refused)?;
                (token.span, Some((channel, token.cursor)))
            }
        };
        Ok(Self { channels, order, limit, span, digest, place })
    }
}

fn of_kind(row: &Subscription, kind: &str) -> ApiResult<Channel> {
    let channels = row.terms.channels;
    let channel = Channel::named(kind).filter(|channel| channels.contains(*channel));
    channel.ok_or_else(|| {
        let known: Vec<&str> = channels.iter().map(Channel::name).collect();
        ApiError::bad_field("kind", kind, format!("a kind of the subscription: {}", known.join(", ")))
    })
}

fn open(data: &SubsData, text: &str, digest: QueryDigest) -> Result<(Channel, PageToken), PageError> {
    let bytes = data.market.reader.keyring().open_token(HISTORY_PREFIX, text);
    let bytes = bytes.map_err(|_| PageError::Invalid)?;
    let (number, token) = bytes.split_first().ok_or(PageError::Invalid)?;
    let channel = Channel::ALL.into_iter().find(|channel| channel.number() == *number);
    Ok((channel.ok_or(PageError::Invalid)?, PageToken::decode(token, digest)?))
}

fn refused(error: PageError) -> ApiError {
    let message = match error {
        PageError::Invalid => "invalid page_token",
        PageError::OtherQuery => {
            "invalid page_token: it belongs to another query, or the subscription was changed; start again without it"
        }
    };
    ApiError::bad_request(message).with("field", "page_token")
}

/// A page of a kind, and whether it holds nothing; `then` is the kind that comes behind it.
async fn page(
    data: &SubsData,
    ask: &Ask,
    symbols: &[Symbol],
    channel: Channel,
    cursor: Option<Cursor>,
    then: Option<Channel>,
) -> ApiResult<(Vec<u8>, bool)> {
    let reader = &data.market.reader;
    let (symbols_asked, span, order, limit) = (symbols.to_vec(), ask.span.clone(), ask.order, ask.limit);
    let timeframe = match channel {
        Channel::Bars | Channel::UpdatedBars => Timeframe::parse("1Min").ok(),
        Channel::DailyBars => Timeframe::parse("1Day").ok(),
        _ => None,
    };
    let next = Next { data, ask, channel, then, first: symbols.first().copied() };
    Ok(match timeframe {
        Some(timeframe) => {
            let query = BarQuery { symbols: symbols_asked, timeframe, span, order, limit, cursor };
            next.write(&reader.bars(&query).await?)
        }
        None => {
            let query =
                TickQuery { symbols: symbols_asked, kind: channel.kind(), span, order, limit, cursor };
            next.write(&reader.ticks(&query).await?)
        }
    })
}

/// Where the page behind one starts.
struct Next<'a> {
    data: &'a SubsData,
    ask: &'a Ask,
    channel: Channel,
    then: Option<Channel>,
    first: Option<Symbol>,
}

impl Next<'_> {
    fn write<T: Item>(&self, page: &Page<T>) -> (Vec<u8>, bool) {
        let is_empty = page.series.iter().all(|(_, items)| items.is_empty()) && page.next.is_none();
        let token = self.token(page.next);
        let frame = Frame { member: self.channel.name(), next_page_token: token.as_deref(), currency: None };
        (body::of_many(page, &frame), is_empty)
    }

    fn token(&self, next: Option<Cursor>) -> Option<String> {
        let (channel, cursor) = match (next, self.then, self.first) {
            (Some(cursor), ..) => (self.channel, cursor),
            (None, Some(then), Some(symbol)) => (then, Cursor { symbol, resume: Resume::Start }),
            (None, ..) => return None,
        };
        let token = PageToken { query: self.ask.digest, span: self.ask.span.clone(), cursor };
        let mut bytes = vec![channel.number()];
        bytes.extend_from_slice(&token.encode());
        Some(self.data.market.reader.keyring().token(HISTORY_PREFIX, &bytes))
    }
}
