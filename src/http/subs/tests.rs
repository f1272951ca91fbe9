//! Subscriptions through the routes: what is answered, refused, and kept apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::access::testing::moved_clock;
use crate::access::{Identity, Scope};
use crate::config::Config;
use crate::history::ReadLimits;
use crate::history::testing::{World, correction, of, quote_at, time, trade_at};
use crate::http::openapi::testing::assert_documented;
use crate::live::{Newest, Screener};
use crate::market::{Bar, Event, Luld, Nanos, Row, Status, Tick};
use crate::tape::{Follower, FollowerConfig, fixtures};

/// Noon of a Friday in New York.
const NOW: &str = "2024-01-05T17:00:30Z";

struct Door {
    router: Router,
    newest: Arc<Newest>,
    now: Arc<AtomicI64>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }
}

async fn known(mut request: Request, next: Next) -> Response {
    let account = request.headers().get("account").map_or("TA1", |name| name.to_str().unwrap()).to_owned();
    let (key_id, scopes) = ("TL1".to_owned(), vec![Scope::MarketDataRead]);
    request.extensions_mut().insert(Arc::new(Identity { account, key_id, scopes }));
    next.run(request).await
}

fn door(world: &World, sets: &[&str]) -> Door {
    let config = Arc::new(Config::with(sets).unwrap());
    let newest = Arc::new(Newest::new(Arc::clone(&world.reader), config.live.latest_symbols_max));
    let now = Arc::new(AtomicI64::new(time(NOW).0));
    let (read, reader) = (Arc::clone(&now), Arc::clone(&world.reader));
    let clock: crate::http::Clock = Arc::new(move || Nanos(read.load(Ordering::Relaxed)));
    let (_, mono) = moved_clock();
    let keyring = Arc::clone(&world.keyring);
    let subs = Arc::new(Subs::new(Arc::clone(&world.store) as _, keyring, config.subs.clone(), mono));
    let screener = Arc::new(Screener::new(Arc::clone(&reader), config.live.latest_symbols_max, time(NOW)));
    let market = MarketData { reader, newest: Arc::clone(&newest), screener, config, clock };
    let router =
        routes::<SubsData>().with_state(SubsData { market, subs, hubs: Vec::new() }).layer(from_fn(known));
    Door { router, newest, now }
}

impl Door {
    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{uri}: {text}"));
        assert_documented(&method.to_lowercase(), uri, parts.status.as_u16(), &json);
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri, &[], "").await
    }

    async fn made(&self, body: &Value) -> String {
        let made = self.ask("POST", "/v1/subscriptions", &[], &body.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.id()
    }

    fn deliver(&self, rows: Vec<Row>) {
        let delivery = fixtures::delivery(1, 1, rows);
        let home = delivery.frame.home;
        let config = FollowerConfig::new(home, vec![home]);
        let follower = Follower::new(config, Box::new(|| 1), fixtures::at(0));
        self.newest.deliver(&follower, &[delivery]);
    }
}

fn world() -> World {
    World::new(ReadLimits::default())
}

