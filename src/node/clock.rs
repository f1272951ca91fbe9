//! The clocks of a node, read in one place and passed on.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::access::MonoClock;
use crate::http::Clock;
use crate::market::Nanos;
use crate::tape::tasks::NowFn;
use crate::tape::{Mono, Now};

/// The system's clocks, in the forms that the rooms want.
pub(super) struct Clocks {
    pub(super) wall: Clock,
    pub(super) now: NowFn,
    pub(super) mono: MonoClock,
}

impl Clocks {
    pub(super) fn system() -> Self {
        let start = Instant::now();
        let mono = move || Mono(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let now: NowFn = Arc::new(move || Now { mono: mono(), wall: wall_now() });
        Self { wall: Arc::new(wall_now), now, mono: MonoClock::new(move || start.elapsed()) }
    }
}

fn wall_now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
