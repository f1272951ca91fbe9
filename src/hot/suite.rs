//! The conformance suite: what every backend of [`Hot`] must do while it is up and not full.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Hot;

/// Everything a [`Hot`] promises. `make` answers a new empty one at each call.
pub(crate) async fn hot<H: Hot>(make: impl Fn() -> Arc<H>) {
    publishes(&*make()).await;
    caches(&*make()).await;
    counts(&*make()).await;
}

async fn publishes(hot: &dyn Hot) {
    hot.publish(Bytes::from_static(b"before")).await.unwrap();
    let mut first = hot.subscribe().await.unwrap();
    let mut second = hot.subscribe().await.unwrap();
    hot.publish(Bytes::from_static(b"one")).await.unwrap();
    hot.publish(Bytes::from_static(b"two")).await.unwrap();
    for subscription in [&mut first, &mut second] {
        // A backend may reorder; while it is up and not full it drops nothing.
        let mut seen = [subscription.next().await.unwrap(), subscription.next().await.unwrap()];
        seen.sort();
        assert_eq!(seen, ["one", "two"]);
        assert_eq!(subscription.dropped(), 0);
    }
    drop(first);
    hot.publish(Bytes::from_static(b"three")).await.unwrap();
    assert_eq!(second.next().await.unwrap(), "three");
}

async fn caches(hot: &dyn Hot) {
    let (second, value) = (Duration::from_secs(1), Bytes::from_static(b"value"));
    assert_eq!(hot.cached("key", 5000).await, Ok(None));
    hot.cache("key", value.clone(), second, 5000).await.unwrap();
    assert_eq!(hot.cached("key", 5999).await, Ok(Some(value)));
    assert_eq!(hot.cached("key", 6000).await, Ok(None), "it lives for its time");
    assert_eq!(hot.cached("other", 5000).await, Ok(None));
    hot.cache("key", Bytes::from_static(b"new"), second, 7000).await.unwrap();
    assert_eq!(hot.cached("key", 7000).await.unwrap().unwrap(), "new");
}

async fn counts(hot: &dyn Hot) {
    let minute = Duration::from_mins(1);
    assert_eq!(hot.count("key", 2, minute, 60_000).await, Ok(2));
    assert_eq!(hot.count("key", 3, minute, 119_999).await, Ok(5));
    assert_eq!(hot.count("other", 1, minute, 119_999).await, Ok(1));
    assert_eq!(hot.count("key", 1, minute, 120_000).await, Ok(1), "a new window");
}
