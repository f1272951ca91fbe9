//! Publishers that send a request again, by its key, until it is acknowledged; and what history
//! holds of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::node::Access;
use crate::publish::{Http, body_with};
use crate::system::{now, pause, sleep_until};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);
/// A request that is not acknowledged by then never is.
const NEVER: u64 = 120_000_000_000;

/// What is published: requests of so many ticks, dealt out to the publishers in turn.
#[derive(Clone, Debug)]
pub(crate) struct Stubborn {
    pub(crate) access: Access,
    pub(crate) first: u64,
    pub(crate) batch: u64,
    pub(crate) publishers: u64,
    /// The symbol of a number.
    pub(crate) symbol: fn(u64) -> String,
    /// Ticks a second, of all publishers.
    pub(crate) per_second: u64,
    pub(crate) until: u64,
}

/// What was acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acked {
    /// Requests of each publisher.
    of: Vec<(u64, u64)>,
    /// Requests that were sent more than once.
    pub(crate) retried: BTreeSet<u64>,
}

impl Acked {
    /// With what another publisher has.
    pub(crate) fn add(&mut self, other: Self) {
        self.of.extend(other.of);
        self.retried.extend(other.retried);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.of.iter().map(|(_, requests)| requests).sum()
    }

    /// The numbers of all ticks.
    pub(crate) fn numbers(&self, stubborn: &Stubborn) -> impl Iterator<Item = u64> {
        let Stubborn { first, batch, publishers, .. } = *stubborn;
        self.of.iter().flat_map(move |(own, requests)| {
            (0..*requests).flat_map(move |turn| {
                let start = first + (turn * publishers + own) * batch;
                start..start + batch
            })
        })
    }
}

/// Publishes one publisher's share, one request after the other.
pub(crate) fn stubbornly(stubborn: &Stubborn, own: u64) -> anyhow::Result<Acked> {
    let Stubborn { access, first, batch, publishers, symbol, per_second, until } = stubborn;
    let period = batch * publishers * 1_000_000_000 / (*per_second).max(1);
    let (mut http, mut turn, mut retried) = (None, 0, BTreeSet::new());
    let mut due = now() + period * own / publishers;
    while due < *until {
        sleep_until(due);
        let request = turn * publishers + own;
        let body = body_with(symbol, first + request * batch, *batch);
        let head = format!(
            "POST /v1/ticks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {first}-{request}\r\n{}",
            access.headers(&access.write)
        );
        if post(&mut http, access, &head, &body)? {
            retried.insert(request);
        }
        turn += 1;
        // What was held up is not made up for.
        due = (due + period).max(now());
    }
    Ok(Acked { of: vec![(own, turn)], retried })
}

/// Posts until it is acknowledged; answers whether that took more than one try.
fn post(http: &mut Option<Http>, access: &Access, head: &str, body: &[u8]) -> anyhow::Result<bool> {
    let (mut tries, until) = (0_u64, now() + NEVER);
    loop {
        tries += 1;
        if http.is_none() {
            *http = Http::connect(access.address).ok();
        }
        let status = http.as_mut().and_then(|http| http.call(head, body).ok());
        match status {
            Some(200) => return Ok(tries > 1),
            Some(408 | 409 | 425 | 429 | 500..=599) | None => {}
            Some(status) => {
                let text = http.as_ref().map(Http::text).unwrap_or_default();
                bail!("a node answered POST /v1/ticks with {status}: {text}");
            }
        }
        if now() > until {
            bail!("a request was never acknowledged, the last answer was {status:?}");
        }
        *http = None;
        pause(AGAIN);
    }
}

/// The numbers of the trades of a symbol that history has, by all its pages.
pub(crate) fn history(access: &Access, symbol: &str) -> anyhow::Result<Vec<u64>> {
    let (mut http, mut numbers, mut token) = (Http::connect(access.address)?, Vec::new(), String::new());
    loop {
        let path = format!("/v2/stocks/{symbol}/trades?limit=10000&start=1970-01-02{token}");
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}", access.headers(&access.read));
        let status = http.call(&head, b"")?;
        if status != 200 {
            bail!("history was answered {status}: {}", http.text());
        }
        let page: Value = serde_json::from_slice(http.body()).context("a page is no JSON")?;
        let trades = page.get("trades").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        numbers.extend(trades.iter().filter_map(|trade| trade.get("i")?.as_u64()));
        match page.get("next_page_token").and_then(Value::as_str) {
            Some(next) => token = format!("&page_token={next}"),
            None => return Ok(numbers),
        }
    }
}
