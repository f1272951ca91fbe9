//! Every answer of the routes, to the byte where it matters: bodies, errors, pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::MarketData;
use crate::access::{Identity, Scope};
use crate::config::Config;
use crate::history::ReadLimits;
use crate::history::testing::{World, cancel, correction, of, quote_at, time, trade_at};
use crate::http::Clock;
use crate::ingest::POSITION_PREFIX;
use crate::live::{Newest, Screener};
use crate::market::{Bar, Event, Nanos, Origin, Row, Tick};
use crate::store::TapeId;
use crate::tape::WaitToken;

/// Noon of a Friday in New York.
const NOW: &str = "2024-01-05T17:00:00Z";

async fn known(mut request: Request, next: Next) -> Response {
    let (account, key_id) = ("TA1".to_owned(), "TL1".to_owned());
    let scopes = vec![Scope::MarketDataRead];
    request.extensions_mut().insert(Arc::new(Identity { account, key_id, scopes }));
    next.run(request).await
}

fn router(world: &World, sets: &[&str]) -> Router {
    router_at(world, sets, Arc::new(|| time(NOW)))
}

fn router_at(world: &World, sets: &[&str], clock: Clock) -> Router {
    router_with(world, sets, clock, &[])
}

/// The same with rows that came live.
fn router_with(world: &World, sets: &[&str], clock: Clock, live: &[Row]) -> Router {
    let reader = Arc::clone(&world.reader);
    let config = Arc::new(Config::with(sets).unwrap());
    let newest = Arc::new(Newest::new(Arc::clone(&reader), config.live.latest_symbols_max));
    let screener = Arc::new(Screener::new(Arc::clone(&reader), config.live.latest_symbols_max, time(NOW)));
    screener.apply(live);
    let data = MarketData { reader, newest, screener, config, clock };
    let routes = super::routes::<MarketData>().merge(crate::http::symbols::routes());
    routes.with_state(data).layer(from_fn(known))
}

struct Answer {
    status: StatusCode,
    incomplete: bool,
    retry_after: bool,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    fn next(&self) -> Option<String> {
        self.json()["next_page_token"].as_str().map(str::to_owned)
    }
}

