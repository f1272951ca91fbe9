//! The table: what was measured, against what, and whether it is accepted.

use serde_json::{Value, json};

/// How a figure stands to the one it is measured against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// At least so many times it.
    AtLeast(f64),
    /// At most so many times it.
    AtMost(f64),
    /// At most so much above it.
    Above(f64),
    /// At most this.
    Max(f64),
}

impl Bound {
    fn holds(self, measured: f64, against: f64) -> bool {
        match self {
            Self::AtLeast(times) => measured >= against * times,
            Self::AtMost(times) => measured <= against * times,
            Self::Above(more) => measured <= against + more,
            Self::Max(most) => measured <= most,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtLeast(times) => format!(">= {times}x"),
            Self::AtMost(times) => format!("<= {times}x"),
            Self::Above(more) => format!("<= +{more} {unit}"),
            Self::Max(most) => format!("<= {most} {unit}"),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) number: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// None: it could not be measured, as the note says.
    pub(crate) figures: Option<(f64, f64)>,
    /// What it is measured against.
    pub(crate) peer: &'static str,
    pub(crate) accept: Bound,
    pub(crate) aim: Bound,
    pub(crate) note: String,
}

impl Row {
    fn verdict(&self) -> &'static str {
        match self.figures {
            None => "not measured",
            Some((measured, against)) if self.aim.holds(measured, against) => "aim",
            Some((measured, against)) if self.accept.holds(measured, against) => "accepted",
            Some(_) => "MISSED",
        }
    }

    fn cells(&self) -> [String; 7] {
        let figure = |value: f64| format!("{} {}", shown(value), self.unit);
        let (measured, against, ratio) = match self.figures {
            None => (String::new(), String::new(), String::new()),
            Some((measured, against)) => {
                let against_text = if against > 0.0 { figure(against) } else { String::new() };
                let ratio = if against > 0.0 { format!("{:.2}", measured / against) } else { String::new() };
                (figure(measured), format!("{against_text} {}", self.peer), ratio)
            }
        };
        let name = format!("{} {}", self.number, self.name);
        let (accept, aim) = (self.accept.text(self.unit), self.aim.text(self.unit));
        [name, measured, against.trim().to_owned(), ratio, accept, aim, self.verdict().to_owned()]
    }

    fn to_json(&self) -> Value {
        json!({
            "row": self.number, "name": self.name, "unit": self.unit, "peer": self.peer,
            "measured": self.figures.map(|(measured, _)| measured),
            "against": self.figures.map(|(_, against)| against),
            "accept": self.accept.text(self.unit), "aim": self.aim.text(self.unit),
            "verdict": self.verdict(), "note": self.note,
        })
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The table as text, notes below it.
pub(crate) fn text(rows: &[Row]) -> String {
    let heads = ["row", "measured", "against", "ratio", "accept", "aim", "verdict"].map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(heads).chain(rows.iter().map(Row::cells)).collect();
    let mut widths = [0_usize; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join(" | ").trim_end());
        text.push('\n');
    }
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        text.push_str(&format!("{}: {}\n", row.number, row.note));
    }
    text
}

/// The table for programs.
pub(crate) fn to_json(rows: &[Row]) -> Value {
    Value::Array(rows.iter().map(Row::to_json).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_by_the_bounds() {
        let cases = [
            (Bound::AtLeast(1.5), Bound::AtLeast(3.0), (2.0, 1.0), "accepted"),
            (Bound::AtLeast(1.5), Bound::AtLeast(3.0), (3.0, 1.0), "aim"),
            (Bound::AtLeast(1.5), Bound::AtLeast(3.0), (1.0, 1.0), "MISSED"),
            (Bound::AtMost(1.25), Bound::AtMost(1.1), (1.2, 1.0), "accepted"),
            (Bound::Above(0.5), Bound::Above(0.3), (1.4, 1.0), "accepted"),
            (Bound::Max(12.0), Bound::Max(8.0), (7.0, 0.0), "aim"),
        ];
        for (accept, aim, figures, verdict) in cases {
            let (number, name, unit, peer) = ("1", "name", "ms", "peer");
            let row =
                Row { number, name, unit, figures: Some(figures), peer, accept, aim, note: String::new() };
            assert_eq!(row.verdict(), verdict, "{accept:?} {figures:?}");
            let text = text(&[Row { figures: None, note: "why".to_owned(), ..row }]);
            assert!(text.contains("not measured") && text.ends_with("1: why\n"), "{text}");
        }
    }
}
