//! Every 4xx of the wire's table, through the real door, and the verdicts of ingest.

use serde_json::{Value, json};

use crate::node::{Node, answer, quote, trade};

const TIME: i64 = 1_704_292_200_000_000_000;

#[tokio::test]
async fn reading_refuses_what_it_cannot_answer_as_the_table_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let cases: &[(&str, u16, &str)] = &[
        ("/v2/stocks/trades", 400, "symbols"),
        ("/v2/stocks/trades?symbols=", 400, "symbol"),
        ("/v2/stocks/trades?symbols=A$L", 400, "invalid symbol: A$L"),
        ("/v2/stocks/trades?symbols=AAPL,b%20d", 400, "invalid symbol: b d"),
        ("/v2/stocks/trades?symbols=AAPL&start=yesterday", 400, "start"),
        ("/v2/stocks/trades?symbols=AAPL&end=2024-13-01", 400, "end"),
        (
            "/v2/stocks/trades?symbols=AAPL&start=2024-01-03&end=2024-01-02",
            400,
            "end should not be before start",
        ),
        ("/v2/stocks/trades?symbols=AAPL&limit=0", 400, "limit"),
        ("/v2/stocks/trades?symbols=AAPL&limit=10001", 400, "limit"),
        ("/v2/stocks/trades?symbols=AAPL&limit=x", 400, "limit"),
        ("/v2/stocks/trades?symbols=AAPL&sort=up", 400, "sort"),
        ("/v2/stocks/trades?symbols=AAPL&feed=nope", 400, "feed"),
        ("/v2/stocks/trades?symbols=AAPL&currency=EUR", 400, "currency"),
        ("/v2/stocks/trades?symbols=AAPL&page_token=AAAA", 400, "page_token"),
        ("/v2/stocks/trades?symbols=AAPL&colour=red", 400, "unexpected parameter(s): colour"),
        ("/v2/stocks/trades?symbols=AAPL&timeframe=1Min", 400, "unexpected parameter(s): timeframe"),
        ("/v2/stocks/bars?symbols=AAPL", 400, "timeframe"),
        ("/v2/stocks/bars?symbols=AAPL&timeframe=60Min", 400, "timeframe"),
        ("/v2/stocks/bars?symbols=AAPL&timeframe=1Min&adjustment=split", 400, "adjustment"),
        ("/v2/stocks/meta/conditions/trade", 400, "tape"),
        ("/v2/stocks/meta/conditions/trade?tape=Z", 400, "tape"),
        ("/v2/stocks/auctions?symbols=AAPL", 404, "auctions"),
        ("/v2/nothing/here", 404, ""),
        ("/nothing", 404, ""),
    ];
    for (path, status, message) in cases {
        let got = node.get(path).await;
        assert_eq!(got.status, *status, "{path}: {}", got.json);
        let text =
            got.json["message"].as_str().unwrap_or_else(|| panic!("{path}: no message in {}", got.json));
        assert!(text.contains(message), "{path}: {text}");
        assert!(got.json["code"].is_i64(), "{path}: {}", got.json);
        assert_eq!(got.headers["content-type"], "application/json", "{path}");
        assert!(
            got.headers.contains_key("X-Request-ID") && got.headers.contains_key("X-RateLimit-Limit"),
            "{path}"
        );
        assert!(!got.headers.contains_key("Retry-After"), "{path}");
    }
    let wrong_method = answer(
        node.client
            .delete(format!("{}/v2/stocks/trades", node.http))
            .header("APCA-API-KEY-ID", &node.read.id)
            .header("APCA-API-SECRET-KEY", &node.read.secret),
    )
    .await;
    assert_eq!(wrong_method.status, 405, "{}", wrong_method.json);
    assert!(wrong_method.json["message"].is_string(), "{}", wrong_method.json);
    let nobody = answer(node.client.get(format!("{}/v2/stocks/trades?symbols=A", node.http))).await;
    assert_eq!((nobody.status, nobody.json["message"].as_str()), (403, Some("forbidden.")));
    let writer = answer(
        node.client
            .get(format!("{}/v2/stocks/trades?symbols=A", node.http))
            .header("APCA-API-KEY-ID", &node.write.id)
            .header("APCA-API-SECRET-KEY", &node.write.secret),
    )
    .await;
    assert_eq!(writer.status, 403, "a key that may write does not read: {}", writer.json);
    node.stop().await;
}

