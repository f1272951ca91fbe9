//! How far long work is: a bar on a terminal, plain lines elsewhere, both on standard error.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress through so many steps (bytes, or whatever the end is known in), with the items that
/// they held.
#[derive(Debug)]
pub(super) struct Progress {
    verb: String,
    unit: &'static str,
    total: Cell<Option<u64>>,
    begun: Instant,
    display: Display,
    last_line: Cell<Instant>,
    last_wait: Cell<Option<Instant>>,
}

/// Where progress is shown.
#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines,
    /// The work writes to the same terminal, which shows how far it is.
    Nowhere,
}

impl Progress {
    /// Progress of `verb` ("importing") over items of `unit` ("lines"); without a total where the
    /// end is not known.
    #[must_use]
    pub(super) fn new(verb: impl Into<String>, unit: &'static str, total: Option<u64>) -> Self {
        let verb = verb.into();
        let display = match std::io::stderr().is_terminal() {
            true => Display::Bar(bar(&verb, total)),
            false => Display::Lines,
        };
        Self::shown(verb, unit, total, display)
    }

    /// Progress of work whose output goes to standard output as it comes.
    #[must_use]
    pub(super) fn beside_output(verb: impl Into<String>, unit: &'static str, total: Option<u64>) -> Self {
        if std::io::stdout().is_terminal() {
            return Self::shown(verb.into(), unit, total, Display::Nowhere);
        }
        Self::new(verb, unit, total)
    }

    fn shown(verb: String, unit: &'static str, total: Option<u64>, display: Display) -> Self {
        let begun = Instant::now();
        let (total, last_line) = (Cell::new(total), Cell::new(begun));
        Self { verb, unit, total, begun, display, last_line, last_wait: Cell::new(None) }
    }

    /// So many items are done, which end at this step of all.
    pub(super) fn set(&self, items: u64, done: u64) {
        match &self.display {
            Display::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(rate(items, self.begun.elapsed(), self.unit));
            }
            Display::Lines => {
                let now = Instant::now();
                if now.duration_since(self.last_line.get()) >= LINE_EVERY {
                    self.last_line.set(now);
                    let elapsed = self.begun.elapsed();
                    write_line(&line(&self.verb, self.unit, items, done, self.total.get(), elapsed));
                }
            }
            Display::Nowhere => {}
        }
    }

    /// The same, where the total has become another.
    pub(super) fn set_of(&self, items: u64, done: u64, total: u64) {
        self.total.set(Some(total));
        if let Display::Bar(bar) = &self.display {
            bar.set_length(total);
        }
        self.set(items, done);
    }

    /// Says why it does not go on, now and then.
    pub(super) fn waiting(&self, why: &str) {
        let now = Instant::now();
        if self.last_wait.get().is_some_and(|last| now.duration_since(last) < LINE_EVERY) {
            return;
        }
        self.last_wait.set(Some(now));
        self.note(&format!("waiting: {why}"));
    }

    /// Says something beside the bar.
    pub(super) fn note(&self, text: &str) {
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| write_line(text)),
            Display::Lines | Display::Nowhere => write_line(text),
        }
    }

    /// Takes the bar away, as dropping it does; gives how long it took.
    pub(super) fn finish(&self) -> Duration {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(verb: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
    let template = match total {
        Some(_) => format!("{verb} [{{bar:32}}] {{percent:>3}} %  {{msg}}  {{eta}} left"),
        None => format!("{{spinner}} {verb}  {{human_pos}}  {{msg}}"),
    };
    bar.set_style(
        ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    bar
}

fn write_line(text: &str) {
    // A closed standard error is no reason to stop the work.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `importing: 120000 lines, 34 %, 12000 lines/s, 20 s left`; where the end is not known,
/// `querying: 120000 trades, 12000 trades/s`.
fn line(verb: &str, unit: &str, items: u64, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = rate(items, elapsed, unit);
    let Some(total) = total else { return format!("{verb}: {items} {unit}, {rate}") };
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let left = elapsed.as_millis() * u128::from(total.saturating_sub(done)) / u128::from(done.max(1)) / 1_000;
    format!("{verb}: {items} {unit}, {percent} %, {rate}, {left} s left")
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
        let text = line("importing", "lines", 1_000, 250, Some(1_000), Duration::from_secs(2));
        assert_eq!(text, "importing: 1000 lines, 25 %, 500 lines/s, 6 s left");
        let text = line("importing", "lines", 0, 0, Some(0), Duration::ZERO);
        assert_eq!(text, "importing: 0 lines, 0 %, 0 lines/s, 0 s left");
        let text = line("querying", "trades", 1_000, 1_000, None, Duration::from_secs(2));
        assert_eq!(text, "querying: 1000 trades, 500 trades/s");
    }
}