fn get(router: &Router, uri: &str) -> Answer {
    let work = async {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json", "{uri}");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status != StatusCode::NOT_FOUND {
            let json = serde_json::from_slice(&body).unwrap();
            crate::http::openapi::testing::assert_documented("get", uri, status.as_u16(), &json);
        }
        Answer {
            status,
            incomplete: headers.contains_key("x-tapeline-incomplete"),
            retry_after: headers.contains_key("retry-after"),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    };
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn world() -> World {
    let world = World::new(ReadLimits::default());
    let at = |text: &str| time(text);
    world.put_blocks(&[
        trade_at(at("2024-01-05T14:30:00.029591476Z"), 7, "181.47", 100),
        trade_at(at("2024-01-05T14:30:30Z"), 8, "181.5", 300),
        trade_at(at("2024-01-05T14:31:00Z"), 9, "181.6", 100),
        of("MSFT", trade_at(at("2024-01-05T14:30:00Z"), 1, "370", 5)),
        of("MSFT", trade_at(at("2024-01-04T14:30:00Z"), 2, "369", 5)),
    ]);
    world.put_tail(&[Row { ..quote_at(at("2024-01-05T14:30:01Z").0, 1, 0, 3) }]);
    world
}

#[test]
fn bodies_to_the_byte() {
    let world = world();
    let router = router(&world, &[]);
    let cases = [
        (
            "/v2/stocks/trades?symbols=AAPL,MSFT&limit=3",
            r#"{"trades":{"AAPL":[{"t":"2024-01-05T14:30:00.029591476Z","x":"Q","p":181.47,"s":100,"c":["@"],"i":7,"z":"C"},{"t":"2024-01-05T14:30:30Z","x":"Q","p":181.5,"s":300,"c":["@"],"i":8,"z":"C"},{"t":"2024-01-05T14:31:00Z","x":"Q","p":181.6,"s":100,"c":["@"],"i":9,"z":"C"}]},"next_page_token":NEXT}"#,
        ),
        (
            "/v2/stocks/MSFT/trades",
            r#"{"symbol":"MSFT","trades":[{"t":"2024-01-05T14:30:00Z","x":"Q","p":370,"s":5,"c":["@"],"i":1,"z":"C"}],"next_page_token":null}"#,
        ),
        ("/v2/stocks/trades?symbols=NONE", r#"{"trades":{},"next_page_token":null}"#),
        (
            "/v2/stocks/trades?symbols=NONE&currency=USD",
            r#"{"trades":{},"next_page_token":null,"currency":"USD"}"#,
        ),
        ("/v2/stocks/none/bars?timeframe=1Day", r#"{"symbol":"NONE","bars":[],"next_page_token":null}"#),
        (
            "/v2/stocks/quotes?symbols=AAPL",
            r#"{"quotes":{"AAPL":[{"t":"2024-01-05T14:30:01Z","ax":" ","ap":10,"as":3,"bx":" ","bp":0,"bs":0,"c":[]}]},"next_page_token":null}"#,
        ),
        (
            "/v2/stocks/bars?symbols=AAPL&timeframe=1Min",
            r#"{"bars":{"AAPL":[{"t":"2024-01-05T14:30:00Z","o":181.47,"h":181.5,"l":181.47,"c":181.5,"v":400,"n":2,"vw":181.4925},{"t":"2024-01-05T14:31:00Z","o":181.6,"h":181.6,"l":181.6,"c":181.6,"v":100,"n":1,"vw":181.6}]},"next_page_token":null}"#,
        ),
        (
            "/v2/stocks/AAPL/bars?timeframe=1Day&adjustment=raw&feed=iex",
            r#"{"symbol":"AAPL","bars":[{"t":"2024-01-05T05:00:00Z","o":181.47,"h":181.6,"l":181.47,"c":181.6,"v":500,"n":3,"vw":181.514}],"next_page_token":null}"#,
        ),
    ];
    for (uri, expected) in cases {
        let answer = get(&router, uri);
        assert_eq!(answer.status, StatusCode::OK, "{uri} {}", answer.body);
        let next = answer.next().map_or("null".to_owned(), |token| format!("\"{token}\""));
        assert_eq!(answer.body, expected.replace("NEXT", &next), "{uri}");
        assert!(!answer.incomplete);
    }
}

#[test]
fn corrected_and_canceled_trades_are_marked() {
    let world = world();
    let at = time("2024-01-05T16:00:00Z");
    world.put_tail(&[correction(at, 7, "181.47", 70, "180"), cancel(at, 9, "181.6", false)]);
    let router = router(&world, &[]);
    let trades = get(&router, "/v2/stocks/AAPL/trades").json();
    let marks: Vec<String> = trades["trades"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trade| format!("{} {}", trade["i"], trade["u"]))
        .collect();
    assert_eq!(marks, ["7 \"incorrect\"", "70 \"corrected\"", "8 null", "9 \"canceled\""]);
    let bars = get(&router, "/v2/stocks/AAPL/bars?timeframe=1Min").json();
    assert_eq!(bars["bars"].as_array().unwrap().len(), 1, "the minute of the canceled trade has none");
    assert_eq!(bars["bars"][0]["o"], 180);
}

#[test]
fn spans_defaults_and_forms_of_times() {
    let world = world();
    let router = router(&world, &[]);
    let count = |query: &str| {
        let answer = get(&router, &format!("/v2/stocks/trades?symbols=AAPL,MSFT&{query}"));
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.body);
        let trades = answer.json()["trades"].clone();
        trades.as_object().unwrap().values().map(|list| list.as_array().unwrap().len()).sum::<usize>()
    };
    let cases = [
        ("", 4),
        ("start=2024-01-04", 5),
        ("start=2024-01-04&end=2024-01-04", 1),
        ("start=2024-01-05&end=2024-01-05", 4),
        // Both ends are included.
        ("start=2024-01-05T14:30:00Z&end=2024-01-05T14:30:00Z", 1),
        ("start=2024-01-05T14:30:30Z&end=2024-01-05T14:31:00Z", 2),
        ("start=2024-01-05T14:30:00.029591477Z&end=2024-01-05T14:30:59.999999999Z", 1),
        // Offsets: encoded, raw, and as a decoded blank.
        ("start=2024-01-05T14%3A30%3A30%2B00%3A00", 2),
        ("start=2024-01-05T14:30:30+00:00", 2),
        ("start=2024-01-05T14:30:30%2000:00", 2),
        ("start=2024-01-05T09:30:30-05:00", 2),
        // An empty parameter was not given.
        ("start=&end=&page_token=", 4),
        ("end=2024-01-05T14:30:00Z", 1),
        ("asof=-&feed=delayed_sip&sort=desc", 4),
        ("asof=2024-01-05&feed=boats&limit=10000", 4),
    ];
    for (query, expected) in cases {
        assert_eq!(count(query), expected, "{query}");
    }
}

#[test]
fn pages_go_on_where_the_last_ended() {
    let world = world();
    let router = router(&world, &[]);
    for sort in ["asc", "desc"] {
        let base = format!("/v2/stocks/trades?symbols=msft%2CAAPL%2Cmsft&start=2024-01-04&sort={sort}");
        let mut ids = Vec::new();
        let mut uri = format!("{base}&limit=2");
        loop {
            let answer = get(&router, &uri);
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            let body = answer.json();
            for (symbol, trades) in body["trades"].as_object().unwrap() {
                ids.extend(trades.as_array().unwrap().iter().map(|trade| format!("{symbol} {}", trade["i"])));
            }
            // A client may ask for the rest with a smaller limit, and the symbols in another order.
            match answer.next() {
                Some(token) => {
                    let reordered = base.replace("msft%2CAAPL%2Cmsft", "AAPL,MSFT");
                    uri = format!("{reordered}&limit=1&page_token={token}");
                }
                None => break,
            }
        }
        let expected = match sort {
            "asc" => ["AAPL 7", "AAPL 8", "AAPL 9", "MSFT 2", "MSFT 1"],
            _ => ["AAPL 9", "AAPL 8", "AAPL 7", "MSFT 1", "MSFT 2"],
        };
        assert_eq!(ids, expected, "{sort}");
    }
}

#[test]
fn now_does_not_move_under_who_pages() {
    let world = world();
    let now = Arc::new(AtomicI64::new(time(NOW).0));
    let shared = Arc::clone(&now);
    let router = router_at(&world, &[], Arc::new(move || Nanos(shared.load(Ordering::Relaxed))));
    let first = get(&router, "/v2/stocks/AAPL/trades?limit=2");
    // A day later, with new trades: the second page is still of the first one's day and ends when that was asked for.
    now.fetch_add(24 * Nanos::HOUR, Ordering::Relaxed);
    world.put_tail(&[trade_at(time(NOW).plus(1), 99, "182", 100)]);
    let second =
        get(&router, &format!("/v2/stocks/AAPL/trades?limit=2&page_token={}", first.next().unwrap()));
    let body = second.json();
    assert_eq!(
        (body["trades"][0]["i"].as_u64(), body["trades"].as_array().map(Vec::len)),
        (Some(9), Some(1))
    );
    assert_eq!(second.next(), None);
}

/// Paths below `/v2/stocks/` that are refused with 400, and the message.
const REFUSED: &[(&str, &str)] = &[
    ("trades", "symbols is required"),
    ("trades?symbols=", "symbols is required"),
    ("trades?symbols=AA%20PL", "invalid symbol: AA PL"),
    ("trades?symbols=AAPL,", "invalid symbol: "),
    ("trades?symbols=AAPL,TOOLONGTOBEASYMBOL", "invalid symbol: TOOLONGTOBEASYMBOL"),
    (".A/trades", "invalid symbol: .A"),
    ("trades?symbols=A,B,C,D", "symbol limit is 3"),
    ("trades?symbols=A&foo=1&bar=2", "unexpected parameter(s): foo, bar"),
    ("AAPL/trades?symbols=AAPL", "unexpected parameter(s): symbols"),
    ("trades?symbols=A&timeframe=1Min", "unexpected parameter(s): timeframe"),
    ("quotes?symbols=A&adjustment=raw", "unexpected parameter(s): adjustment"),
    ("trades?symbols=A&limit=1&limit=2", "invalid value for limit: must be given once"),
    (
        "trades?symbols=A&limit=%f",
        "invalid value for query: must be percent-encoded UTF-8, such as start=2024-01-03T14%3A30%3A00Z",
    ),
    ("trades?symbols=A&limit=0", "invalid value for limit: must be a whole number from 1 to 10000"),
    ("trades?symbols=A&limit=10001", "invalid value for limit: must be a whole number from 1 to 10000"),
    ("trades?symbols=A&limit=ten", "invalid value for limit: must be a whole number from 1 to 10000"),
    ("trades?symbols=A&sort=up", "invalid value for sort: must be asc or desc"),
    ("trades?symbols=A&feed=nasdaq", "invalid value for feed: must be sip, iex, otc, boats or delayed_sip"),
    (
        "trades?symbols=A&start=yesterday",
        "Invalid format for parameter start: error parsing 'yesterday' as RFC3339 or YYYY-MM-DD",
    ),
    (
        "trades?symbols=A&end=2024-13-01",
        "Invalid format for parameter end: error parsing '2024-13-01' as RFC3339 or YYYY-MM-DD",
    ),
    (
        "trades?symbols=A&start=2024-01-03T14:30",
        "Invalid format for parameter start: error parsing '2024-01-03T14:30' as RFC3339 or YYYY-MM-DD",
    ),
    ("trades?symbols=A&start=2024-01-03&end=2024-01-02", "end should not be before start"),
    ("trades?symbols=A&end=2024-01-04", "end should not be before start"),
    (
        "trades?symbols=A&asof=today",
        "Invalid format for parameter asof: error parsing 'today' as YYYY-MM-DD or -",
    ),
    ("trades?symbols=A&currency=EUR", "currency EUR is not offered: prices are in USD"),
    ("bars?symbols=A", "timeframe is required"),
    ("bars?symbols=A&timeframe=60Min", "invalid timeframe: 60Min"),
    ("A/bars?timeframe=1Fortnight", "invalid timeframe: 1Fortnight"),
    ("bars?symbols=A&timeframe=1Min&adjustment=split", "adjustment split is not offered: prices are raw"),
    ("bars?symbols=A&timeframe=1Min&adjustment=raw,all", "adjustment raw,all is not offered: prices are raw"),
    (
        "bars?symbols=A&timeframe=1Min&adjustment=none",
        "invalid value for adjustment: must be raw, split, dividend, spin-off or all",
    ),
    ("trades?symbols=A&page_token=abc", "invalid page_token"),
    ("trades?symbols=A&after=abc", "invalid after"),
    ("meta/exchanges?tape=A", "unexpected parameter(s): tape"),
    ("meta/conditions/trade", "tape is required"),
    ("meta/conditions/trade?tape=D", "invalid value for tape: must be A, B or C"),
    ("meta/conditions/bar?tape=A", "invalid value for ticktype: must be trade or quote"),
];

#[test]
fn refusals() {
    let world = world();
    let router = router(&world, &["history.symbols_max=3"]);
    let other = get(&router, "/v2/stocks/trades?symbols=AAPL&limit=1").next().unwrap();
    let foreign = World::new(ReadLimits::default()).keyring.token("y1.", b"AAPL");
    let mut changed = other.clone();
    changed.pop();
    changed.push(if other.ends_with('A') { 'Q' } else { 'A' });
    let belongs = "invalid page_token: it belongs to another query; symbols, start, end, timeframe and sort must stay the same";
    let cases: Vec<(String, &str)> = REFUSED
        .iter()
        .map(|(path, message)| (format!("/v2/stocks/{path}"), *message))
        .chain([
            (format!("/v2/stocks/trades?symbols=MSFT&page_token={other}"), belongs),
            (format!("/v2/stocks/quotes?symbols=AAPL&page_token={other}"), belongs),
            (format!("/v2/stocks/trades?symbols=AAPL&sort=desc&page_token={other}"), belongs),
            (format!("/v2/stocks/trades?symbols=AAPL&page_token={changed}"), "invalid page_token"),
            (format!("/v2/stocks/trades?symbols=AAPL&page_token={foreign}"), "invalid page_token"),
            (format!("/v1/symbols?page_token={other}"), "invalid page_token"),
            (
                "/v1/symbols?limit=0".to_owned(),
                "invalid value for limit: must be a whole number from 1 to 10000",
            ),
            ("/v1/symbols?symbols=A".to_owned(), "unexpected parameter(s): symbols"),
        ])
        .collect();
    for (uri, message) in cases {
        let answer = get(&router, &uri);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}: {}", answer.body);
        assert_eq!(answer.message(), message, "{uri}");
        assert_eq!(answer.json()["code"], 40_000_000, "{uri}");
        assert!(!answer.retry_after, "{uri}");
    }
    assert_eq!(get(&router, "/v1/symbols?prefix=a%20b").status, StatusCode::BAD_REQUEST);
}

#[test]
fn what_is_not_offered_says_so() {
    let world = world();
    let router = router(&world, &[]);
    for (path, what) in [
        ("/v2/stocks/auctions?symbols=A", "auctions are not offered"),
        ("/v2/stocks/AAPL/auctions", "auctions are not offered"),
        ("/v1beta1/screener/crypto/movers", "the screener of crypto is not offered"),
        ("/v1beta1/news", "news is not offered"),
        ("/v1/corporate-actions", "corporate actions are not offered"),
        ("/v1beta3/crypto/us/trades", "market data of crypto is not offered"),
    ] {
        let answer = get(&router, path);
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.message().starts_with(what), "{path}: {}", answer.message());
        assert_eq!(answer.json()["code"], 40_410_000);
        assert_eq!(answer.json()["reason"], "not_offered");
    }
}

