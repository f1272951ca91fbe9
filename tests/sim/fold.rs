//! Bars, folded from what a node applies, copies and all.

use std::collections::BTreeMap;
use std::sync::Arc;

use tapeline::bars::{Fold, Period};
use tapeline::market::{Event, Nanos, Symbol, TickId};
use tapeline::tape::Frame;

use crate::checks::Check;
use crate::world::{Sim, WALL};

const IDS_BYTES_MAX: usize = 1 << 30;

/// A running bar of a symbol, and what it must come to.
pub struct Running {
    fold: Fold,
    sizes: BTreeMap<TickId, u32>,
}

pub type Folds = BTreeMap<Symbol, Running>;

impl Sim {
    pub fn fold(&mut self, node: usize, frame: &Arc<Frame>) {
        let rules = self.rules.fold;
        let start = Period::Minute.start(Nanos(WALL));
        for row in &frame.rows {
            let Event::Trade(trade) = &row.tick.event else { continue };
            let running = self.nodes[node].folds.entry(row.tick.symbol).or_insert_with(|| Running {
                fold: Fold::open(Period::Minute, start, IDS_BYTES_MAX).with_rules(rules),
                sizes: BTreeMap::new(),
            });
            running.fold.add(row);
            running.sizes.insert(row.id(), trade.size);
        }
    }

    /// The bar has each distinct trade once.
    pub fn check_fold(&mut self, node: usize) {
        let mut wrong = None;
        for (symbol, running) in &self.nodes[node].folds {
            let folded = running.fold.finish();
            let volume: u64 = running.sizes.values().map(|size| u64::from(*size)).sum();
            let bar = folded.and_then(|folded| folded.bar);
            if bar.is_none_or(|bar| bar.volume != volume || bar.trades != running.sizes.len() as u64) {
                wrong = Some(format!("bar of {symbol} at node {node} is {bar:?}, its trades have {volume}"));
            }
        }
        if let Some(what) = wrong {
            self.fail(Check::Fold, what);
        }
    }
}
