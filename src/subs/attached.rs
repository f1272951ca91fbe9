//! Streams of subscriptions: each ends when its subscription is changed or deleted, and its client
//! connects again to what it says now.
//!
//! A change made on this node ends them before it is answered ([`crate::live::Hub::end_attached`]),
//! so that ticks after the answer come under the new terms. A change made on another node does within
//! `subs.refresh_ms` ([`run_attached`]): what comes until then comes under the old ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Subs, SubsError};
use crate::live::{Attached, Live};

/// Between two looks at what other nodes have changed, at the least.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Ends streams whose subscriptions other nodes have changed.
pub async fn run_attached(subs: Arc<Subs>, hubs: Vec<Arc<Live>>, stop: CancellationToken) {
    let every = Duration::from_millis(subs.limits().refresh_ms).max(LOOK_MIN);
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        for live in &hubs {
            for attached in live.hub().attached() {
                end_changed(&subs, live, &attached).await;
            }
        }
    }
}

/// Ends the streams that were opened with this state of a subscription, where it is another by now.
pub async fn end_changed(subs: &Subs, live: &Live, attached: &Attached) {
    let Attached { account, id, delivers } = attached;
    let now = match subs.get(account, id).await {
        Ok(row) => Some(row.attached().delivers),
        Err(SubsError::NoSuch(_)) => None,
        Err(error) => {
            tracing::warn!(%error, id, "the subscription of an open stream could not be read again");
            return;
        }
    };
    if now != Some(*delivers) {
        live.hub().end_attached(account, id, now);
    }
}
