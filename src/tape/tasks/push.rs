//! Frames handed from node to node of a region, so that nobody waits for the next poll.
//!
//! A hint is a durable frame's row. It may come late, twice or not at all: it goes through the same
//! door as a frame that was polled, and what is missing is polled. Its seal says that it is of this
//! service, whoever put it there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::sealed::Sealed;
use super::view::SharedView;
use crate::hot::Hot;
use crate::store::{FrameRow, TapeId};

/// Tape and seq before the body.
const HEAD_BYTES: usize = 16;
/// Between two tries to subscribe.
const AGAIN: Duration = Duration::from_millis(500);

/// A frame's row as it is handed over.
fn hint(row: &FrameRow) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + row.body.len());
    bytes.put_u64(row.tape.0);
    bytes.put_u64(row.seq);
    bytes.put_slice(&row.body);
    bytes.freeze()
}

/// The row of a hint; its body is not looked at.
fn row_of(hint: &Bytes) -> Option<FrameRow> {
    let (head, _) = hint.split_at_checked(HEAD_BYTES)?;
    let (tape, seq) = head.split_at_checked(8)?;
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    Some(FrameRow { tape: TapeId(number(tape)?), seq: number(seq)?, body: hint.slice(HEAD_BYTES..) })
}

/// What hints have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushStats {
    /// Hints handed out.
    pub sent: u64,
    /// Hints that were not: too many waited, or the door was shut.
    pub dropped: u64,
    /// Hints of other nodes.
    pub received: u64,
    /// Those that are none of this service.
    pub refused: u64,
}

/// Frames on their way out, and what was counted.
pub struct Push {
    queue: Mutex<(VecDeque<FrameRow>, usize)>,
    queued: Notify,
    bytes_max: usize,
    sent: AtomicU64,
    dropped: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
}

impl Push {
    /// Of at most so many bytes that wait; more are dropped, and polled.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let [sent, dropped, received, refused] = Default::default();
        Self { queue: Mutex::default(), queued: Notify::new(), bytes_max, sent, dropped, received, refused }
    }

    /// Hands out a durable frame, as soon as it is its turn.
    pub fn offer(&self, row: FrameRow) {
        let mut queue = self.queue.lock();
        if queue.1 + row.body.len() > self.bytes_max {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.1 += row.body.len();
        queue.0.push_back(row);
        drop(queue);
        self.queued.notify_one();
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> PushStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PushStats {
            sent: read(&self.sent),
            dropped: read(&self.dropped),
            received: read(&self.received),
            refused: read(&self.refused),
        }
    }

    async fn next(&self) -> FrameRow {
        loop {
            let row = {
                let mut queue = self.queue.lock();
                let row = queue.0.pop_front();
                queue.1 -= row.as_ref().map_or(0, |row| row.body.len());
                row
            };
            match row {
                Some(row) => return row,
                None => self.queued.notified().await,
            }
        }
    }
}

/// Hands out what is offered, until it is cancelled.
pub async fn run_push(push: Arc<Push>, hot: Arc<dyn Hot>, stop: CancellationToken) {
    while let Some(row) = stop.run_until_cancelled(push.next()).await {
        let counter = match hot.publish(hint(&row)).await {
            Ok(()) => &push.sent,
            Err(error) => {
                tracing::debug!(%error, "a hint was not handed out");
                &push.dropped
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes the hints of others, until it is cancelled.
pub async fn run_hints(
    push: Arc<Push>,
    hot: Arc<dyn Hot>,
    view: Arc<SharedView>,
    sealed: Sealed,
    stop: CancellationToken,
) {
    let taking = async {
        loop {
            let mut subscription = match hot.subscribe().await {
                Ok(subscription) => subscription,
                Err(error) => {
                    tracing::debug!(%error, "hints of other nodes are not heard now");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            while let Some(hint) = subscription.next().await {
                push.received.fetch_add(1, Ordering::Relaxed);
                let frame = row_of(&hint).and_then(|row| sealed.open_frame(&row).ok());
                match frame {
                    Some(frame) => view.change(|view, now| view.accept(Arc::new(frame), now)),
                    None => _ = push.refused.fetch_add(1, Ordering::Relaxed),
                }
            }
        }
    };
    stop.run_until_cancelled(taking).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;

    fn row(seq: u64, bytes: usize) -> FrameRow {
        FrameRow { tape: TapeId(0x0102_0304_0506_0708), seq, body: vec![7; bytes].into() }
    }

    #[test]
    fn a_hint_is_read_back() {
        let bytes = hint(&row(3, 2));
        assert_eq!(bytes, golden::block("hint"), "docs/FORMATS.md, section 12");
        assert_eq!(row_of(&bytes), Some(row(3, 2)));
        assert_eq!(row_of(&bytes.slice(..15)), None);
        assert_eq!(row_of(&Bytes::new()), None);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes() {
        let push = Push::new(100);
        for seq in 1..=3 {
            push.offer(row(seq, 50));
        }
        assert_eq!(push.stats().dropped, 1);
        assert_eq!((push.next().await.seq, push.next().await.seq), (1, 2));
        push.offer(row(4, 100));
        assert_eq!(push.next().await.seq, 4);
    }
}
