//! Streams as they are opened and ended by others.

use super::*;

/// A node that follows nothing yet.
pub(crate) async fn idle_node() -> Arc<Live> {
    Arc::clone(&World::new(1 << 20, 1 << 20).await.nodes[0].live)
}

/// A stream of a subscription.
pub(crate) fn open_attached(live: &Arc<Live>, attached: Attached) -> Stream {
    live.open(StreamAsk { attached: Some(attached), ..ask() }).unwrap()
}

#[tokio::test]
async fn a_session_is_taken_over_and_a_limit_of_a_key_holds() {
    let world = World::new(1 << 20, 1 << 20).await;
    let live = &world.nodes[0].live;
    let of_session = || StreamAsk { session: Some("s"), ..ask() };
    let mut first = live.open(of_session()).unwrap();
    let second = live.open(of_session()).unwrap();
    assert!(matches!(first.next(1).now_or_never(), Some(Next::End(End::TakenOver))));
    assert_eq!(live.hub.clients_of("key"), 2);
    drop((first, second));
    assert_eq!(live.hub.status().clients, 0);
    live.hub.end_revoked(|_| false);
    let mut third = live.open(ask()).unwrap();
    live.hub.end_revoked(|key| key != "key");
    assert!(matches!(third.next(1).now_or_never(), Some(Next::End(End::Revoked))));
}
