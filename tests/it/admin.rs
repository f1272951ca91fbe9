//! `keys` and `verify` on the machine of a node: while it runs, when it was stopped, after a kill,
//! and where something else has taken its port.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node::{Key, Node, trade};

const TIME: i64 = 1_704_292_200_000_000_000;

/// Runs a subcommand to its end: exit code, standard output, standard error.
async fn run(node: &Node, subcommand: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let output = node.command(subcommand).args(words).output().await.expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `tapeline keys create`, as somebody does who has lost every secret.
async fn new_key(node: &Node, scope: &str) -> Key {
    let (code, out, error) = run(node, "keys", &["create", "--scope", scope, "--json"]).await;
    assert_eq!(code, Some(0), "{error}");
    let key: Value = serde_json::from_str(&out).expect("JSON");
    let text = |name: &str| key[name].as_str().expect("text").to_owned();
    Key { id: text("id"), secret: text("secret") }
}

#[tokio::test]
async fn a_lost_secret_is_replaced_on_a_running_and_on_a_stopped_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    // The keys that are still in the environment are of no use, and in the way of nothing.
    node.environment = [("TAPELINE_KEY_ID", "TLLOST"), ("TAPELINE_SECRET", "lost")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    node.write = new_key(&node, "ticks:write").await;
    assert_eq!(node.post_ticks(&[trade("LOST", 1, TIME)], "", None).await.status, 200, "at once");
    node.stop().await;
    node.read = new_key(&node, "md:read").await;
    node.start().await;
    assert_eq!(node.history("trades", "LOST", "").await.len(), 1);
    node.kill().await;
    node.write = new_key(&node, "ticks:write").await;
    node.start().await;
    assert_eq!(node.post_ticks(&[trade("LOST", 2, TIME)], "", None).await.status, 200, "also after a kill");
    node.stop().await;
}

#[tokio::test]
async fn rules_for_keys_are_the_same_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    for running in [true, false] {
        if !running {
            node.stop().await;
        }
        let (code, _, error) =
            run(&node, "keys", &["rotate", &node.read.id, "--grace-ms", "2592000001"]).await;
        assert!(code == Some(1) && error.contains("30 days"), "{running}: {error}");
        let past = ["create", "--scope", "md:read", "--expires", "2020-01-01T00:00:00Z"];
        let (code, _, error) = run(&node, "keys", &past).await;
        assert!(code == Some(1) && error.contains("future"), "{running}: {error}");
    }
}

#[tokio::test]
async fn verify_walks_through_a_running_node_and_falls_through_to_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &["--set", "history.linger_ms=200"]);
    node.start().await;
    assert_eq!(node.post_ticks(&[trade("WALK", 1, TIME)], "", None).await.status, 200);
    for after in ["while it runs", "again", "after a kill", "after a stop"] {
        match after {
            "after a kill" => node.kill().await,
            "after a stop" => {
                node.start().await;
                node.stop().await;
            }
            _ => {}
        }
        assert_eq!(folder.path().join("data/node.json").exists(), after != "after a stop");
        let (code, out, error) = run(&node, "verify", &[]).await;
        assert_eq!(
            (code, out.as_str()),
            (Some(0), "everything stored is as it was written\n"),
            "{after}: {error}"
        );
    }
}

#[tokio::test]
async fn one_walk_at_a_time_with_its_progress_and_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(
        folder.path(),
        &["--set", "history.linger_ms=200", "--set", "http.request_ms=4100", "--set", "http.body_ms=1000"],
    );
    node.start().await;
    let token = node.admin_token();
    let ask = async |method: reqwest::Method| {
        let request = node.client.request(method, format!("{}/admin/verify", node.admin));
        crate::node::answer(request.bearer_auth(&token)).await
    };
    assert_eq!(ask(reqwest::Method::GET).await.status, 404);
    let begun = ask(reqwest::Method::POST).await;
    assert_eq!((begun.status, &begun.json["id"]), (202, &Value::from(1)), "{}", begun.json);
    loop {
        let at = ask(reqwest::Method::GET).await;
        assert_eq!((at.status, &at.json["id"]), (200, &Value::from(1)), "{}", at.json);
        if at.json["state"] == "done" {
            assert_eq!(at.json["found"], 0, "{}", at.json);
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(reqwest::Method::POST).await.json["id"], 2);
    let nobody = crate::node::answer(node.client.get(format!("{}/admin/verify", node.admin))).await;
    assert_eq!(nobody.status, 401);
    node.stop().await;
}

