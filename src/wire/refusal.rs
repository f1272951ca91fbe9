//! What is said about a tick that is not taken, and about bytes that cannot be read.

use std::borrow::Cow;

use crate::market::Tick;

/// What became of one value of a body: a tick, or why it is none.
pub type Verdict = Result<Tick, Box<Refusal>>;

/// Why one tick is refused: which field, what it held, why, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value} {why}: {expected}")]
pub struct Refusal {
    /// The field's name; [`Refusal::WHOLE`] where it is not one field.
    pub field: Box<str>,
    /// What it held as JSON-like text, cut to [`Refusal::VALUE_BYTES_MAX`]; empty where it was missing.
    pub value: Box<str>,
    /// Why it is refused, as the rest of a sentence that begins with the field.
    pub why: Cow<'static, str>,
    /// What would be right.
    pub expected: Cow<'static, str>,
}

impl Refusal {
    /// The field's name where the value is no object at all.
    pub const WHOLE: &'static str = "tick";
    /// The most bytes of a value that are repeated in a refusal.
    pub const VALUE_BYTES_MAX: usize = 64;

    /// A refusal; `value` is cut at a character, with `…` behind.
    #[must_use]
    pub fn new(
        field: &str,
        value: &str,
        why: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self {
            field: beginning(field).into(),
            value: beginning(value).into(),
            why: why.into(),
            expected: expected.into(),
        })
    }
}

/// What is repeated of what a client sent: all of it, or its beginning, cut at a character, and
/// `…`; at most [`Refusal::VALUE_BYTES_MAX`] bytes.
#[must_use]
pub fn beginning(text: &str) -> Cow<'_, str> {
    if text.len() <= Refusal::VALUE_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(Refusal::VALUE_BYTES_MAX - '…'.len_utf8());
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// The bytes are not well formed: what follows cannot be read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {why}")]
pub struct Malformed {
    /// Where, counted from 0 at the start of what was read.
    pub offset: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// Why a reader stopped inside a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes end before the value does.
    More,
    /// The bytes are wrong.
    Malformed(Malformed),
}

impl Stop {
    /// Where there is nothing more to come, an end inside a value is malformed too.
    pub(super) fn at_end(self, length: usize) -> Malformed {
        match self {
            Self::More => Malformed { offset: length, why: "ends in the middle of a value" },
            Self::Malformed(malformed) => malformed,
        }
    }
}
