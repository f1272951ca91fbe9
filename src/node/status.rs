//! How far a node and the histories of all regions are on each tape, and why not further:
//! `GET /v1/status` of the admin door, and the same as metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::tape::TapeTasks;
use crate::config::Config;
use crate::http::{ApiResult, Gate, Params, STATUS};
use crate::store::{StoreError, TapeId};
use crate::tape::tasks::{SharedView, ViewWorld, WriterHandle};
use crate::tape::{Backlog, Mono, Position, Region, SHARDS, Standing, TapeRow, TapeState};
use crate::telemetry::Metrics;

/// Tapes that an answer names; the others are counted.
const TAPES_MAX: usize = 1_000;

/// Answer of `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusOut {
    /// The node that answers.
    pub node: String,
    /// Its region.
    pub region: String,
    /// Its version.
    pub version: String,
    /// The tape that it writes, in hexadecimal.
    pub tape: String,
    /// How many bytes a cursor of this node has before it is signed.
    pub position_bytes: usize,
    /// Each region.
    pub regions: Vec<RegionOut>,
    /// Tapes, those that are furthest behind first; of the ones that have ended and are followed to
    /// their end only with `all=true`.
    pub tapes: Vec<TapeOut>,
    /// Further tapes.
    pub more_tapes: usize,
    /// The shards of the own region's history.
    pub shards: Vec<ShardOut>,
}

/// A region, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionOut {
    /// Its name.
    pub region: String,
    /// Its tapes that are followed.
    pub tapes: usize,
    /// Those of them that are written now: its nodes.
    pub live: usize,
    /// Its frames that are known of and not followed here yet.
    pub behind_frames: u64,
    /// Frames followed here, of all regions, that its history does not hold yet; none where its
    /// marks cannot be read.
    pub history_behind_frames: Option<u64>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A tape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapeOut {
    /// Its name, in hexadecimal.
    pub tape: String,
    /// The region that writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The node that writes it, where its registry could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `live`, `silent`, `closed` or `ended`.
    pub state: String,
    /// Whether it is on the region's list of tapes that have ended.
    pub retired: bool,
    /// All frames below were followed here, or given up on.
    pub next: u64,
    /// The highest frame that was ever seen.
    pub top: u64,
    /// The highest frame that is known to be acknowledged.
    pub acknowledged: u64,
    /// Frames that were given up on, and are asked for again.
    pub voids: usize,
    /// Milliseconds without anything new.
    pub silent_ms: u64,
    /// Frames that are known of and not followed here yet.
    pub behind_frames: u64,
    /// Why this node is behind, or may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// By region: all frames below are in its history.
    pub history_next: BTreeMap<String, u64>,
}

/// A shard of the own region's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOut {
    /// Its number.
    pub shard: u8,
    /// Ticks that wait for their block.
    pub unkept_ticks: usize,
    /// How long the oldest of them has waited, in milliseconds.
    pub oldest_ms: u64,
}

/// Where the answers come from.
pub(super) struct Standings {
    node: String,
    view: Arc<SharedView>,
    world: ViewWorld,
    writer: WriterHandle,
}

/// A region, and of each of its shards how far its mark reaches.
type Marks = (Region, Result<Vec<Position>, StoreError>);

/// A tape, and how far the history of each region holds it.
type Stands = (Standing, BTreeMap<Region, u64>);

/// The route.
pub(super) fn routes(standings: Arc<Standings>) -> Router<Arc<Gate>> {
    Router::new().route(STATUS, get(status).with_state(standings))
}