#[test]
fn damage_and_catching_up_are_told_apart() {
    let world = world();
    *world.tail.shed.lock() = true;
    let router = router(&world, &[]);
    let answer = get(&router, "/v2/stocks/AAPL/trades");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((answer.message().as_str(), answer.retry_after), ("history catching up", true));
    *world.tail.shed.lock() = false;
    world.store.damage();
    let answer = get(&router, "/v2/stocks/AAPL/trades");
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "a status that no SDK asks again on");
    assert_eq!(answer.json()["reason"], "corrupt");
    assert!(!answer.body.contains("trades\":["), "{}", answer.body);
}

#[test]
fn a_read_after_a_position_waits_for_it_or_says_no() {
    let world = world();
    world.tail.followed.lock().insert(TapeId(1), 5);
    let router = router(&world, &[]);
    let token = |seq| world.keyring.token(POSITION_PREFIX, &WaitToken([(TapeId(1), seq)].into()).encode());
    assert_eq!(get(&router, &format!("/v2/stocks/AAPL/trades?after={}", token(5))).status, StatusCode::OK);
    let answer = get(&router, &format!("/v2/stocks/AAPL/trades?after={}", token(6)));
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((answer.json()["reason"].as_str(), answer.retry_after), (Some("after"), true));
}

#[test]
fn tables_of_codes() {
    let world = world();
    let router = router(&world, &[]);
    let exchanges = get(&router, "/v2/stocks/meta/exchanges").json();
    assert_eq!(exchanges["V"], "IEX");
    assert_eq!(exchanges.as_object().unwrap().len(), 22);
    let trades = get(&router, "/v2/stocks/meta/conditions/trade?tape=C").json();
    assert_eq!((&trades["@"], &trades["W"]), (&"Regular Sale".into(), &"Average Price Trade".into()));
    let quotes = get(&router, "/v2/stocks/meta/conditions/quote?tape=A").json();
    assert_eq!(quotes["R"], "Regular Market Maker Open");
}