#[tokio::test]
async fn writing_names_what_it_refuses_and_keeps_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let good = |i: u64| trade("GOOD", i, TIME);
    let changed = |field: &str, value: Value| {
        let mut tick = trade("BAD", 1, TIME);
        tick[field] = value;
        tick
    };
    let cases: &[(Value, &str)] = &[
        (changed("p", json!(0)), "p"),
        (changed("p", json!(-1)), "p"),
        (changed("p", json!("1")), "p"),
        (changed("s", json!(1.5)), "s"),
        (changed("s", json!(-1)), "s"),
        (changed("S", json!("A$L")), "S"),
        (changed("t", json!("2999-01-01T00:00:00Z")), "t"),
        (changed("t", json!("yesterday")), "t"),
        (changed("z", json!("Q")), "z"),
        (changed("x", json!("VV")), "x"),
        (changed("c", json!(["@", "TT"])), "c"),
        (changed("colour", json!("red")), "colour"),
        (changed("T", json!("k")), "T"),
        (
            json!({"T": "b", "S": "BAD", "o": 2, "h": 1, "l": 2, "c": 2, "v": 1, "t": "2024-01-03T14:30:00Z"}),
            "h",
        ),
    ];
    let mut ticks = vec![good(1)];
    for (bad, _) in cases {
        ticks.push(bad.clone());
        ticks.push(good(u64::try_from(ticks.len()).expect("few")));
    }
    let got = node.post_ticks(&ticks, "", None).await;
    assert_eq!(got.status, 200, "{}", got.json);
    assert_eq!(
        (got.count("accepted"), got.count("refused")),
        (cases.len() as u64 + 1, cases.len() as u64),
        "{}",
        got.json
    );
    let verdicts = got.json["verdicts"].as_array().expect("verdicts").clone();
    for (number, (verdict, (_, field))) in verdicts.iter().zip(cases).enumerate() {
        assert_eq!(verdict["index"].as_u64(), Some(number as u64 * 2 + 1), "{verdict}");
        assert_eq!(verdict["field"].as_str(), Some(*field), "{verdict}");
        for part in ["value", "why", "expected"] {
            assert!(!verdict[part].is_null(), "{part} of {verdict}");
        }
    }
    let after = format!("&after={}", got.json["position"].as_str().expect("a position"));
    assert_eq!(node.history("trades", "GOOD", &after).await.len(), cases.len() + 1);
    assert!(node.history("trades", "BAD", "").await.is_empty());
    let all_bad = node.post_ticks(&[cases[0].0.clone()], "", None).await;
    assert_eq!((all_bad.status, all_bad.count("refused")), (200, 1), "{}", all_bad.json);
    let atomic = node.post_ticks(&[good(900), cases[0].0.clone()], "?atomic=true", None).await;
    assert_eq!(
        (atomic.status, atomic.json["verdicts"].as_array().map(Vec::len)),
        (422, Some(1)),
        "{}",
        atomic.json
    );
    let checked = node.post_ticks(&[good(901), cases[0].0.clone()], "?validate=true", None).await;
    assert_eq!((checked.status, checked.count("refused")), (200, 1), "{}", checked.json);
    let ids: Vec<u64> =
        node.history("trades", "GOOD", "").await.iter().filter_map(|tick| tick["i"].as_u64()).collect();
    assert!(!ids.contains(&900) && !ids.contains(&901), "{ids:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_whole_and_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node =
        Node::new(folder.path(), &["--set", "ingest.ticks_max=100", "--set", "http.body_bytes_max=100000"]);
    node.start().await;
    let json_type = "application/json";
    let line = trade("X", 1, TIME).to_string();
    let cases: &[(&str, &str, String, u16, &str)] = &[
        ("", json_type, "[{".to_owned(), 400, "byte"),
        ("", json_type, "not json".to_owned(), 400, "byte"),
        ("", json_type, format!("[{line},]"), 400, "byte"),
        ("", "application/x-ndjson", format!("{line}\n{{\"T\":"), 400, "line 2"),
        ("", "text/plain", line.clone(), 415, "application/json"),
        ("?colour=red", json_type, format!("[{line}]"), 400, "colour"),
        ("?atomic=perhaps", json_type, format!("[{line}]"), 400, "atomic"),
        ("?ack=moon", json_type, format!("[{line}]"), 400, "ack"),
        ("", json_type, format!("[{}]", vec![line.as_str(); 101].join(",")), 413, "100"),
        ("", json_type, format!("[{line}{}]", " ".repeat(200_000)), 413, "bytes"),
    ];
    for (query, content_type, body, status, message) in cases {
        let got = answer(node.post(query, content_type, body.clone())).await;
        let text = got.json["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(got.status, *status, "{query} {}: {}", &body[..body.len().min(60)], got.json);
        assert!(text.contains(message), "{query} {}: {text}", &body[..body.len().min(60)]);
    }
    let reader = answer(
        node.client
            .post(format!("{}/v1/ticks", node.http))
            .header("APCA-API-KEY-ID", &node.read.id)
            .header("APCA-API-SECRET-KEY", &node.read.secret)
            .header("Content-Type", json_type)
            .body("[]"),
    )
    .await;
    assert_eq!(reader.status, 403, "a key that may read does not write: {}", reader.json);
    let nobody = answer(
        node.client.post(format!("{}/v1/ticks", node.http)).header("Content-Type", json_type).body("[]"),
    )
    .await;
    assert_eq!(nobody.status, 401, "{}", nobody.json);
    assert!(nobody.headers.contains_key("WWW-Authenticate"));
    let first = node.post_ticks(&[quote("K", 1, TIME)], "", Some("one key")).await;
    let second = node.post_ticks(&[quote("K", 2, TIME)], "", Some("one key")).await;
    assert_eq!(
        (first.status, second.status, second.json["reason"].as_str()),
        (200, 422, Some("key_reused")),
        "{}",
        second.json
    );
    assert!(node.history("trades", "X", "").await.is_empty(), "nothing of an unreadable body is kept");
    node.stop().await;
}

#[tokio::test]
async fn bodies_come_plain_gzipped_and_as_zstd() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let lines =
        |symbol: &str| (0..500).map(|i| trade(symbol, i, TIME).to_string()).collect::<Vec<_>>().join("\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, lines("GZIP").as_bytes()).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let zstd = zstd::encode_all(lines("ZSTD").as_bytes(), 3).expect("memory");
    for (encoding, body) in [("gzip", gzip), ("zstd", zstd)] {
        let got =
            answer(node.post("", "application/x-ndjson", body).header("Content-Encoding", encoding)).await;
        assert_eq!((got.status, got.count("accepted")), (200, 500), "{encoding}: {}", got.json);
        let after = format!("&after={}", got.json["position"].as_str().expect("a position"));
        assert_eq!(node.history("trades", &encoding.to_uppercase(), &after).await.len(), 500);
    }
    let bomb = zstd::encode_all(&vec![b' '; 200 << 20][..], 3).expect("memory");
    let got = answer(node.post("", "application/x-ndjson", bomb).header("Content-Encoding", "zstd")).await;
    assert_eq!(got.status, 413, "{}", got.json);
    let broken =
        answer(node.post("", "application/x-ndjson", "not gzip").header("Content-Encoding", "gzip")).await;
    assert_eq!(broken.status, 400, "{}", broken.json);
    let unknown = answer(node.post("", "application/x-ndjson", "x").header("Content-Encoding", "br")).await;
    assert_eq!(unknown.status, 415, "{}", unknown.json);
    node.stop().await;
}
