//! Answers of the chart adapter over a real history.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::MarketData;
use crate::access::{Identity, Scope};
use crate::config::Config;
use crate::history::ReadLimits;
use crate::history::testing::{World, of, quote_at, time, trade_at};
use crate::http::openapi::testing::assert_documented;
use crate::live::{Newest, Screener};

const NOW: &str = "2024-01-05T17:00:00Z";

async fn known(mut request: Request, next: Next) -> Response {
    let (account, key_id) = ("TA1".to_owned(), "TL1".to_owned());
    let scopes = vec![Scope::MarketDataRead];
    request.extensions_mut().insert(Arc::new(Identity { account, key_id, scopes }));
    next.run(request).await
}

fn router(sets: &[&str]) -> Router {
    let world = World::new(ReadLimits::default());
    world.put_blocks(&[
        trade_at(time("2024-01-03T15:00:00Z"), 1, "180", 10),
        trade_at(time("2024-01-04T15:00:00Z"), 2, "182", 20),
        trade_at(time("2024-01-05T14:30:00Z"), 3, "181", 100),
        trade_at(time("2024-01-05T14:30:30Z"), 4, "183.5", 300),
        trade_at(time("2024-01-05T14:31:00Z"), 5, "182.5", 100),
        of("AAA", trade_at(time("2024-01-05T14:30:00Z"), 6, "0.5", 5)),
    ]);
    world.put_tail(&[quote_at(time("2024-01-05T14:30:01Z").0, 1, 0, 3)]);
    let reader = Arc::clone(&world.reader);
    let config = Arc::new(Config::with(sets).unwrap());
    let newest = Arc::new(Newest::new(Arc::clone(&reader), config.live.latest_symbols_max));
    let screener = Arc::new(Screener::new(Arc::clone(&reader), config.live.latest_symbols_max, time(NOW)));
    let data = MarketData { reader, newest, screener, config, clock: Arc::new(|| time(NOW)) };
    super::routes::<MarketData>().with_state(data).layer(from_fn(known))
}

