//! TLS of the public door: real handshakes with a client that checks the certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tapeline::http::tls::development::{Development, make};
use tapeline::market::Nanos;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::node::{Node, tapeline, trade};

const NANOS: i64 = 1_704_292_200_000_000_000;

fn pair() -> Development {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    make(&hosts, 30, Nanos(i64::try_from(now).expect("before 2262"))).expect("a certificate")
}

fn write(folder: &Path, pair: &Development) {
    for (name, text) in [("ca", &pair.ca), ("cert", &pair.cert), ("key", &pair.key)] {
        let path = folder.join(format!("{name}.pem"));
        // As whoever renews it: whole files, one after the other.
        let beside = folder.join("beside.pem");
        fs::write(&beside, text).expect("a file");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("its mode");
        fs::rename(&beside, path).expect("a file");
    }
}

/// A client that trusts one authority and nothing else.
fn client(ca: &str) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem(ca.as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60));
    client.tls_certs_only([authority]).build().expect("a client")
}

/// A node that serves this pair, not started yet.
fn node(folder: &Path, pair: &Development, more: &[&str]) -> Node {
    write(folder, pair);
    let file = |name: &str| format!("http.tls_{name}={}", folder.join(format!("{name}.pem")).display());
    let (cert, key) = (file("cert"), file("key"));
    let mut flags = vec!["--set", cert.as_str(), "--set", key.as_str(), "--set", "http.tls_reload_ms=100"];
    flags.extend(more);
    let mut node = Node::new(folder, &flags);
    node.client = client(&pair.ca);
    node
}

/// A handshake by hand.
async fn connect(
    node: &Node,
    ca: &str,
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let address = node.http.strip_prefix("https://").expect("the ready file says https");
    let stream = TcpStream::connect(address).await.expect("the door is open");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The certificate that a new connection is shown, where it comes from this authority.
async fn shown(node: &Node, ca: &str) -> Option<CertificateDer<'static>> {
    let stream = connect(node, ca, &[], rustls::ALL_VERSIONS).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates().expect("a chain");
    Some(chain.first().expect("a certificate").clone().into_owned())
}

fn leaf(pair: &Development) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM")
}

#[tokio::test]
async fn ticks_go_in_and_out_over_tls() {
    let (folder, pair) = (tempfile::tempdir().expect("a folder"), pair());
    let mut node = node(folder.path(), &pair, &[]);
    node.start().await;
    assert!(node.http.starts_with("https://127.0.0.1:") && node.admin.starts_with("http://"));
    let got = node.post_ticks(&[trade("TLS", 7, NANOS)], "", None).await;
    assert_eq!((got.status, got.count("accepted")), (200, 1), "{}", got.json);
    assert_eq!(node.history("trades", "TLS", "").await.len(), 1);
    let ca = folder.path().join("ca.pem");
    let mut query = tapeline("query");
    query.args(["trades", "TLS", "--start", "2024-01-01", "--format", "ndjson", "--ready-file"]);
    query.arg(folder.path().join("ready.json")).arg("--ca").arg(&ca);
    let output = query.output().await.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("\"i\":7"), "{said} {output:?}");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn who_does_not_trust_the_authority_is_not_served_and_says_so() {
    let (folder, pair, other) = (tempfile::tempdir().expect("a folder"), pair(), pair());
    let mut node = node(folder.path(), &pair, &[]);
    node.start().await;
    assert!(shown(&node, &pair.ca).await.is_some() && shown(&node, &other.ca).await.is_none());
    let request = client(&other.ca).get(format!("{}/openapi.json", node.http)).send().await;
    assert!(request.is_err(), "{request:?}");
    let wrong = folder.path().join("other.pem");
    fs::write(&wrong, &other.ca).expect("a file");
    let mut query = tapeline("query");
    query.args(["trades", "TLS", "--start", "2024-01-01", "--ready-file"]);
    query.arg(folder.path().join("ready.json")).arg("--ca").arg(&wrong);
    let output = query.output().await.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("not trusted"), "{said}");
    let plain = node.client.get(node.http.replacen("https", "http", 1)).send().await;
    assert!(plain.is_err(), "no plain HTTP on this door: {plain:?}");
}

