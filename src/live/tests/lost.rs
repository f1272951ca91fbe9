//! Frames that the view passes as lost.

use super::*;
use crate::market::Nanos;
use crate::tape::{FollowerEffect, ScannedTape, TapeRow};

const HOURS: u64 = 3_600_000;

/// A node finds a tape whose frames 1 to 7 have expired, and passes them. It has a frame of tape 9.
async fn pass(world: &mut World) {
    let live = Arc::clone(&world.nodes[0].live);
    *world.clock.lock() = 60 * HOURS;
    world.write(9, &["A"]).await;
    world.follow(0, 9);
    let row = TapeRow { low: 7, ..TapeRow::default() };
    let scanned = ScannedTape { tape: TapeId(8), row, written: Nanos(0) };
    for _ in 0..50 {
        *world.clock.lock() += 100;
        for effect in live.tape.view.change(|view, now| view.poll(now)) {
            live.tape.view.change(|view, now| match &effect {
                FollowerEffect::ScanTapes(of) => {
                    view.tapes_scanned(*of, Some(vec![scanned.clone()]), now);
                }
                FollowerEffect::Read { id, .. } => view.read_done(*id, Some(Vec::new()), now),
                FollowerEffect::PutGap(gap) => view.gap_put(gap, true, now),
                _ => {}
            });
        }
    }
    world.write(9, &["A"]).await;
    world.follow(0, 9);
}

#[tokio::test]
async fn frames_that_are_passed_are_told_to_each_stream_in_their_turn() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let mut stream = live.open(ask()).unwrap();
    let mut nothing = live.open(ask()).unwrap();
    stream.subscribe(&interest(&["A"]), None, |_| None);
    pass(&mut world).await;
    live.hub.turn();
    let covers = |stream: &Stream| position(stream).unwrap().tapes.get(&TapeId(8)).map(|own| own.next);
    let Some(Next::Message(Taken::Data(pieces))) = at_once(&mut stream).await else { panic!("a tick") };
    assert_eq!(pieces.len(), 1);
    assert!(covers(&stream).is_none_or(|next| next < 8), "no cursor passes what is not told");
    let Some(Next::Gap(gap)) = at_once(&mut stream).await else { panic!("a gap") };
    assert_eq!(gap.reason, GapReason::Lost);
    assert_eq!(gap.from, at(60 * HOURS).wall, "when the last tick before was received");
    assert!(gap.to > gap.from && gap.to <= at(60 * HOURS + 5_000).wall);
    let Some(Next::Message(Taken::Data(pieces))) = at_once(&mut stream).await else { panic!("a tick") };
    assert_eq!((pieces.len(), covers(&stream)), (1, Some(8)));
    assert!(at_once(&mut stream).await.is_none() && at_once(&mut nothing).await.is_none());
}
