//! Streams of subscriptions: each ends when its subscription is changed or deleted, and its client
//! connects again to what it says now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Subs, SubsError};
use crate::live::Live;

/// Between two looks at what other nodes have changed, at the least.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Ends streams whose subscriptions have changed: at once where that was on this node, else within
/// `subs.refresh_ms`.
pub async fn run_attached(subs: Arc<Subs>, hubs: Vec<Arc<Live>>, stop: CancellationToken) {
    let every = Duration::from_millis(subs.limits().refresh_ms).max(LOOK_MIN);
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = subs.changed() => Some(changed),
            _ = looks.tick() => None,
        };
        for live in &hubs {
            if let Err(error) = end_changed(&subs, live, changed.as_ref()).await {
                tracing::warn!(%error, "subscriptions of open streams could not be read again");
            }
        }
    }
}

/// Ends the streams of these accounts, or of all, whose subscriptions are others by now.
async fn end_changed(subs: &Subs, live: &Live, of: Option<&BTreeSet<String>>) -> Result<(), SubsError> {
    let mut attached = live.hub().attached();
    attached.retain(|account, _| of.is_none_or(|of| of.contains(account)));
    for (account, opened) in attached {
        let all = subs.list(&account, None, usize::MAX).await?.subscriptions;
        let versions: BTreeMap<String, u64> = all.into_iter().map(|row| (row.id, row.version)).collect();
        for (id, oldest) in opened {
            let version = match versions.get(&id) {
                Some(version) => Some(*version),
                // It may have been made while they were read.
                None => match subs.get(&account, &id).await {
                    Ok(row) => Some(row.version),
                    Err(SubsError::NoSuch(_)) => None,
                    Err(error) => return Err(error),
                },
            };
            if version.is_none_or(|version| oldest < version) {
                live.hub().end_attached(&account, &id, version);
            }
        }
    }
    Ok(())
}
