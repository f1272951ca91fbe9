//! Wakes one task, and remembers that it did.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use futures::task::AtomicWaker;

/// Rung by many, heard by one task. What rings while nobody listens is heard at the next listening,
/// once.
#[derive(Debug, Default)]
pub struct Bell {
    is_rung: AtomicBool,
    listener: AtomicWaker,
}

impl Bell {
    /// A bell that has been rung.
    #[must_use]
    pub const fn rung() -> Self {
        Self { is_rung: AtomicBool::new(true), listener: AtomicWaker::new() }
    }

    /// Rings it. One that is rung already has woken its listener.
    pub fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            self.listener.wake();
        }
    }

    /// Ready once where it was rung; else this task is woken when it is.
    pub fn poll_heard(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        self.listener.register(cx.waker());
        // It may have been rung before there was anybody to wake.
        if self.is_rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until it is rung.
    pub async fn heard(&self) {
        poll_fn(|cx| self.poll_heard(cx)).await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_rang_before_is_heard_once_and_what_rings_later_wakes() {
        let bell = Arc::new(Bell::default());
        bell.ring();
        bell.ring();
        bell.heard().await;
        assert!(futures::poll!(Box::pin(bell.heard())).is_pending());
        let listener = tokio::spawn({
            let bell = Arc::clone(&bell);
            async move { bell.heard().await }
        });
        tokio::task::yield_now().await;
        assert!(!listener.is_finished());
        bell.ring();
        listener.await.unwrap();
        assert!(futures::poll!(Box::pin(bell.heard())).is_pending(), "it was heard");
    }

    #[tokio::test]
    async fn rings_of_other_threads_are_never_lost() {
        let (bell, rings) = (Arc::new(Bell::default()), Arc::new(std::sync::atomic::AtomicU64::new(0)));
        const RINGS: u64 = 20_000;
        let ringer = std::thread::spawn({
            let (bell, rings) = (Arc::clone(&bell), Arc::clone(&rings));
            move || {
                for _ in 0..RINGS {
                    rings.fetch_add(1, Ordering::SeqCst);
                    bell.ring();
                }
            }
        });
        while rings.load(Ordering::SeqCst) < RINGS {
            bell.heard().await;
        }
        ringer.join().unwrap();
    }
}