fn get(router: &Router, uri: &str) -> (StatusCode, Value) {
    let work = async {
        let response = router.clone().oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap();
        if uri != "/udf/time" {
            assert_documented("get", uri, status.as_u16(), &json);
        }
        (status, json)
    };
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn ok(router: &Router, uri: &str) -> Value {
    let (status, json) = get(router, uri);
    assert_eq!(status, StatusCode::OK, "{uri} {json}");
    json
}

fn seconds(text: &str) -> i64 {
    time(text).0 / 1_000_000_000
}

#[test]
fn bars_are_columns_and_to_is_not_included() {
    let router = router(&[]);
    let (first, second) = (seconds("2024-01-05T14:30:00Z"), seconds("2024-01-05T14:31:00Z"));
    let uri = |from: i64, to: i64| format!("/udf/history?symbol=AAPL&resolution=1&from={from}&to={to}");
    let both = ok(&router, &uri(first, second + 1));
    let expected = json!({"s": "ok", "t": [first, second], "o": [181, 182.5], "h": [183.5, 182.5],
        "l": [181, 182.5], "c": [183.5, 182.5], "v": [400, 100]});
    assert_eq!(both, expected);
    assert_eq!(ok(&router, &uri(first, second))["t"], json!([first]));
    assert_eq!(ok(&router, &uri(first + 1, second + 1))["t"], json!([second]));
    let one = self::router(&["history.page_limit_max=1", "history.page_limit_default=1"]);
    assert_eq!(ok(&one, &uri(first, second + 1))["t"], json!([second]), "the newest of too many");
}

#[test]
fn days_begin_at_midnight_utc_of_the_day_in_new_york() {
    let router = router(&[]);
    let day = |day: u32| seconds(&format!("2024-01-0{day}T00:00:00Z"));
    let uri = |from: i64, to: i64| format!("/udf/history?symbol=AAPL&resolution=1D&from={from}&to={to}");
    assert_eq!(ok(&router, &uri(day(3), day(6)))["t"], json!([day(3), day(4), day(5)]));
    assert_eq!(ok(&router, &uri(day(4), day(5)))["t"], json!([day(4)]));
    assert_eq!(ok(&router, &uri(day(3) + 1, day(4) + 1))["t"], json!([day(4)]));
    let week = ok(&router, &format!("/udf/history?symbol=AAPL&resolution=W&from=0&to={}", day(6)));
    assert_eq!((&week["t"], &week["c"]), (&json!([day(1)]), &json!([182.5])));
}

#[test]
fn countback_overrides_from_and_where_nothing_is_the_next_time_is_told() {
    let router = router(&[]);
    let to = seconds("2024-01-05T14:31:00Z") + 1;
    let back = |count: u32| {
        ok(&router, &format!("/udf/history?symbol=AAPL&resolution=1&from={to}&to={to}&countback={count}"))
    };
    assert_eq!(back(3)["c"], json!([182, 183.5, 182.5]));
    assert_eq!(back(9)["t"].as_array().unwrap().len(), 4);
    let (from, to) = (seconds("2024-01-04T18:00:00Z"), seconds("2024-01-05T00:00:00Z"));
    let gap = ok(&router, &format!("/udf/history?symbol=AAPL&resolution=1&from={from}&to={to}"));
    assert_eq!(gap, json!({"s": "no_data", "nextTime": seconds("2024-01-04T15:00:00Z")}));
    let before = ok(&router, "/udf/history?symbol=AAPL&resolution=1&from=0&to=10");
    assert_eq!(before, json!({"s": "no_data"}));
    let none = ok(&router, "/udf/history?symbol=NONE&resolution=1D&to=10&countback=5");
    assert_eq!(none, json!({"s": "no_data"}));
}

#[test]
fn errors_have_their_status_and_the_words_of_the_protocol() {
    let router = router(&[]);
    for (uri, status, field) in [
        ("/udf/history?symbol=AAPL&resolution=7X&from=1&to=2", 400, "resolution"),
        ("/udf/history?symbol=AAPL&resolution=1&to=2", 400, "from"),
        ("/udf/history?symbol=AAPL&resolution=1&from=x&to=2", 400, "from"),
        ("/udf/history?symbol=AAPL&resolution=1&from=3&to=2", 400, "to"),
        ("/udf/history?resolution=1&from=1&to=2", 400, "symbol"),
        ("/udf/history?symbol=AAPL&resolution=1&from=1&to=2&countback=0", 400, "countback"),
        ("/udf/symbols?symbol=NONE", 404, "symbol"),
        ("/udf/symbols?symbol=AAP", 404, "symbol"),
        ("/udf/quotes", 400, "symbols"),
        ("/udf/search?limit=x", 400, "limit"),
    ] {
        let (found, json) = get(&router, uri);
        assert_eq!((found.as_u16(), &json["field"]), (status, &json!(field)), "{uri} {json}");
        assert_eq!((&json["s"], &json["errmsg"]), (&json!("error"), &json["message"]), "{uri}");
    }
}

#[test]
fn symbols_are_found_and_described() {
    let router = router(&[]);
    let found = |query: &str| {
        let list = ok(&router, &format!("/udf/search?{query}"));
        list.as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["symbol"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(found("query=a"), ["AAA", "AAPL"]);
    assert_eq!(found("query=aap&type=stock&exchange=&limit=5"), ["AAPL"]);
    assert_eq!(found("query=&limit=1"), ["AAA"]);
    assert!(found("query=apple%20inc").is_empty() && found("query=a&type=bond").is_empty());
    let info = ok(&router, "/udf/symbols?symbol=US:AAPL");
    assert_eq!((&info["ticker"], &info["pricescale"]), (&json!("AAPL"), &json!(100)));
    assert_eq!(ok(&router, "/udf/symbols?symbol=AAA")["pricescale"], 10_000);
    let config = ok(&router, "/udf/config");
    for text in config["supported_resolutions"].as_array().unwrap() {
        let uri = format!(
            "/udf/history?symbol=AAPL&resolution={}&to=9999999999&countback=1",
            text.as_str().unwrap()
        );
        assert_eq!(ok(&router, &uri)["s"], "ok", "{text}");
    }
    assert_eq!(get(&router, "/udf/time").1, json!(seconds(NOW)));
}

#[test]
fn quotes_tell_price_and_change() {
    let router = router(&[]);
    let quotes = ok(&router, "/udf/quotes?symbols=AAPL,NONE");
    let v = &quotes["d"][0]["v"];
    assert_eq!((&quotes["s"], &quotes["d"][0]["n"]), (&json!("ok"), &json!("AAPL")));
    assert_eq!((v["lp"].as_f64(), v["prev_close_price"].as_f64()), (Some(182.5), Some(182.0)));
    assert_eq!((v["ch"].as_f64(), v["volume"].as_u64()), (Some(0.5), Some(500)));
    assert!((v["chp"].as_f64().unwrap() - 0.274_725).abs() < 1e-4 && v["ask"].is_number(), "{v}");
    assert_eq!(quotes["d"][1]["s"], "error");
}