#[tokio::test]
async fn http_2_is_chosen_by_the_client_and_old_tls_is_not_spoken() {
    let (folder, pair) = (tempfile::tempdir().expect("a folder"), pair());
    let mut node = node(folder.path(), &pair, &[]);
    node.start().await;
    let old = connect(&node, &pair.ca, &[], &[&rustls::version::TLS12]).await;
    assert!(old.is_err(), "TLS 1.2 is an option");
    for (asked, chosen) in [(&["http/1.1", "h2"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let stream = connect(&node, &pair.ca, asked, rustls::ALL_VERSIONS).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen.as_bytes()));
    }
    let stream = connect(&node, &pair.ca, &["h2"], rustls::ALL_VERSIONS).await.expect("a handshake");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let driven = tokio::spawn(connection);
    let uri = format!("{}/openapi.json", node.http);
    let request = axum::http::Request::get(uri).body(()).expect("a request");
    let (response, _) = client.send_request(request, true).expect("it is sent");
    assert_eq!(response.await.expect("an answer").status(), 200);
    driven.abort();
}

#[tokio::test]
async fn what_is_no_http_is_answered_in_the_envelope_over_tls_too() {
    let (folder, pair) = (tempfile::tempdir().expect("a folder"), pair());
    let more = ["--set", "http.tls_min_version=1.2"];
    let mut node = node(folder.path(), &pair, &more);
    node.start().await;
    let versions = [&rustls::version::TLS12];
    let mut stream = connect(&node, &pair.ca, &[], &versions).await.expect("TLS 1.2, as configured");
    stream.write_all(b"no http\r\n\r\n").await.expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and a goodbye");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("\r\nx-request-id: "), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["reason"], "no_http");
}

#[tokio::test]
async fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let (folder, first, second) = (tempfile::tempdir().expect("a folder"), pair(), pair());
    let mut node = node(folder.path(), &first, &[]);
    node.start().await;
    assert_eq!(shown(&node, &first.ca).await, Some(leaf(&first)));
    let mut open = connect(&node, &first.ca, &["http/1.1"], rustls::ALL_VERSIONS).await.expect("a handshake");
    write(folder.path(), &second);
    let mut looks = 0;
    while shown(&node, &second.ca).await.is_none() {
        looks += 1;
        assert!(looks < 2_000, "the new certificate is never served");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shown(&node, &second.ca).await, Some(leaf(&second)));
    open.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    open.read_to_end(&mut answer).await.expect("an open connection goes on");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    fs::write(folder.path().join("cert.pem"), "broken").expect("a file");
    let checked = async |status: &str| {
        for _ in 0..2_000 {
            let answer = node.client.get(format!("{}/readyz", node.admin)).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "a node with an old certificate is ready");
            let report: serde_json::Value =
                serde_json::from_str(&answer.text().await.expect("a report")).expect("JSON");
            let checks = report["checks"].as_array().expect("checks");
            let check = checks.iter().find(|check| check["name"] == "tls").expect("a check");
            if check["status"] == status {
                return check["reason"].to_string();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the check never said {status}");
    };
    let warned = checked("warn").await;
    assert!(warned.to_string().contains("cert.pem"), "{warned}");
    assert_eq!(shown(&node, &second.ca).await, Some(leaf(&second)), "the old one is kept");
    assert!(node.log().contains("the old TLS certificate is kept"));
    write(folder.path(), &first);
    checked("ok").await;
    assert_eq!(shown(&node, &first.ca).await, Some(leaf(&first)));
}

#[tokio::test]
async fn a_pair_that_cannot_be_served_ends_the_start_by_name() {
    let (folder, pair) = (tempfile::tempdir().expect("a folder"), pair());
    let mut node = node(folder.path(), &pair, &[]);
    let key = folder.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("its mode");
    let said = node.try_start().await.expect_err("everyone may read the key");
    assert!(said.contains("http.tls_key") && said.contains(&key.display().to_string()), "{said}");
    assert!(said.contains("tapeline cert"), "{said}");
}
