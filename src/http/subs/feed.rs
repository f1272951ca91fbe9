//! `GET /v1/feed`: what is newest of everything that the caller subscribes to.
//!
//! `{"as_of":"…","symbols":{"AAPL":{"trade":{…},"quote":{…},"bar":{…},"dailyBar":{…},"status":{…},"luld":{…}}}}`
//!
//! Each symbol once, with the members of the kinds that any active subscription (or that of
//! `?subscription=`) has, in the objects of history; what there is nothing of is left out. `bars`
//! and `updatedBars` both make `bar`: the last closed minute with what late trades made of it.
//! Corrections and cancels are in what they amend. Filters and conflation are for what is
//! delivered as it comes; the newest is told as it is.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::SubsData;
use super::ask::write_time;
use crate::http::alpaca::json_answer;
use crate::http::auth::Subscriber;
use crate::http::params::Params;
use crate::http::{ApiError, ApiResult};
use crate::live::Channel;
use crate::live::{Ask, Member, Objects};
use crate::market::{Nanos, Symbol};
use crate::subs::{Channels, Plan, TooMany};
use crate::wire::json;

/// Bytes of a member, for the buffer's first size.
const MEMBER_BYTES: usize = 150;

pub(super) async fn feed(
    Subscriber(identity): Subscriber,
    State(data): State<SubsData>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["subscription"])?;
    let asks = match params.get("subscription") {
        Some(id) => {
            let row = data.subs.get(&identity.account, id).await?;
            asks(&data, &Plan::of([&row], data.subs.limits().feed_symbols_max)?).await?
        }
        None => asks(&data, &*data.subs.plan(&identity.account).await??).await?,
    };
    let now = (data.market.clock)();
    let objects = data.market.newest.newest(&asks, now).await?;
    Ok(json_answer(write(&asks, &objects, now)))
}

/// What is to be asked for, symbol by symbol.
async fn asks(data: &SubsData, plan: &Plan) -> ApiResult<Vec<Ask>> {
    let mut asks = Vec::with_capacity(plan.symbols.len() * 2);
    if plan.of_all.is_empty() {
        for (symbol, channels) in &plan.symbols {
            push(*symbol, *channels, &mut asks);
        }
        return Ok(asks);
    }
    let mut symbols: std::collections::BTreeMap<Symbol, Channels> =
        data.all_symbols().await?.into_iter().map(|symbol| (symbol, plan.of_all)).collect();
    for (symbol, channels) in &plan.symbols {
        let all = symbols.entry(*symbol).or_insert(plan.of_all);
        *all = all.or(*channels);
    }
    let most = data.subs.limits().feed_symbols_max;
    if symbols.len() > most {
        return Err(ApiError::from(TooMany { most }));
    }
    for (symbol, channels) in symbols {
        push(symbol, channels, &mut asks);
    }
    Ok(asks)
}

fn push(symbol: Symbol, channels: Channels, asks: &mut Vec<Ask>) {
    let has = |channel| channels.contains(channel);
    let members = [
        (Member::Trade, has(Channel::Trades)),
        (Member::Quote, has(Channel::Quotes)),
        (Member::Bar, has(Channel::Bars) || has(Channel::UpdatedBars)),
        (Member::DailyBar, has(Channel::DailyBars)),
        (Member::Status, has(Channel::Statuses)),
        (Member::Luld, has(Channel::Lulds)),
    ];
    asks.extend(members.into_iter().filter(|(_, asked)| *asked).map(|(member, _)| Ask { symbol, member }));
}

const fn name(member: Member) -> &'static [u8] {
    match member {
        Member::Trade => b"\"trade\":",
        Member::Quote => b"\"quote\":",
        Member::Bar => b"\"bar\":",
        Member::DailyBar => b"\"dailyBar\":",
        Member::Status => b"\"status\":",
        Member::Luld => b"\"luld\":",
    }
}

/// The answer; `objects` are those of `asks`, which are in the order of the symbols.
fn write(asks: &[Ask], objects: &Objects, now: Nanos) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + MEMBER_BYTES * asks.len());
    out.extend_from_slice(b"{\"as_of\":");
    write_time(now, &mut out);
    out.extend_from_slice(b",\"symbols\":{");
    let mut of = None;
    for (ask, object) in asks.iter().zip(objects.iter()) {
        let Some(object) = object else { continue };
        if of == Some(ask.symbol) {
            out.push(b',');
        } else {
            out.extend_from_slice(if of.is_some() { b"}," } else { b"" });
            json::write_text(ask.symbol.as_str(), &mut out);
            out.extend_from_slice(b":{");
            of = Some(ask.symbol);
        }
        out.extend_from_slice(name(ask.member));
        out.extend_from_slice(object);
    }
    out.extend_from_slice(if of.is_some() { b"}}}" } else { b"}}" });
    out
}