#[test]
fn the_list_of_symbols() {
    let world = world();
    let router = router(&world, &[]);
    let first = get(&router, "/v1/symbols?limit=1");
    let expected = r#"{"symbols":[{"symbol":"AAPL","kinds":["trades","quotes"],"first":"2024-01-05T14:30:00.029591476Z","last":"2024-01-05T14:31:00Z"}],"next_page_token":NEXT}"#;
    let token = first.next().unwrap();
    assert_eq!(first.body, expected.replace("NEXT", &format!("\"{token}\"")));
    let second = get(&router, &format!("/v1/symbols?limit=1&page_token={token}"));
    assert_eq!(
        second.body,
        r#"{"symbols":[{"symbol":"MSFT","kinds":["trades"],"first":"2024-01-04T14:30:00Z","last":"2024-01-05T14:30:00Z"}],"next_page_token":null}"#
    );
    assert_eq!(get(&router, "/v1/symbols?prefix=ms").json()["symbols"][0]["symbol"], "MSFT");
}

#[test]
fn ingested_daily_bars_come_as_they_are() {
    let world = world();
    let one = crate::history::testing::price("5");
    let bar =
        Bar { open: one, high: one, low: one, close: one, volume: 9, trades: 0, vwap: None, updated: false };
    let (symbol, at) = ("DAY".parse().unwrap(), time("2024-01-05T05:00:00Z"));
    let tick = Tick { symbol, time: at, event: Event::DayBar(bar) };
    world.put_blocks(&[Row { tick, origin: Origin { received: Nanos(1), ..Origin::UNKNOWN } }]);
    let answer = get(&router(&world, &[]), "/v2/stocks/DAY/bars?timeframe=1D");
    assert_eq!(
        answer.body,
        r#"{"symbol":"DAY","bars":[{"t":"2024-01-05T05:00:00Z","o":5,"h":5,"l":5,"c":5,"v":9,"n":0,"vw":null}],"next_page_token":null}"#
    );
}

