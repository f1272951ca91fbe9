//! How far long work is: a bar on a terminal, plain lines elsewhere, both on standard error.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress through so many bytes, with the items that they held.
#[derive(Debug)]
pub(super) struct Progress {
    verb: &'static str,
    unit: &'static str,
    bytes_total: u64,
    begun: Instant,
    bar: Option<ProgressBar>,
    last_line: Cell<Instant>,
    last_wait: Cell<Option<Instant>>,
}

impl Progress {
    /// Progress of `verb` ("importing") over items of `unit` ("lines").
    #[must_use]
    pub(super) fn new(verb: &'static str, unit: &'static str, bytes_total: u64) -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(bytes_total), ProgressDrawTarget::stderr_with_hz(10));
            let template = format!("{verb} [{{bar:32}}] {{percent:>3}} %  {{msg}}  {{eta}} left");
            bar.set_style(
                ProgressStyle::with_template(&template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .progress_chars("=> "),
            );
            bar
        });
        Self {
            verb,
            unit,
            bytes_total,
            begun: now,
            bar,
            last_line: Cell::new(now),
            last_wait: Cell::new(None),
        }
    }

    /// So many items are done, which end at this byte of all.
    pub(super) fn set(&self, items: u64, bytes: u64) {
        let now = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(rate(items, self.begun.elapsed(), self.unit));
        } else if now.duration_since(self.last_line.get()) >= LINE_EVERY {
            self.last_line.set(now);
            write_line(&line(self.verb, self.unit, items, bytes, self.bytes_total, self.begun.elapsed()));
        }
    }

    /// Says why it does not go on, now and then.
    pub(super) fn waiting(&self, why: &str) {
        let now = Instant::now();
        if self.last_wait.get().is_some_and(|last| now.duration_since(last) < LINE_EVERY) {
            return;
        }
        self.last_wait.set(Some(now));
        let text = format!("waiting: {why}");
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(&text)),
            None => write_line(&text),
        }
    }

    /// Takes the bar away; gives how long it took.
    pub(super) fn finish(&self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}

fn write_line(text: &str) {
    // A closed standard error is no reason to stop the work.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `importing: 120000 lines, 34 %, 12000 lines/s, 20 s left`.
fn line(verb: &str, unit: &str, items: u64, bytes: u64, total: u64, elapsed: Duration) -> String {
    let percent = u128::from(bytes) * 100 / u128::from(total.max(1));
    let left =
        elapsed.as_millis() * u128::from(total.saturating_sub(bytes)) / u128::from(bytes.max(1)) / 1_000;
    format!("{verb}: {items} {unit}, {percent} %, {}, {left} s left", rate(items, elapsed, unit))
}

/// `12000 lines/s`.
pub(super) fn rate(items: u64, elapsed: Duration, unit: &str) -> String {
    format!("{} {unit}/s", u128::from(items) * 1_000 / elapsed.as_millis().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_tell_rate_and_time_left() {
        let text = line("importing", "lines", 1_000, 250, 1_000, Duration::from_secs(2));
        assert_eq!(text, "importing: 1000 lines, 25 %, 500 lines/s, 6 s left");
        let text = line("importing", "lines", 0, 0, 0, Duration::ZERO);
        assert_eq!(text, "importing: 0 lines, 0 %, 0 lines/s, 0 s left");
    }
}
