//! Requests that are answered when each region has their ticks: which frames they wait for.

use std::collections::HashMap;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};

use crate::market::RequestKey;
use crate::tape::Frame;

/// A frame on its way into all regions; true when each of them has it.
pub(super) type Spreading = Shared<BoxFuture<'static, bool>>;

/// The requests that wait, and the frames that hold ticks of them.
#[derive(Default)]
pub(super) struct Everywhere(HashMap<RequestKey, Waiting>);

#[derive(Default)]
struct Waiting {
    /// Who has sent the request and is not answered; a repetition may come before that.
    callers: usize,
    frames: Vec<Spreading>,
}

impl Everywhere {
    /// One more caller waits for a request.
    pub(super) fn wait(&mut self, request: RequestKey) {
        self.0.entry(request).or_default().callers += 1;
    }

    /// Whether a frame that this region has holds ticks that others must have too.
    pub(super) fn needs(&self, frame: &Frame) -> bool {
        !self.0.is_empty() && frame.pieces.iter().any(|piece| self.0.contains_key(&piece.request))
    }

    /// Such a frame is on its way.
    pub(super) fn spreads(&mut self, frame: &Frame, spreading: &Spreading) {
        let mut requests: Vec<_> = frame.pieces.iter().map(|piece| piece.request).collect();
        requests.sort_unstable();
        requests.dedup();
        for request in requests {
            if let Some(waiting) = self.0.get_mut(&request) {
                waiting.frames.push(spreading.clone());
            }
        }
    }

    /// A caller's request is whole in this region; answers whether it is in all, once that is known.
    pub(super) fn end(&mut self, request: RequestKey) -> BoxFuture<'static, bool> {
        let mut frames = Vec::new();
        if let Some(waiting) = self.0.get_mut(&request) {
            waiting.callers -= 1;
            frames.clone_from(&waiting.frames);
            if waiting.callers == 0 {
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
    async fn a_request_waits_for_each_of_its_frames_and_no_other() {
        let mut waits = Everywhere::default();
        assert!(!waits.needs(&frame(&REQUEST)), "nobody waits");
        waits.wait(REQUEST[0]);
        waits.wait(REQUEST[1]);
        waits.wait(REQUEST[1]);
        assert!(waits.needs(&frame(&REQUEST[..1])) && !waits.needs(&frame(&[])));
        waits.spreads(&frame(&REQUEST), &spread(true));
        waits.spreads(&frame(&REQUEST[1..]), &spread(false));
        assert_eq!(waits.0[&REQUEST[1]].frames.len(), 2, "once a frame");
        assert!(waits.end(REQUEST[0]).await);
        assert!(!waits.needs(&frame(&REQUEST[..1])), "it is answered");
        assert!(!waits.end(REQUEST[1]).await);
        assert!(waits.needs(&frame(&REQUEST[1..])), "another caller waits for it");
        assert!(!waits.end(REQUEST[1]).await);
        assert!(waits.0.is_empty());
    }
}
