//! What is under way on one connection, and for how long nothing has moved on it.
//!
//! A socket that takes no bytes is seen by who writes to it. An HTTP/2 peer can hold answers
//! back without that: it gives its streams no window, and answers pings. So each answer tells
//! its connection when a piece of it was taken, and the connection looks at the one that has
//! waited longest. An answer that lasts, and has nothing to give at the moment, does not count
//! until it has.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What is handed to the protocol layer at a time. It takes a piece only when it can send the
/// first byte of it, so this is also what a stalled HTTP/2 stream may hold beside its answer.
const PIECE_BYTES: usize = 16 * 1024;

/// The exchanges of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Requests that are not answered to the end; of those whose answer has begun, since when
    /// nothing of it was taken.
    under_way: Vec<(u64, Option<Instant>)>,
    /// When the last exchange ended, once there was one.
    idle_since: Option<Instant>,
    /// The connection speaks another protocol now, which has limits of its own.
    upgraded: bool,
}

impl State {
    fn find(&mut self, number: u64) -> Option<&mut (u64, Option<Instant>)> {
        self.under_way.iter_mut().find(|(of, _)| *of == number)
    }
}

/// A connection that has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// An answer is not taken.
    Stalled,
    /// There was no request for long.
    Idle,
}

impl Activity {
    /// A request came.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.under_way.push((number, None));
        Exchange { activity: Arc::clone(self), number }
    }

    fn set(&self, number: u64, since: Option<Instant>) {
        if let Some(exchange) = self.0.lock().find(number) {
            exchange.1 = since;
        }
    }

    /// The connection goes over to another protocol: from now on it is not looked after here.
    pub(super) fn upgrade(&self) {
        self.0.lock().upgraded = true;
    }

    /// Until when something must have moved, and what it is called if nothing has. Before the
    /// first request there is no such time, and none while handlers work.
    pub(super) fn due(&self, stall: Duration, idle: Duration) -> Option<(Instant, Overdue)> {
        let state = self.0.lock();
        if state.upgraded {
            return None;
        }
        if state.under_way.is_empty() {
            return state.idle_since.map(|since| (since + idle, Overdue::Idle));
        }
        let oldest = state.under_way.iter().filter_map(|(_, since)| *since).min();
        oldest.map(|since| (since + stall, Overdue::Stalled))
    }
}

/// A request until its answer was handed over to the end, or dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    number: u64,
}

impl Exchange {
    /// A piece of the answer was taken, or it is about to begin.
    fn moved(&self) {
        self.activity.set(self.number, Some(Instant::now()));
    }

    /// All of the answer that is there was taken: more is waited for here, not at the peer.
    /// Once the waker is woken there is more, and the peer has to take it.
    fn waits(&self, waker: &Waker) -> Waker {
        self.activity.set(self.number, None);
        let (activity, number) = (Arc::clone(&self.activity), self.number);
        Waker::from(Arc::new(More { activity, number, waker: waker.clone() }))
    }
}

/// Tells a connection that an answer has more to give, and wakes who sends it.
struct More {
    activity: Arc<Activity>,
    number: u64,
    waker: Waker,
}

impl Wake for More {
    fn wake(self: Arc<Self>) {
        // The answer may be gone by now.
        if let Some((_, since)) = self.activity.0.lock().find(self.number) {
            since.get_or_insert_with(Instant::now);
        }
        self.waker.wake_by_ref();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.0.lock();
        state.under_way.retain(|(number, _)| *number != self.number);
        state.idle_since = Some(Instant::now());
    }
}

/// An answer's body in pieces. What comes with it is held until it was handed over or dropped.
pub(super) struct AnswerBody<H> {
    body: Body,
    rest: Bytes,
    exchange: Option<Exchange>,
    _held: H,
}

