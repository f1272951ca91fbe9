//! Frames that the view passes as lost.

use super::*;
use crate::tape::{FollowerEffect, ScannedTape, TapeRow};

const HOURS: u64 = 3_600_000;

/// A node finds a tape whose frames 1 to 7 nobody has: they were written at this hour. It passes them.
/// It has a frame of tape 9.
async fn pass(world: &mut World, hour: u64) {
    let live = Arc::clone(&world.nodes[0].live);
    *world.clock.lock() = 60 * HOURS;
    world.write(9, &["A"]).await;
    world.follow(0, 9);
    let row = TapeRow { low: 7, ..TapeRow::default() };
    let scanned = ScannedTape { tape: TapeId(8), row, written: at(hour * HOURS).wall };
    for _ in 0..100 {
        *world.clock.lock() += 1_000;
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
    pass(&mut world, 60).await;
    live.hub.turn();
    let covers = |stream: &Stream| position(stream).unwrap().tapes.get(&TapeId(8)).map(|own| own.next);
    let Some(Next::Message(Taken::Data(pieces))) = at_once(&mut stream).await else { panic!("a tick") };
    assert_eq!(pieces.len(), 1);
    assert!(covers(&stream).is_none_or(|next| next < 8), "no cursor passes what is not told");
    let Some(Next::Gap(gap)) = at_once(&mut stream).await else { panic!("a gap") };
    assert_eq!(gap.reason, GapReason::Lost);
    assert_eq!(gap.from, at(60 * HOURS).wall, "when the last tick before was received");
    assert!(gap.to > gap.from && gap.to <= at(60 * HOURS + 100_000).wall);
    let Some(Next::Message(Taken::Data(pieces))) = at_once(&mut stream).await else { panic!("a tick") };
    assert_eq!((pieces.len(), covers(&stream)), (1, Some(8)));
    assert!(at_once(&mut stream).await.is_none() && at_once(&mut nothing).await.is_none());
}

#[tokio::test]
async fn frames_that_expired_long_ago_are_told_to_no_stream() {
    let mut world = World::new(1 << 20, 1 << 20).await;
    let live = Arc::clone(&world.nodes[0].live);
    let mut stream = live.open(ask()).unwrap();
    stream.subscribe(&interest(&["A"]), None, |_| None);
    pass(&mut world, 0).await;
    live.hub.turn();
    let Some(Next::Message(Taken::Data(pieces))) = at_once(&mut stream).await else { panic!("ticks") };
    assert_eq!(pieces.len(), 2, "and no gap between them");
    assert!(at_once(&mut stream).await.is_none());
    assert_eq!(position(&stream).unwrap().tapes[&TapeId(8)].next, 8, "they were passed");
}