#[tokio::test]
async fn a_subscription_is_made_read_changed_and_deleted() {
    let door = door(&world(), &[]);
    let body = json!({
        "name": "desk", "symbols": ["msft", "AAPL", "AAPL"], "kinds": ["quotes", "trades"], "conflate_ms": 250,
        "filter": {"min_size": 100, "min_price_move": "0.50%", "conditions": ["T", "@"]},
    });
    let made = door.ask("POST", "/v1/subscriptions", &[], &body.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let (id, version) = (made.id(), made.json()["version"].as_u64().unwrap());
    let expected = format!(
        r#"{{"id":"{id}","name":"desk","symbols":["AAPL","MSFT"],"kinds":["trades","quotes"],"filter":{{"min_size":100,"min_price_move":"0.5%","conditions":["@","T"]}},"conflate_ms":250,"paused":false,"state":"active","created_at":"2024-01-05T17:00:30Z","changed_at":"2024-01-05T17:00:30Z","version":{version}}}"#
    );
    assert_eq!(made.text, expected);
    let uri = format!("/v1/subscriptions/{id}");
    assert_eq!(made.headers["location"], uri.as_str());
    let read = door.get(&uri).await;
    assert_eq!((read.status, read.text), (200, expected));
    assert_eq!(read.headers["etag"], format!("\"{version}\"").as_str());
    let paused = door.ask("PUT", &uri, &[], r#"{"paused": true}"#).await.json();
    assert_eq!((&paused["state"], &paused["symbols"]), (&json!("paused"), &json!(["AAPL", "MSFT"])));
    let resumed = door.ask("PUT", &uri, &[], r#"{"paused":false,"filter":null,"symbols":"*"}"#).await.json();
    assert_eq!((&resumed["state"], &resumed["symbols"]), (&json!("active"), &json!("*")));
    assert_eq!((&resumed["filter"], &resumed["created_at"]), (&Value::Null, &paused["created_at"]));
    let deleted = door.ask("DELETE", &uri, &[], "").await;
    assert_eq!((deleted.status, &deleted.json()["state"]), (200, &json!("deleted")));
    for method in ["GET", "PUT", "DELETE"] {
        let gone = door.ask(method, &uri, &[], "{}").await;
        assert_eq!((gone.status, &gone.json()["reason"]), (404, &json!("no_subscription")), "{method}");
    }
}

#[tokio::test]
async fn a_key_makes_one_and_another_account_sees_none() {
    let door = door(&world(), &[]);
    let (body, key) = (r#"{"symbols":["AAPL"],"kinds":["trades"]}"#, ("idempotency-key", "desk"));
    let first = door.ask("POST", "/v1/subscriptions", &[key], body).await;
    let spaced = r#"{ "kinds": ["trades"], "symbols": ["aapl"], "paused": false }"#;
    let again = door.ask("POST", "/v1/subscriptions", &[key], spaced).await;
    assert_eq!((first.status, again.status, first.text == again.text), (201, 200, true));
    let other = r#"{"symbols":["MSFT"],"kinds":["trades"]}"#;
    let reused = door.ask("POST", "/v1/subscriptions", &[key], other).await;
    assert_eq!((reused.status, &reused.json()["reason"]), (422, &json!("key_reused")));
    let stranger = ("account", "TA2");
    let uri = format!("/v1/subscriptions/{}", first.id());
    for (method, uri) in [("GET", uri.clone()), ("PUT", uri.clone()), ("DELETE", uri.clone())] {
        assert_eq!(door.ask(method, &uri, &[stranger], "{}").await.status, 404, "{method}");
    }
    let feed = format!("/v1/feed?subscription={}", first.id());
    assert_eq!(door.ask("GET", &feed, &[stranger], "").await.status, 404);
    assert_eq!(door.ask("GET", &format!("{uri}/history"), &[stranger], "").await.status, 404);
    let own = door.ask("POST", "/v1/subscriptions", &[key, stranger], other).await;
    assert_eq!((own.status, own.id() == first.id()), (201, false));
    door.ask("DELETE", &uri, &[], "").await;
    let deleted = door.ask("POST", "/v1/subscriptions", &[key], body).await;
    assert_eq!((deleted.status, &deleted.json()["reason"]), (409, &json!("deleted")));
}

#[tokio::test]
async fn a_change_names_the_state_it_is_for() {
    let door = door(&world(), &[]);
    let id = door.made(&json!({"symbols": ["AAPL"], "kinds": ["trades"]})).await;
    let uri = format!("/v1/subscriptions/{id}");
    let tag = door.get(&uri).await.headers["etag"].to_str().unwrap().to_owned();
    let version = door.get(&uri).await.json()["version"].as_u64().unwrap();
    let changed = door.ask("PUT", &uri, &[("if-match", &tag)], r#"{"name":"a"}"#).await;
    assert_eq!(changed.status, 200);
    let late = door.ask("PUT", &uri, &[("if-match", &tag)], r#"{"name":"b"}"#).await;
    assert_eq!((late.status, &late.json()["reason"]), (412, &json!("changed")));
    let body = json!({"name": "b", "version": version}).to_string();
    let late = door.ask("PUT", &uri, &[], &body).await;
    assert_eq!((late.status, &late.json()["field"]), (409, &json!("version")));
    assert_eq!(late.json()["expected"], changed.json()["version"].to_string());
    assert_eq!(door.ask("DELETE", &uri, &[("if-match", &tag)], "").await.status, 412);
    assert_eq!(door.ask("PUT", &uri, &[("if-match", "x")], "{}").await.status, 400);
    assert_eq!(door.get(&uri).await.json()["name"], "a");
    assert_eq!(door.ask("DELETE", &uri, &[("if-match", "*")], "").await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let sets = ["subs.symbols_max=2", "subs.conditions_max=1", "subs.per_account_max=1"];
    let door = door(&world(), &sets);
    let cases = [
        (r#"{"kinds":["trades"]}"#, "symbols", "a list of symbols"),
        (r#"{"symbols":[],"kinds":["trades"]}"#, "symbols", "a list of symbols"),
        (r#"{"symbols":["A B"],"kinds":["trades"]}"#, "symbols", "1 to 16 of A-Z"),
        (r#"{"symbols":[7],"kinds":["trades"]}"#, "symbols", "a list of symbols"),
        (
            r#"{"symbols":["A","B","C"],"kinds":["trades"]}"#,
            "symbols",
            "at most 2 symbols (subs.symbols_max)",
        ),
        (r#"{"symbols":"*"}"#, "kinds", "a list of trades, quotes"),
        (r#"{"symbols":"*","kinds":["ticks"]}"#, "kinds", "a list of trades, quotes"),
        (r#"{"symbols":"*","kinds":["trades"],"paused":1}"#, "paused", "true or false"),
        (
            r#"{"symbols":"*","kinds":["trades"],"conflate_ms":60001}"#,
            "conflate_ms",
            "60000 (subs.conflate_ms_max)",
        ),
        (r#"{"symbols":"*","kinds":["trades"],"colour":1}"#, "colour", "name, symbols, kinds"),
        (r#"{"symbols":"*","kinds":["trades"],"version":1}"#, "version", "left out"),
        (r#"{"symbols":"*","kinds":["trades"],"filter":[]}"#, "filter", "null, or min_size"),
        (r#"{"symbols":"*","kinds":["trades"],"filter":{"x":1}}"#, "filter.x", "min_size"),
        (
            r#"{"symbols":"*","kinds":["trades"],"filter":{"min_size":-1}}"#,
            "filter.min_size",
            "shares from 0",
        ),
        (
            r#"{"symbols":"*","kinds":["trades"],"filter":{"min_price_move":"0%"}}"#,
            "filter.min_price_move",
            "0.5%",
        ),
        (
            r#"{"symbols":"*","kinds":["trades"],"filter":{"conditions":["@","T"]}}"#,
            "filter.conditions",
            "subs.conditions_max",
        ),
    ];
    for (body, field, expected) in cases {
        let refused = door.ask("POST", "/v1/subscriptions", &[], body).await;
        assert_eq!((refused.status, &refused.json()["field"]), (400, &json!(field)), "{body}");
        assert!(refused.json()["expected"].as_str().unwrap().contains(expected), "{}", refused.text);
    }
    for body in ["", "[]", "{\"symbols\":"] {
        let refused = door.ask("POST", "/v1/subscriptions", &[], body).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (400, &json!("json")), "{body}");
    }
    door.made(&json!({"symbols": "*", "kinds": ["trades"], "filter": {"min_price_move": 0.05}})).await;
    let full = door.ask("POST", "/v1/subscriptions", &[], r#"{"symbols":"*","kinds":["trades"]}"#).await;
    assert_eq!((full.status, &full.json()["field"]), (422, &json!("subs.per_account_max")));
    assert_eq!(door.get("/v1/subscriptions?page_token=x").await.status, 400);
    assert_eq!(door.get("/v1/feed?symbols=A").await.status, 400);
}

#[tokio::test]
async fn the_list_comes_by_pages() {
    let door = door(&world(), &[]);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(door.made(&json!({"symbols": ["AAPL"], "kinds": ["trades"]})).await);
    }
    ids.sort();
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let page = door.get(&format!("/v1/subscriptions?limit=2{token}")).await.json();
        listed.extend(page["subscriptions"].as_array().unwrap().clone());
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    let listed: Vec<&str> = listed.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids);
}

fn bar_at(at: &str) -> Row {
    let price = crate::history::testing::price("7");
    let bar =
        Bar { open: price, high: price, low: price, close: price, volume: 1, trades: 1, ..Bar::default() };
    let tick = Tick { symbol: "AAPL".parse().unwrap(), time: time(at), event: Event::MinuteBar(bar) };
    Row { tick, ..trade_at(time(at), 1, "7", 1) }
}

#[tokio::test]
async fn the_feed_has_each_symbol_once_with_what_is_asked_for() {
    let world = world();
    let at = |text: &str| time(text);
    world.put_blocks(&[
        trade_at(at("2024-01-05T16:58:10Z"), 1, "10", 100),
        trade_at(at("2024-01-05T16:59:10Z"), 2, "11", 100),
        of("MSFT", trade_at(at("2024-01-05T16:59:20Z"), 3, "370", 5)),
        of("MSFT", quote_at(at("2024-01-05T16:59:21Z").0, 1, 0, 3)),
    ]);
    let door = door(&world, &[]);
    assert_eq!(door.get("/v1/feed").await.text, r#"{"as_of":"2024-01-05T17:00:30Z","symbols":{}}"#);
    door.made(&json!({"symbols": ["AAPL", "NONE"], "kinds": ["trades", "bars", "updatedBars", "dailyBars"]}))
        .await;
    let both = door.made(&json!({"symbols": ["AAPL", "MSFT"], "kinds": ["trades", "quotes"]})).await;
    let feed = door.get("/v1/feed").await;
    let trade = r#"{"t":"2024-01-05T16:59:10Z","x":"Q","p":11,"s":100,"c":["@"],"i":2,"z":"C"}"#;
    let bar = r#"{"t":"2024-01-05T16:59:00Z","o":11,"h":11,"l":11,"c":11,"v":100,"n":1,"vw":11}"#;
    let day = r#"{"t":"2024-01-05T05:00:00Z","o":10,"h":11,"l":10,"c":11,"v":200,"n":2,"vw":10.5}"#;
    let apple = format!(r#""AAPL":{{"trade":{trade},"bar":{bar},"dailyBar":{day}}}"#);
    let microsoft = r#""MSFT":{"trade":{"t":"2024-01-05T16:59:20Z","x":"Q","p":370,"s":5,"c":["@"],"i":3,"z":"C"},"quote":{"t":"2024-01-05T16:59:21Z","ax":" ","ap":10,"as":3,"bx":" ","bp":0,"bs":0,"c":[]}}"#;
    let whole = format!(r#"{{"as_of":"2024-01-05T17:00:30Z","symbols":{{{apple},{microsoft}}}}}"#);
    assert_eq!(feed.text, whole);
    assert_eq!(door.get("/v1/feed").await.text, whole, "from memory too");
    let of_one = door.get(&format!("/v1/feed?subscription={both}")).await;
    let expected =
        format!(r#"{{"as_of":"2024-01-05T17:00:30Z","symbols":{{"AAPL":{{"trade":{trade}}},{microsoft}}}}}"#);
    assert_eq!(of_one.text, expected);
    door.ask("PUT", &format!("/v1/subscriptions/{both}"), &[], r#"{"paused":true}"#).await;
    let without = format!(r#"{{"as_of":"2024-01-05T17:00:30Z","symbols":{{{apple}}}}}"#);
    assert_eq!(door.get("/v1/feed").await.text, without);
}

#[tokio::test]
async fn the_feed_follows_what_is_delivered() {
    let world = world();
    let at = |text: &str| time(text);
    let first = trade_at(at("2024-01-05T16:59:10Z"), 1, "10", 100);
    world.put_blocks(std::slice::from_ref(&first));
    let door = door(&world, &[]);
    door.made(&json!({"symbols": ["AAPL"], "kinds": ["trades", "bars", "dailyBars", "statuses", "lulds"]}))
        .await;
    let apple = async |door: &Door| door.get("/v1/feed").await.json()["symbols"]["AAPL"].clone();
    let before = apple(&door).await;
    assert_eq!(
        (&before["bar"]["c"], &before["dailyBar"]["v"], &before["status"]),
        (&json!(10), &json!(100), &Value::Null)
    );
    // What is delivered is in the tail of history before anyone is told of it.
    let deliver = |door: &Door, rows: Vec<Row>| {
        world.put_tail(&rows);
        door.deliver(rows);
    };
    let symbol = first.tick.symbol;
    let row = |event| Row { tick: Tick { symbol, time: at("2024-01-05T17:00:05Z"), event }, ..first.clone() };
    let halted = Status { status_code: "H".into(), ..Status::default() };
    let running = trade_at(at("2024-01-05T17:00:10Z"), 2, "12", 50);
    deliver(&door, vec![running, row(Event::Status(Box::new(halted))), row(Event::Luld(Luld::default()))]);
    let now = apple(&door).await;
    assert_eq!((&now["trade"]["p"], &now["bar"]["c"]), (&json!(12), &json!(10)), "its minute is not closed");
    assert_eq!((&now["status"]["sc"], now["luld"].is_object()), (&json!("H"), true));
    assert_eq!(now["dailyBar"]["v"], 100, "a day is at most a minute old");
    door.now.fetch_add(30_000_000_000, Ordering::Relaxed);
    let closed = apple(&door).await;
    assert_eq!((&closed["bar"]["c"], &closed["dailyBar"]["v"]), (&json!(12), &json!(150)));
    deliver(&door, vec![trade_at(at("2024-01-05T17:00:20Z"), 3, "13", 1_000)]);
    assert_eq!(apple(&door).await["bar"]["c"], 13, "a late trade is in it");
    deliver(&door, vec![correction(at("2024-01-05T17:00:59Z"), 3, "13", 4, "14")]);
    deliver(&door, vec![bar_at("2024-01-05T16:00:00Z")]);
    let corrected = apple(&door).await;
    assert_eq!(corrected["bar"]["v"], 150, "what a correction replaced is read again: {corrected}");
}

#[tokio::test]
async fn all_symbols_are_fed_within_the_limit() {
    let world = world();
    let at = time("2024-01-05T16:59:10Z");
    world.put_tail(&["A", "B", "C"].map(|name| of(name, trade_at(at, 1, "10", 100))));
    let door = door(&world, &["subs.feed_symbols_max=3"]);
    let all = door.made(&json!({"symbols": "*", "kinds": ["trades"]})).await;
    assert_eq!(door.get("/v1/feed").await.json()["symbols"].as_object().unwrap().len(), 3);
    world.put_tail(&[of("D", trade_at(at, 1, "10", 100))]);
    let uri = format!("/v1/subscriptions/{all}/history");
    for uri in ["/v1/feed", &format!("/v1/feed?subscription={all}"), &uri] {
        let refused = door.get(uri).await;
        assert_eq!(
            (refused.status, &refused.json()["field"]),
            (400, &json!("subs.feed_symbols_max")),
            "{uri}"
        );
    }
}

async fn pages(door: &Door, uri: &str) -> Vec<Value> {
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let page = door.get(&format!("{uri}{token}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        pages.push(page.json());
        match pages.last().unwrap()["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn history_is_one_sequence_of_pages_bound_to_the_version() {
    let world = world();
    let at = |second: i64| time("2024-01-05T16:00:00Z").plus(second * 1_000_000_000);
    let mut rows: Vec<Row> = (0..5).map(|i| trade_at(at(i), 1 + i.unsigned_abs(), "10", 100)).collect();
    rows.extend((0..3).map(|i| of("MSFT", quote_at(at(i).0, 1, 0, 3))));
    world.put_blocks(&rows);
    let door = door(&world, &[]);
    let kinds = json!(["trades", "quotes", "updatedBars", "bars", "lulds"]);
    let id = door.made(&json!({"symbols": ["AAPL", "MSFT"], "kinds": kinds})).await;
    let uri = format!("/v1/subscriptions/{id}/history?start=2024-01-05&limit=2");
    let all = pages(&door, &uri).await;
    let kinds: Vec<String> = all
        .iter()
        .map(|page| page.as_object().unwrap().keys().find(|name| *name != "next_page_token").unwrap().clone())
        .collect();
    assert_eq!(kinds, ["trades", "trades", "trades", "quotes", "quotes", "bars", "lulds"], "{all:#?}");
    let count = |kind: &str, symbol: &str| {
        all.iter().filter_map(|page| page[kind][symbol].as_array()).map(Vec::len).sum::<usize>()
    };
    assert_eq!((count("trades", "AAPL"), count("quotes", "MSFT"), count("bars", "AAPL")), (5, 3, 1));
    let quotes = pages(&door, &format!("{uri}&kind=quotes&sort=desc")).await;
    assert_eq!(quotes.len(), 2);
    assert_eq!(quotes[0]["quotes"]["MSFT"][0]["t"], "2024-01-05T16:00:02Z");
    let refused = door.get(&format!("{uri}&kind=statuses")).await;
    assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("kind")));
    let token = all[0]["next_page_token"].as_str().unwrap();
    for other in [format!("{uri}&kind=trades&page_token={token}"), format!("{uri}&page_token=h1.x")] {
        let refused = door.get(&other).await;
        assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("page_token")), "{other}");
    }
    door.ask("PUT", &format!("/v1/subscriptions/{id}"), &[], r#"{"symbols":["AAPL"]}"#).await;
    let refused = door.get(&format!("{uri}&page_token={token}")).await;
    assert!(refused.json()["message"].as_str().unwrap().contains("was changed"), "{}", refused.text);
}
