//! The columns of a CSV file: which field of a tick each one is.

/// A field of a tick, by its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field(pub(super) &'static str);

/// How a cell is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Number,
    Text,
    Codes,
    Time,
}

/// Fields by their exact names on the wire: upper and lower case are not the same there.
const WIRE: &[&str] = &[
    "T", "S", "t", "p", "s", "x", "c", "i", "z", "ap", "as", "ax", "bp", "bs", "bx", "o", "h", "l", "v", "n",
    "vw", "u", "d", "sc", "sm", "rc", "rm", "a", "oi", "op", "os", "oc", "ci", "cp", "cs", "cc",
];

/// Other names, whatever their case.
const ALIASES: &[(&str, &[&str])] = &[
    ("T", &["type"]),
    ("S", &["symbol", "ticker", "name", "sym"]),
    ("t", &["time", "timestamp", "datetime", "date", "dt"]),
    ("p", &["price"]),
    ("s", &["size", "quantity", "qty"]),
    ("x", &["exchange", "ex", "venue"]),
    ("c", &["conditions", "condition", "cond", "close"]),
    ("i", &["id", "trade_id"]),
    ("z", &["tape"]),
    ("ap", &["ask_price", "ask", "ofr"]),
    ("as", &["ask_size", "asksize", "ofrsiz"]),
    ("ax", &["ask_exchange"]),
    ("bp", &["bid_price", "bid"]),
    ("bs", &["bid_size", "bidsize", "bidsiz"]),
    ("bx", &["bid_exchange"]),
    ("o", &["open"]),
    ("h", &["high"]),
    ("l", &["low"]),
    ("v", &["volume"]),
    ("n", &["trades", "trade_count"]),
    ("vw", &["vwap"]),
];

/// The field that a column's name means.
pub(super) fn field_of(name: &str) -> Option<Field> {
    let name = name.trim();
    let exact = WIRE.iter().find(|field| **field == name);
    let alias = || {
        let lower = name.to_ascii_lowercase();
        ALIASES.iter().find(|(_, names)| names.contains(&lower.as_str())).map(|(field, _)| field)
    };
    exact.or_else(alias).map(|field| Field(field))
}

/// The kind of a row whose file has no column `T`: from the fields that there are.
/// A bar is a daily one where its time is a date.
pub(super) fn kind_of(fields: &[Field]) -> Option<&'static str> {
    let has = |name: &str| fields.contains(&Field(name_of(name)));
    if has("o") && has("h") && has("l") && has("c") {
        Some("b")
    } else if has("ap") || has("bp") {
        Some("q")
    } else if has("p") {
        Some("t")
    } else {
        None
    }
}

fn name_of(name: &str) -> &'static str {
    WIRE.iter().find(|field| **field == name).copied().unwrap_or_default()
}

/// What a field is called in a tick of a kind: the exchange of a quote is that of both sides.
pub(super) fn names_of(field: Field, kind: &str) -> &'static [&'static str] {
    match WIRE.iter().position(|name| *name == field.0) {
        _ if kind == "q" && field.0 == "x" => &["ax", "bx"],
        Some(at) => WIRE.get(at..=at).unwrap_or_default(),
        None => &[],
    }
}

/// How a field is written in a tick of a kind: `c` is a close in a bar and conditions else.
pub(super) fn shape_of(field: Field, kind: &str) -> Shape {
    let is_bar = matches!(kind, "b" | "u" | "d");
    match field.0 {
        "t" => Shape::Time,
        "c" if is_bar => Shape::Number,
        "c" | "oc" | "cc" => Shape::Codes,
        "i" if kind == "l" => Shape::Text,
        "T" | "S" | "x" | "z" | "ax" | "bx" | "sc" | "sm" | "rc" | "rm" | "a" => Shape::Text,
        _ => Shape::Number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_wire_are_exact_and_others_in_any_case() {
        for (name, field) in [
            ("T", "T"),
            ("t", "t"),
            ("S", "S"),
            ("s", "s"),
            (" Name ", "S"),
            ("OFRSIZ", "as"),
            ("Close", "c"),
            ("DT", "t"),
        ] {
            assert_eq!(field_of(name), Some(Field(field)), "{name}");
        }
        assert_eq!(field_of("CORR"), None);
        for (field, names) in ALIASES {
            assert!(WIRE.contains(field), "{field}");
            assert!(names.iter().all(|name| *name == name.to_ascii_lowercase()));
        }
    }

    #[test]
    fn kinds_from_the_fields() {
        let kind =
            |names: &[&str]| kind_of(&names.iter().map(|name| field_of(name).unwrap()).collect::<Vec<_>>());
        assert_eq!(kind(&["date", "open", "high", "low", "close", "volume", "Name"]), Some("b"));
        assert_eq!(kind(&["S", "t", "bid", "ask"]), Some("q"));
        assert_eq!(kind(&["S", "t", "price", "size", "cond"]), Some("t"));
        assert_eq!(kind(&["S", "t", "size"]), None);
        assert_eq!(shape_of(Field("c"), "d"), Shape::Number);
        assert_eq!(shape_of(Field("c"), "q"), Shape::Codes);
    }
}
