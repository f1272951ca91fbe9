//! How far a long run is, on standard error: a bar in a terminal, elsewhere a line now and then.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::system::now;

/// Between two lines.
const LINE_EVERY: u64 = 30_000_000_000;

/// Progress of a run of so many seconds.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    start: u64,
    line_at: u64,
}

impl Progress {
    pub(crate) fn new(seconds: f64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(seconds as u64);
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} s  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, start: now(), line_at: now() + LINE_EVERY }
    }

    /// Shows how it is, where that is due.
    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        let seconds = (now() - self.start) / 1_000_000_000;
        match &self.bar {
            Some(bar) if bar.position() != seconds => {
                bar.set_position(seconds);
                bar.set_message(text());
            }
            None if now() >= self.line_at => {
                self.line_at += LINE_EVERY;
                eprintln!("{seconds} s: {}", text());
            }
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
