//! Requests that are answered when each region has their ticks: which frames they wait for.

use std::collections::{BTreeSet, HashMap};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};

use crate::market::RequestKey;
use crate::tape::{Frame, Token};

/// A frame on its way into all regions; true when each of them has it.
pub(super) type Spreading = Shared<BoxFuture<'static, bool>>;

/// The callers that wait, by their request: a repetition may come before the first is answered. Each
/// with the frames that hold ticks of that request and were acknowledged since it waits: its own are
/// among them.
#[derive(Default)]
pub(super) struct Everywhere(HashMap<RequestKey, Vec<(Token, Vec<Spreading>)>>);

impl Everywhere {
    /// A caller waits for a request.
    pub(super) fn wait(&mut self, request: RequestKey, caller: Token) {
        self.0.entry(request).or_default().push((caller, Vec::new()));
    }

    /// Whether a frame that this region has holds ticks that others must have too.
    pub(super) fn needs(&self, frame: &Frame) -> bool {
        !self.0.is_empty() && frame.pieces.iter().any(|piece| self.0.contains_key(&piece.request))
    }

    /// Such a frame is on its way.
    pub(super) fn spreads(&mut self, frame: &Frame, spreading: &Spreading) {
        let requests: BTreeSet<RequestKey> = frame.pieces.iter().map(|piece| piece.request).collect();
        for request in requests {
            for (_, frames) in self.0.get_mut(&request).into_iter().flatten() {
                frames.push(spreading.clone());
            }
        }
    }

    /// A caller's request is whole in this region, or refused; answers whether it is in all, once that
    /// is known.
    pub(super) fn end(&mut self, request: RequestKey, caller: Token) -> BoxFuture<'static, bool> {
        let mut frames = Vec::new();
        if let Some(callers) = self.0.get_mut(&request) {
            if let Some(at) = callers.iter().position(|(token, _)| *token == caller) {
                (_, frames) = callers.swap_remove(at);
            }
            if callers.is_empty() {
                self.0.remove(&request);
            }
        }
        join_all(frames).map(|spread| spread.into_iter().all(|everywhere| everywhere)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::ready;

    use super::*;
    use crate::market::Nanos;
    use crate::store::TapeId;
    use crate::tape::{BodyHash, Piece, Region};

    const REQUEST: [RequestKey; 2] = [RequestKey([1; 16]), RequestKey([2; 16])];

    /// A frame that holds ticks of these requests, two runs of each.
    fn frame(requests: &[RequestKey]) -> Frame {
        let piece = |request: &RequestKey| Piece {
            request: *request,
            body: BodyHash([1; 16]),
            first: 0,
            count: 1,
            backfill: false,
        };
        Frame {
            tape: TapeId(1),
            seq: 1,
            low: 0,
            home: Region::parse("here").unwrap(),
            received: Nanos(0),
            fin: false,
            pieces: requests.iter().chain(requests).map(piece).collect(),
            rows: Vec::new(),
        }
    }

    fn spread(everywhere: bool) -> Spreading {
        ready(everywhere).boxed().shared()
    }

    #[tokio::test]
    async fn a_caller_waits_for_the_frames_since_it_came_and_no_other() {
        let mut waits = Everywhere::default();
        assert!(!waits.needs(&frame(&REQUEST)), "nobody waits");
        waits.wait(REQUEST[0], Token(1));
        waits.wait(REQUEST[1], Token(2));
        assert!(waits.needs(&frame(&REQUEST[..1])) && !waits.needs(&frame(&[])));
        waits.spreads(&frame(&REQUEST), &spread(true));
        waits.spreads(&frame(&REQUEST[1..]), &spread(false));
        assert_eq!(waits.0[&REQUEST[1]][0].1.len(), 2, "once a frame");
        // The same request comes again before the first is answered.
        waits.wait(REQUEST[1], Token(3));
        waits.spreads(&frame(&REQUEST[1..]), &spread(true));
        assert!(waits.end(REQUEST[0], Token(1)).await);
        assert!(!waits.needs(&frame(&REQUEST[..1])), "it is answered");
        assert!(!waits.end(REQUEST[1], Token(2)).await, "one of its frames is not everywhere");
        assert!(waits.end(REQUEST[1], Token(3)).await, "its own are");
        assert!(waits.0.is_empty());
    }
}