#[test]
fn latest_values_to_the_byte() {
    let world = world();
    let router = router(&world, &[]);
    let trade = r#"{"t":"2024-01-05T14:31:00Z","x":"Q","p":181.6,"s":100,"c":["@"],"i":9,"z":"C"}"#;
    let quote = r#"{"t":"2024-01-05T14:30:01Z","ax":" ","ap":10,"as":3,"bx":" ","bp":0,"bs":0,"c":[]}"#;
    let minute =
        r#"{"t":"2024-01-05T14:31:00Z","o":181.6,"h":181.6,"l":181.6,"c":181.6,"v":100,"n":1,"vw":181.6}"#;
    let day = r#"{"t":"2024-01-05T05:00:00Z","o":181.47,"h":181.6,"l":181.47,"c":181.6,"v":500,"n":3,"vw":181.514}"#;
    let of_microsoft = r#"{"t":"2024-01-05T14:30:00Z","x":"Q","p":370,"s":5,"c":["@"],"i":1,"z":"C"}"#;
    let snapshot =
        format!(r#""latestTrade":{trade},"latestQuote":{quote},"minuteBar":{minute},"dailyBar":{day}"#);
    let cases = [
        (
            "/v2/stocks/trades/latest?symbols=NONE,msft,AAPL",
            format!(r#"{{"trades":{{"AAPL":{trade},"MSFT":{of_microsoft}}}}}"#),
        ),
        (
            "/v2/stocks/trades/latest?symbols=NONE&currency=USD",
            r#"{"trades":{},"currency":"USD"}"#.to_owned(),
        ),
        ("/v2/stocks/AAPL/trades/latest?feed=overnight", format!(r#"{{"symbol":"AAPL","trade":{trade}}}"#)),
        ("/v2/stocks/quotes/latest?symbols=AAPL", format!(r#"{{"quotes":{{"AAPL":{quote}}}}}"#)),
        ("/v2/stocks/AAPL/quotes/latest", format!(r#"{{"symbol":"AAPL","quote":{quote}}}"#)),
        ("/v2/stocks/bars/latest?symbols=AAPL", format!(r#"{{"bars":{{"AAPL":{minute}}}}}"#)),
        ("/v2/stocks/AAPL/bars/latest", format!(r#"{{"symbol":"AAPL","bar":{minute}}}"#)),
        ("/v2/stocks/snapshots?symbols=AAPL,NONE", format!(r#"{{"AAPL":{{{snapshot}}}}}"#)),
        ("/v2/stocks/AAPL/snapshot", format!(r#"{{"symbol":"AAPL",{snapshot}}}"#)),
    ];
    // The second time from memory.
    for (uri, expected) in cases.iter().chain(&cases) {
        let answer = get(&router, uri);
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, expected.as_str()), "{uri}");
    }
    let previous = get(&router, "/v2/stocks/MSFT/snapshot").json();
    assert_eq!(previous["prevDailyBar"]["c"], 369);
    assert_eq!(previous["dailyBar"]["c"], 370);
    for (uri, what) in [
        ("/v2/stocks/NONE/trades/latest", "no trade found for NONE"),
        ("/v2/stocks/MSFT/quotes/latest", "no quote found for MSFT"),
        ("/v2/stocks/NONE/snapshot", "no snapshot found for NONE"),
    ] {
        let answer = get(&router, uri);
        assert_eq!((answer.status, answer.message().as_str()), (StatusCode::NOT_FOUND, what), "{uri}");
        assert_eq!(answer.json()["code"], 40_410_000, "{uri}");
    }
    for uri in [
        "/v2/stocks/trades/latest",
        "/v2/stocks/AAPL/snapshot?start=2024-01-01",
        "/v2/stocks/AAPL/bars/latest?feed=x",
    ] {
        assert_eq!(get(&router, uri).status, StatusCode::BAD_REQUEST, "{uri}");
    }
}

#[test]
fn the_screener_tells_the_days_activity_in_the_shapes_of_its_clients() {
    let at = |text: &str| time(text);
    let world = world();
    world.put_blocks(&[trade_at(at("2024-01-04T15:00:00Z"), 90, "180", 10)]);
    let live = [
        trade_at(at("2024-01-05T15:00:00Z"), 91, "189", 200),
        trade_at(at("2024-01-05T15:00:01Z"), 92, "189", 100),
        of("MSFT", trade_at(at("2024-01-05T15:00:00Z"), 93, "366.3105", 900)),
        of("NEW", trade_at(at("2024-01-05T15:00:00Z"), 94, "5", 1)),
    ];
    let router = router_with(&world, &[], Arc::new(|| time(NOW)), &live);
    let actives = |query: &str| get(&router, &format!("/v1beta1/screener/stocks/most-actives{query}")).body;
    assert_eq!(
        actives("?top=2"),
        r#"{"last_updated":"2024-01-05T17:00:00Z","most_actives":[{"symbol":"MSFT","trade_count":1,"volume":900},{"symbol":"AAPL","trade_count":2,"volume":300}]}"#
    );
    assert!(actives("?by=trades&top=1").contains("AAPL") && actives("").contains("NEW"));
    let movers = get(&router, "/v1beta1/screener/stocks/movers?top=5").json();
    assert_eq!(
        movers["gainers"],
        serde_json::json!([{"symbol": "AAPL", "percent_change": 5.0, "change": 9.0, "price": 189.0}])
    );
    assert_eq!(
        movers["losers"],
        serde_json::json!([{"symbol": "MSFT", "percent_change": -0.7289, "change": -2.6895, "price": 366.3105}])
    );
    for (uri, field) in [
        ("most-actives?top=101", "top"),
        ("most-actives?by=price", "by"),
        ("movers?top=51", "top"),
        ("movers?top=0", "top"),
    ] {
        let answer = get(&router, &format!("/v1beta1/screener/stocks/{uri}"));
        assert_eq!(
            (answer.status, answer.json()["field"].as_str()),
            (StatusCode::BAD_REQUEST, Some(field)),
            "{uri}"
        );
    }
}
