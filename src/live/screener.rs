//! The screener: the day's activity, and the closes before it as they are asked for.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use super::activity::{Active, Activity, By, Mover, most_active, movers, unread};
use crate::bars::Timeframe;
use crate::history::{BarQuery, ReadError, Reader};
use crate::market::{Nanos, Symbol};
use crate::store::Order;
use crate::tape::Delivery;

/// Closes that one request for movers reads at most: those of the most active symbols. The next
/// request reads the next ones.
const CLOSES_MAX: usize = 256;

/// The day's activity.
pub struct Screener {
    activity: Mutex<Activity>,
    reader: Arc<Reader>,
    /// Who reads closes now; others wait for that one.
    reading: Turn<()>,
}

impl Screener {
    /// Over this history, with so many symbols in memory, of what comes from now on.
    #[must_use]
    pub fn new(reader: Arc<Reader>, symbols_max: usize, now: Nanos) -> Self {
        Self { activity: Mutex::new(Activity::new(symbols_max, now)), reader, reading: Turn::default() }
    }

    /// Takes what the follower delivered, in order.
    pub fn deliver(&self, deliveries: &[Delivery]) {
        let mut activity = self.activity.lock();
        for row in deliveries.iter().flat_map(Delivery::live_rows) {
            activity.apply(row);
        }
    }

    /// Since when trades count.
    #[must_use]
    pub fn since(&self) -> Nanos {
        self.activity.lock().since()
    }

    /// The most active symbols, the most active first.
    #[must_use]
    pub fn most_active(&self, by: By, top: usize) -> Vec<Active> {
        // Copied, so that what is delivered does not wait for the sorting.
        let all = self.activity.lock().all();
        most_active(all, by, top)
    }

    /// Those that rose and those that fell most since the close of the day before, the strongest
    /// first. Symbols whose close is not read yet are left out: each call reads some more.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn movers(&self, top: usize) -> Result<[Vec<Mover>; 2], ReadError> {
        let _reading = self.reading.lock().await;
        let (day_begins, all) = {
            let activity = self.activity.lock();
            (activity.day_begins(), activity.all())
        };
        for symbol in unread(&all, CLOSES_MAX) {
            self.read_close(symbol, day_begins).await?;
        }
        let all = self.activity.lock().all();
        Ok(movers(&all, top))
    }

    async fn read_close(&self, symbol: Symbol, day_begins: Nanos) -> Result<(), ReadError> {
        let (symbols, timeframe, order) = (vec![symbol], Timeframe::Day, Order::Descending);
        let span = Nanos(0)..=day_begins.plus(-1).max(Nanos(0));
        let query = BarQuery { symbols, timeframe, span, order, limit: 1, cursor: None };
        let page = self.reader.bars(&query).await?;
        let close = page.series.into_iter().flat_map(|(_, bars)| bars).map(|bar| bar.bar.close).next();
        self.activity.lock().previous_loaded(day_begins, symbol, close);
        Ok(())
    }

    /// Takes rows as if they had been delivered live.
    #[cfg(test)]
    pub(crate) fn apply(&self, rows: &[crate::market::Row]) {
        let mut activity = self.activity.lock();
        rows.iter().for_each(|row| activity.apply(row));
    }
}