async fn status(
    State(standings): State<Arc<Standings>>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<StatusOut>> {
    let query = Params::decode(query.as_deref())?;
    query.only(&["all"])?;
    let all = query.switch("all")?;
    Ok(Json(standings.status(all).await))
}

impl Standings {
    pub(super) fn of(config: &Config, tape: &TapeTasks) -> Self {
        Self {
            node: config.node.name.clone(),
            view: Arc::clone(&tape.view),
            world: tape.world.clone(),
            writer: tape.writer.clone(),
        }
    }

    async fn marks(&self) -> Vec<Marks> {
        let mut regions = Vec::new();
        for region in self.world.regions.iter().copied() {
            let marks = self.world.marks(region).await.map(|marks| {
                let mark = |shard| marks.get(&shard).map(|mark| mark.position.clone()).unwrap_or_default();
                (0..SHARDS).map(mark).collect()
            });
            regions.push((region, marks));
        }
        regions
    }

    /// How far everybody is. The view is held for one tape at a time: there may be thousands.
    fn stands(&self, marks: &[Marks], now: Mono) -> Vec<Stands> {
        let standings = self.view.read(|view| view.follower().standings(now));
        let stands = standings.into_iter().map(|standing| {
            let history = self.view.read(|view| {
                let next = |marks: &[Position]| view.follower().meet_of(marks, standing.tape).next;
                let known = marks.iter().filter_map(|(region, marks)| Some((*region, marks.as_ref().ok()?)));
                known.map(|(region, marks)| (region, next(marks))).collect()
            });
            (standing, history)
        });
        stands.collect()
    }

    /// The registries as far as they can be read: names for people.
    async fn rows(&self) -> BTreeMap<TapeId, TapeRow> {
        let mut rows = BTreeMap::new();
        for region in self.world.regions.iter().copied() {
            let of_region = self.world.tapes(region).await.unwrap_or_default();
            rows.extend(of_region.into_iter().map(|scanned| (scanned.tape, scanned.row)));
        }
        rows
    }

    async fn status(&self, all: bool) -> StatusOut {
        let (marks, rows) = (self.marks().await, self.rows().await);
        let now = (self.world.now)().mono;
        let mut tapes = self.stands(&marks, now);
        let (backlog, position_bytes) =
            self.view.read(|view| (view.tail().backlog(), view.follower().position().encode().len()));
        let regions = marks.iter().map(|marks| of_region(marks, &tapes)).collect();
        tapes.retain(|(standing, history)| all || !is_over(standing, history));
        tapes.sort_by_key(|(standing, history)| {
            let behind = history.values().map(|next| standing.next.saturating_sub(*next)).max();
            std::cmp::Reverse((standing.behind(), behind))
        });
        let more_tapes = tapes.len().saturating_sub(TAPES_MAX);
        tapes.truncate(TAPES_MAX);
        StatusOut {
            node: self.node.clone(),
            region: self.world.region.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tape: TapeId(self.writer.status().tape).to_string(),
            position_bytes,
            regions,
            tapes: tapes.iter().map(|(standing, history)| of_tape(standing, history, &rows)).collect(),
            more_tapes,
            shards: shards(&backlog, now),
        }
    }

    /// Tells the metrics how far the regions are.
    pub(super) async fn measure(&self, metrics: &Metrics) {
        let marks = self.marks().await;
        let tapes = self.stands(&marks, (self.world.now)().mono);
        for region in marks.iter().map(|marks| of_region(marks, &tapes)) {
            let number = |frames: u64| i64::try_from(frames).unwrap_or(i64::MAX);
            let of = [region.region.as_str()];
            metrics.tape_behind_frames.with_label_values(&of).set(number(region.behind_frames));
            // Where the marks cannot be read the last number stays.
            if let Some(frames) = region.history_behind_frames {
                metrics.history_behind_frames.with_label_values(&of).set(number(frames));
            }
        }
    }
}

/// Whether nothing more is to come of a tape, and all histories hold it.
fn is_over(standing: &Standing, history: &BTreeMap<Region, u64>) -> bool {
    let is_kept = history.values().all(|next| *next >= standing.next);
    standing.is_retired && standing.why().is_none() && is_kept
}

fn of_region((region, marks): &Marks, tapes: &[Stands]) -> RegionOut {
    let own = tapes.iter().filter(|(standing, _)| standing.home == Some(*region));
    let behind = |(standing, history): &Stands| {
        history.get(region).map_or(0, |next| standing.next.saturating_sub(*next))
    };
    RegionOut {
        region: region.to_string(),
        tapes: own.clone().count(),
        live: own.clone().filter(|(standing, _)| standing.state == TapeState::Live).count(),
        behind_frames: own.map(|(standing, _)| standing.behind()).sum(),
        history_behind_frames: marks.is_ok().then(|| tapes.iter().map(behind).sum()),
        error: marks.as_ref().err().map(ToString::to_string),
    }
}

fn of_tape(
    standing: &Standing,
    history: &BTreeMap<Region, u64>,
    rows: &BTreeMap<TapeId, TapeRow>,
) -> TapeOut {
    let state = match standing.state {
        TapeState::Live => "live",
        TapeState::Silent => "silent",
        TapeState::Closed => "closed",
        TapeState::Ended => "ended",
    };
    TapeOut {
        tape: standing.tape.to_string(),
        region: standing.home.map(|home| home.to_string()),
        node: rows.get(&standing.tape).map(|row| row.node.clone()),
        state: state.to_owned(),
        retired: standing.is_retired,
        next: standing.next,
        top: standing.top,
        acknowledged: standing.low,
        voids: standing.voids,
        silent_ms: standing.silent_ms,
        behind_frames: standing.behind(),
        why: standing.why(),
        history_next: history.iter().map(|(region, next)| (region.to_string(), *next)).collect(),
    }
}

fn shards(backlog: &[Backlog], now: Mono) -> Vec<ShardOut> {
    let shard = |(shard, backlog): (u8, &Backlog)| ShardOut {
        shard,
        unkept_ticks: backlog.rows,
        oldest_ms: backlog.oldest.map_or(0, |oldest| now.since(oldest)),
    };
    (0..SHARDS).zip(backlog).map(shard).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::parse(name).unwrap()
    }

    fn stands(tape: u64, next: u64, top: u64, history: u64) -> Stands {
        let standing = Standing {
            tape: TapeId(tape),
            home: Some(region("a")),
            state: TapeState::Live,
            is_retired: false,
            next,
            voids: 0,
            top,
            low: top,
            silent_ms: 7,
            hole_ms: None,
            held: 0,
            reached_end: true,
            read_failed: false,
        };
        (standing, [(region("a"), history), (region("b"), next)].into())
    }

    #[test]
    fn a_region_is_as_far_as_its_tapes_and_its_marks() {
        let tapes = [stands(1, 10, 12, 6), stands(2, 5, 4, 5)];
        let out = of_region(&(region("a"), Ok(Vec::new())), &tapes);
        assert_eq!((out.tapes, out.live, out.behind_frames, out.history_behind_frames), (2, 2, 3, Some(4)));
        let out = of_region(&(region("a"), Err(StoreError::unknown("nobody answers"))), &tapes);
        assert_eq!((out.history_behind_frames, out.error.as_deref()), (None, Some("nobody answers")));
    }

    #[test]
    fn a_tape_tells_why_it_is_behind() {
        let (mut standing, history) = stands(1, 10, 12, 6);
        let rows = [(TapeId(1), TapeRow { node: "n1".to_owned(), ..TapeRow::default() })].into();
        let out = of_tape(&standing, &history, &rows);
        assert_eq!((out.state.as_str(), out.node.as_deref(), out.behind_frames), ("live", Some("n1"), 3));
        assert_eq!(out.history_next, BTreeMap::from([("a".to_owned(), 6), ("b".to_owned(), 10)]));
        let mut why = |change: fn(&mut Standing)| {
            change(&mut standing);
            standing.why()
        };
        assert_eq!(why(|_| ()).unwrap(), "the next frames are on their way");
        assert!(why(|of| of.voids = 2).unwrap().starts_with("2 frames were given up on"));
        assert!(why(|of| of.reached_end = false).unwrap().contains("first time"));
        assert_eq!(
            why(|of| (of.hole_ms, of.held) = (Some(400), 2)).unwrap(),
            "frame 10 has not come for 400 ms, 2 after it wait; region a is asked"
        );
        assert!(why(|of| of.read_failed = true).unwrap().contains("the store does not answer"));
    }

    #[test]
    fn what_has_ended_and_is_in_all_histories_is_over() {
        let (standing, history) = stands(1, 10, 9, 10);
        assert_eq!(standing.why(), None);
        assert!(!is_over(&standing, &history));
        let retired = Standing { is_retired: true, ..standing };
        assert!(is_over(&retired, &history));
        assert!(!is_over(&retired, &stands(1, 10, 9, 9).1));
        assert!(!is_over(&Standing { voids: 1, ..retired }, &history));
    }
}