/// What the admin door tells of the tapes: how far the node is, and how far history is.
#[tokio::test]
async fn the_status_of_tapes_and_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &["--set", "history.linger_ms=200", "--set", "node.name=n7"]);
    node.start().await;
    let token = node.admin_token();
    let ask = async |query: &str| {
        let request = node.client.get(format!("{}/v1/status{query}", node.admin));
        crate::node::answer(request.bearer_auth(&token)).await
    };
    assert_eq!(node.post_ticks(&[trade("AAPL", 1, TIME)], "", None).await.status, 200);
    let status = loop {
        let status = ask("").await;
        assert_eq!(status.status, 200, "{}", status.json);
        let regions = status.json["regions"].as_array().expect("regions");
        assert_eq!(regions.len(), 1, "{}", status.json);
        if (&regions[0]["history_behind_frames"], &status.json["tapes"][0]["why"])
            == (&0.into(), &Value::Null)
        {
            break status.json;
        }
        tokio::task::yield_now().await;
    };
    let (region, tape) = (&status["regions"][0], &status["tapes"][0]);
    assert_eq!((&status["node"], &tape["node"]), (&"n7".into(), &"n7".into()), "{status}");
    assert_eq!((&tape["tape"], &tape["state"]), (&status["tape"], &"live".into()), "{status}");
    assert_eq!(
        (&region["region"], &region["live"], &region["behind_frames"]),
        (&"local".into(), &1.into(), &0.into())
    );
    assert!(tape["next"].as_u64() > Some(1) && tape["history_next"]["local"] == tape["next"], "{status}");
    let shards = status["shards"].as_array().expect("shards");
    assert!(shards.len() == 16 && shards.iter().all(|shard| shard["unkept_ticks"] == 0), "{status}");
    assert_eq!(ask("?al=true").await.status, 400);
    let nobody = crate::node::answer(node.client.get(format!("{}/v1/status", node.admin))).await;
    assert_eq!(nobody.status, 401);
    let public = crate::node::answer(node.client.get(format!("{}/v1/status", node.http))).await;
    assert_eq!(public.status, 404, "it is of the admin door alone: {}", public.json);
    // That of the boot before has ended, which is told where it is asked for.
    node.stop().await;
    node.start().await;
    let request = node.client.get(format!("{}/v1/status?all=true", node.admin));
    let all = crate::node::answer(request.bearer_auth(node.admin_token())).await.json;
    let before = all["tapes"].as_array().expect("tapes").iter().find(|of| of["tape"] == status["tape"]);
    assert_eq!(before.expect("it is followed to its end")["state"], "ended", "{all}");
    node.stop().await;
}

/// Answers every request with an empty success, and keeps what it was sent.
async fn stranger(address: String, heard: std::sync::Arc<tokio::sync::Mutex<String>>) {
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port of the dead node");
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut bytes = vec![0; 4_096];
        let count = stream.read(&mut bytes).await.unwrap_or(0);
        heard.lock().await.push_str(&String::from_utf8_lossy(&bytes[..count]));
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
    }
}

#[tokio::test]
async fn whoever_takes_the_port_of_a_killed_node_is_not_taken_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    node.kill().await;
    let heard = std::sync::Arc::default();
    let address = node.admin.trim_start_matches("http://").to_owned();
    let squatter = tokio::spawn(stranger(address, std::sync::Arc::clone(&heard)));
    let token = token_in(&folder.path().join("data/node.json"));
    for (subcommand, words) in [("keys", &["list"][..]), ("verify", &[])] {
        let (code, _, error) = run(&node, subcommand, words).await;
        assert_eq!(code, Some(0), "{subcommand}: {error}");
    }
    let heard = heard.lock().await;
    assert!(heard.contains("GET /identity") && !heard.contains(&token), "{heard}");
    squatter.abort();
}

fn token_in(path: &Path) -> String {
    let file: Value = serde_json::from_slice(&std::fs::read(path).expect("a node file")).expect("JSON");
    file["admin_token"].as_str().expect("a token").to_owned()
}
