//! The hub's task: it fans out what the view hands over, as soon as it comes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Live, Turned};

/// Runs the hub until it is cancelled. What a turn came to is told to `turned`.
pub async fn run_hub(live: Arc<Live>, turned: impl Fn(&Turned) + Send + Sync, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = live.hub().queued() => {}
        }
        let done = live.hub().turn();
        if done.overrun {
            tracing::warn!(
                "streams are further behind than live.backlog_bytes_max; their clients read on from the tapes"
            );
        }
        turned(&done);
    }
}
