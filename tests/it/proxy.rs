//! A proxy that cuts connections on purpose, and what producers see of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use crate::node::{Node, answer, client, quote};

/// Passes requests on; of the first `cuts` answers not a byte comes back.
pub struct Proxy {
    pub address: SocketAddr,
    pub cut: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(target: String, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, counter) = (target.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&target).await else { return };
                    let _ = pass(client, server, &counter, cuts).await;
                });
            }
        });
        Self { address, cut }
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    counter: &AtomicUsize,
    cuts: usize,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from_server.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if counter.load(Ordering::SeqCst) < cuts {
            counter.fetch_add(1, Ordering::SeqCst);
            up.abort();
            return Ok(());
        }
        to_client.write_all(&buffer[..count]).await?;
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_is_asked_for_again_and_nothing_is_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let proxy = Proxy::start(node.http.trim_start_matches("http://").to_owned(), 3).await;
    let ticks: Vec<_> = (0..40).map(|i| quote("CUT", 100 + i, 1_704_292_200_000_000_000)).collect();
    let body = serde_json::to_vec(&ticks).expect("JSON");
    let client = client();
    let mut answers = Vec::new();
    for _ in 0..5 {
        let request = client
            .post(format!("http://{}/v1/ticks", proxy.address))
            .header("APCA-API-KEY-ID", &node.write.id)
            .header("APCA-API-SECRET-KEY", &node.write.secret)
            .header("Content-Type", "application/json")
            .body(body.clone());
        answers.push(answer(request).await.status);
    }
    assert_eq!(answers, [0, 0, 0, 200, 200]);
    assert_eq!(proxy.cut.load(Ordering::SeqCst), 3);
    assert_eq!(
        node.history("quotes", "CUT", "").await.len(),
        40,
        "the body is the request's name where no key is given"
    );
    node.stop().await;
}