impl<H> AnswerBody<H> {
    pub(super) fn new(body: Body, exchange: Option<Exchange>, held: H) -> Self {
        if let Some(exchange) = &exchange {
            exchange.moved();
        }
        Self { body, rest: Bytes::new(), exchange, _held: held }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        if let Some(exchange) = &self.exchange {
            exchange.moved();
        }
        let length = self.rest.len().min(PIECE_BYTES);
        Frame::data(self.rest.split_to(length))
    }
}

impl<H: Unpin> HttpBody for AnswerBody<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let polled = match (&self.exchange, polled) {
            (Some(exchange), Poll::Pending) => {
                let waker = exchange.waits(cx.waker());
                Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker))
            }
            (_, polled) => polled,
        };
        let frame = ready!(polled);
        Poll::Ready(frame.map(|frame| {
            let data = match frame?.into_data() {
                Ok(data) => data,
                Err(trailers) => return Ok(trailers),
            };
            self.rest = data;
            Ok(self.piece())
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const STALL: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_answer_that_waited_longest_counts_and_then_the_silence() {
        let activity = Arc::new(Activity::default());
        let begun = Instant::now();
        assert_eq!(activity.due(STALL, IDLE), None, "the first request has a limit of its own");
        let (first, second) = (activity.begin(), activity.begin());
        assert_eq!(activity.due(STALL, IDLE), None, "handlers have theirs");
        first.moved();
        tokio::time::advance(Duration::from_secs(4)).await;
        second.moved();
        assert_eq!(activity.due(STALL, IDLE), Some((begun + STALL, Overdue::Stalled)));
        drop(first);
        assert_eq!(activity.due(STALL, IDLE), Some((Instant::now() + STALL, Overdue::Stalled)));
        drop(second);
        assert_eq!(activity.due(STALL, IDLE), Some((Instant::now() + IDLE, Overdue::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_give_yet_is_not_stalled() {
        let activity = Arc::new(Activity::default());
        let (give, mut pieces) = tokio::sync::mpsc::channel::<Bytes>(1);
        let stream = futures::stream::poll_fn(move |cx| {
            pieces.poll_recv(cx).map(|piece| piece.map(Ok::<_, std::io::Error>))
        });
        let mut body = AnswerBody::new(Body::from_stream(stream), Some(activity.begin()), ());
        assert!(matches!(activity.due(STALL, IDLE), Some((_, Overdue::Stalled))), "its head is to be taken");
        assert!(futures::poll!(Box::pin(body.frame())).is_pending());
        assert_eq!(activity.due(STALL, IDLE), None);
        tokio::time::advance(STALL * 2).await;
        give.send(Bytes::from_static(b"piece")).await.unwrap();
        assert_eq!(
            activity.due(STALL, IDLE),
            Some((Instant::now() + STALL, Overdue::Stalled)),
            "it is to be taken, also where nobody looks for it"
        );
        assert!(body.frame().await.is_some());
        assert_eq!(activity.due(STALL, IDLE), Some((Instant::now() + STALL, Overdue::Stalled)));
        assert!(futures::poll!(Box::pin(body.frame())).is_pending());
        drop(body);
        drop(give);
        assert!(matches!(activity.due(STALL, IDLE), Some((_, Overdue::Idle))), "a late wake counts nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_goes_out_in_pieces_and_holds_what_it_was_given() {
        let activity = Arc::new(Activity::default());
        let held = Arc::new(());
        let bytes: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut body = AnswerBody::new(Body::from(bytes.clone()), Some(activity.begin()), Arc::clone(&held));
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        let mut taken = Vec::new();
        while !body.is_end_stream() {
            tokio::time::advance(Duration::from_secs(1)).await;
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            taken.extend_from_slice(&piece);
            assert_eq!(activity.due(STALL, IDLE), Some((Instant::now() + STALL, Overdue::Stalled)));
            assert_eq!(body.size_hint().exact(), Some((bytes.len() - taken.len()) as u64));
        }
        assert_eq!((taken, Arc::strong_count(&held)), (bytes, 2));
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(matches!(activity.due(STALL, IDLE), Some((_, Overdue::Idle))));
    }
}
