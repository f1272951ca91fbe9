//! Which fields each kind of tick has, what each may hold, and which may be left out.

/// What `T` may be.
pub(super) const KINDS: &str = "one of t, q, b, u, d, s, l, c, x";
/// Exchange ids of trades are signed 64-bit numbers in the SDKs.
pub(super) const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();
/// The most bytes of a status text.
pub(super) const TEXT_BYTES_MAX: usize = 255;

/// What a field holds; the number tells which of several it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Kind,
    Symbol,
    Time,
    Tape,
    Exchange(usize),
    Indicator,
    Price(usize),
    Vwap,
    Size(usize),
    Number(usize),
    Count(usize),
    Conditions(usize),
    Text(usize),
    Action,
}

impl Slot {
    /// What would be right.
    pub(super) const fn expected(self) -> &'static str {
        match self {
            Self::Kind => KINDS,
            Self::Symbol => "1 to 16 of A-Z, 0-9, '.', '-', '/' and '_', the first a letter, a digit or '_'",
            Self::Time => "an RFC 3339 time such as 2024-01-03T14:30:00.123456789Z",
            Self::Tape => "one of A, B, C, N, O",
            Self::Exchange(_) | Self::Indicator => "one printable ASCII character",
            Self::Price(_) => "a number rounded to at most nine decimals, within ±9223372036.854775807",
            Self::Vwap => "a number within ±9223372036.854775807",
            Self::Size(_) => "a whole number of shares from 0 to 4294967295",
            Self::Number(_) => "a whole number from 0 to 9223372036854775807",
            Self::Count(_) => "a whole number from 0 to 18446744073709551615",
            Self::Conditions(_) => "an array of at most seven texts of one printable ASCII character",
            Self::Text(_) => "a text of at most 255 bytes",
            Self::Action => "C for a cancel or E for an error",
        }
    }
}

/// One field of one kind.
pub(super) struct Spec {
    pub(super) key: &'static str,
    pub(super) code: u16,
    pub(super) slot: Slot,
    pub(super) required: bool,
}

const fn must(key: &'static str, slot: Slot) -> Spec {
    Spec { key, code: code(key.as_bytes()), slot, required: true }
}

const fn may(key: &'static str, slot: Slot) -> Spec {
    Spec { key, code: code(key.as_bytes()), slot, required: false }
}

/// A key of one or two bytes as a number, for a fast look-up; 0 for any other.
pub(super) const fn code(key: &[u8]) -> u16 {
    match key {
        [one] => *one as u16,
        [one, two] => u16::from_le_bytes([*one, *two]),
        _ => 0,
    }
}

const T: Spec = must("T", Slot::Kind);
const S: Spec = must("S", Slot::Symbol);
const TIME: Spec = must("t", Slot::Time);
const Z: Spec = may("z", Slot::Tape);

static TRADE: &[Spec] = &[
    T,
    S,
    may("i", Slot::Number(0)),
    may("x", Slot::Exchange(0)),
    must("p", Slot::Price(0)),
    must("s", Slot::Size(0)),
    may("c", Slot::Conditions(0)),
    TIME,
    Z,
];
static QUOTE: &[Spec] = &[
    T,
    S,
    may("ax", Slot::Exchange(0)),
    must("ap", Slot::Price(0)),
    must("as", Slot::Size(0)),
    may("bx", Slot::Exchange(1)),
    must("bp", Slot::Price(1)),
    must("bs", Slot::Size(1)),
    may("c", Slot::Conditions(0)),
    TIME,
    Z,
];
static BAR: &[Spec] = &[
    T,
    S,
    must("o", Slot::Price(0)),
    must("h", Slot::Price(1)),
    must("l", Slot::Price(2)),
    must("c", Slot::Price(3)),
    must("v", Slot::Count(0)),
    may("n", Slot::Count(1)),
    may("vw", Slot::Vwap),
    TIME,
];
static STATUS: &[Spec] = &[
    T,
    S,
    must("sc", Slot::Text(0)),
    may("sm", Slot::Text(1)),
    may("rc", Slot::Text(2)),
    may("rm", Slot::Text(3)),
    TIME,
    Z,
];
static LULD: &[Spec] =
    &[T, S, must("u", Slot::Price(0)), must("d", Slot::Price(1)), may("i", Slot::Indicator), TIME, Z];
static CORRECTION: &[Spec] = &[
    T,
    S,
    may("x", Slot::Exchange(0)),
    must("oi", Slot::Number(0)),
    must("op", Slot::Price(0)),
    must("os", Slot::Size(0)),
    may("oc", Slot::Conditions(0)),
    must("ci", Slot::Number(1)),
    must("cp", Slot::Price(1)),
    must("cs", Slot::Size(1)),
    may("cc", Slot::Conditions(1)),
    TIME,
    Z,
];
static CANCEL: &[Spec] = &[
    T,
    S,
    must("i", Slot::Number(0)),
    may("x", Slot::Exchange(0)),
    must("p", Slot::Price(0)),
    must("s", Slot::Size(0)),
    must("a", Slot::Action),
    TIME,
    Z,
];

/// The fields of the kind with this letter; `T` is the first of each.
pub(super) fn table(letter: u8) -> Option<&'static [Spec]> {
    Some(match letter {
        b't' => TRADE,
        b'q' => QUOTE,
        b'b' | b'u' | b'd' => BAR,
        b's' => STATUS,
        b'l' => LULD,
        b'c' => CORRECTION,
        b'x' => CANCEL,
        _ => return None,
    })
}
