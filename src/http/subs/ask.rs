//! Bodies of subscriptions, read and written.

use serde_json::{Map, Value};

use crate::config;
use crate::http::{ApiError, ApiResult, types};
use crate::live::Channel;
use crate::market::{Nanos, Price, Symbol};
use crate::subs::{Channels, FilterSpec, Move, Subscription, Symbols, Terms};
use crate::wire::json;

const NAME_CHARACTERS_MAX: usize = 100;
const FIELDS: [&str; 7] = ["name", "symbols", "kinds", "filter", "conflate_ms", "paused", "version"];
const FILTER_FIELDS: [&str; 3] = ["min_size", "min_price_move", "conditions"];
const MOVE: &str = "a price above 0 such as \"0.05\", or percent such as \"0.5%\"";

/// The fields that a body gives; in a change the others stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    name: Option<String>,
    symbols: Option<Symbols>,
    channels: Option<Channels>,
    filter: Option<FilterSpec>,
    conflate_ms: Option<u32>,
    paused: Option<bool>,
    /// The version that is to be changed.
    pub(super) version: Option<u64>,
}

impl Change {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn read(body: &[u8], limits: &config::Subs) -> ApiResult<Self> {
        let fields: Map<String, Value> = types::from_json(body)?;
        let mut change = Self::default();
        for (name, value) in &fields {
            match name.as_str() {
                "name" => change.name = Some(read_name(value)?),
                "symbols" => change.symbols = Some(read_symbols(value, limits.symbols_max)?),
                "kinds" => change.channels = Some(read_kinds(value)?),
                "filter" => change.filter = Some(read_filter(value, limits.conditions_max)?),
                "conflate_ms" => {
                    let most = limits.conflate_ms_max;
                    let number = whole(value).and_then(|number| u32::try_from(number).ok());
                    let expected = || format!("milliseconds up to {most} (subs.conflate_ms_max)");
                    change.conflate_ms = Some(
                        number
                            .filter(|number| *number <= most)
                            .ok_or_else(|| bad(name, value, &expected()))?,
                    );
                }
                "paused" => {
                    change.paused = Some(value.as_bool().ok_or_else(|| bad(name, value, "true or false"))?);
                }
                "version" => {
                    change.version =
                        Some(whole(value).ok_or_else(|| bad(name, value, "the version that was seen"))?);
                }
                _ => return Err(unknown(name, &FIELDS)),
            }
        }
        Ok(change)
    }

    /// The terms of a new subscription.
    ///
    /// # Errors
    /// 400 where symbols or kinds are missing, or a version is given.
    pub(super) fn terms(self) -> ApiResult<Terms> {
        let missing = |field: &str, expected: &str| {
            ApiError::bad_request(format!("{field} is required"))
                .with("field", field)
                .with("expected", expected)
        };
        if let Some(version) = self.version {
            return Err(ApiError::bad_field(
                "version",
                &version.to_string(),
                "left out of a new subscription",
            ));
        }
        Ok(Terms {
            name: self.name.unwrap_or_default(),
            symbols: self.symbols.ok_or_else(|| missing("symbols", "a list of symbols, or \"*\""))?,
            channels: self.channels.ok_or_else(|| missing("kinds", &kinds_expected()))?,
            filter: self.filter.unwrap_or_default(),
            conflate_ms: self.conflate_ms.unwrap_or_default(),
            paused: self.paused.unwrap_or_default(),
        })
    }

    /// What the change makes of terms.
    pub(super) fn applied_to(&self, terms: Terms) -> Terms {
        Terms {
            name: self.name.clone().unwrap_or(terms.name),
            symbols: self.symbols.clone().unwrap_or(terms.symbols),
            channels: self.channels.unwrap_or(terms.channels),
            filter: self.filter.clone().unwrap_or(terms.filter),
            conflate_ms: self.conflate_ms.unwrap_or(terms.conflate_ms),
            paused: self.paused.unwrap_or(terms.paused),
        }
    }
}

fn bad(field: &str, value: &Value, expected: &str) -> ApiError {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    ApiError::bad_field(field, &text, expected)
}

fn unknown(field: &str, known: &[&str]) -> ApiError {
    let known = known.join(", ");
    ApiError::bad_request(format!("there is no field {field}")).with("field", field).with("expected", known)
}

fn whole(value: &Value) -> Option<u64> {
    value.as_u64()
}

fn read_name(value: &Value) -> ApiResult<String> {
    let fits =
        |name: &&str| name.chars().count() <= NAME_CHARACTERS_MAX && !name.chars().any(char::is_control);
    let expected = format!("at most {NAME_CHARACTERS_MAX} printable characters");
    value.as_str().filter(fits).map(str::to_owned).ok_or_else(|| bad("name", value, &expected))
}

fn read_symbols(value: &Value, most: usize) -> ApiResult<Symbols> {
    const EXPECTED: &str = "a list of symbols, or \"*\"";
    if value.as_str() == Some("*") {
        return Ok(Symbols::All);
    }
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| bad("symbols", value, EXPECTED))?;
    let symbol = |value: &Value| {
        let text = value.as_str().ok_or_else(|| bad("symbols", value, EXPECTED))?;
        Symbol::parse(text.as_bytes())
            .map_err(|error| bad("symbols", value, error.to_string().trim_start_matches("is not a symbol: ")))
    };
    let mut symbols = list.iter().map(symbol).collect::<ApiResult<Vec<_>>>()?;
    symbols.sort_unstable();
    symbols.dedup();
    if symbols.len() > most {
        let expected = format!("at most {most} symbols (subs.symbols_max)");
        return Err(bad("symbols", &symbols.len().into(), &expected));
    }
    Ok(Symbols::Listed(symbols))
}

fn kinds_expected() -> String {
    format!("a list of {}", Channel::ALL.map(Channel::name).join(", "))
}

fn read_kinds(value: &Value) -> ApiResult<Channels> {
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| bad("kinds", value, &kinds_expected()))?;
    let channel = |value: &Value| {
        let channel = value.as_str().and_then(Channel::named);
        channel.ok_or_else(|| bad("kinds", value, &kinds_expected()))
    };
    list.iter().map(channel).collect()
}

fn read_filter(value: &Value, conditions_max: usize) -> ApiResult<FilterSpec> {
    let mut filter = FilterSpec::default();
    if value.is_null() {
        return Ok(filter);
    }
    let fields = value.as_object();
    let fields =
        fields.ok_or_else(|| bad("filter", value, &format!("null, or {}", FILTER_FIELDS.join(", "))))?;
    for (name, value) in fields {
        match name.as_str() {
            "min_size" => {
                let number = whole(value).and_then(|number| u32::try_from(number).ok());
                let expected = "shares from 0 to 4294967295";
                filter.min_size = number.ok_or_else(|| bad("filter.min_size", value, expected))?;
            }
            "min_price_move" if value.is_null() => {}
            "min_price_move" => {
                let least = read_move(value).ok_or_else(|| bad("filter.min_price_move", value, MOVE))?;
                filter.min_move = Some(least);
            }
            "conditions" => filter.conditions = read_conditions(value, conditions_max)?,
            _ => return Err(unknown(&format!("filter.{name}"), &FILTER_FIELDS)),
        }
    }
    Ok(filter)
}

fn read_move(value: &Value) -> Option<Move> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    let above_zero = |text: &str| Price::parse(text.trim().as_bytes()).ok().filter(|price| price.0 > 0);
    match text.strip_suffix('%') {
        Some(percent) => above_zero(percent).map(Move::Percent),
        None => above_zero(&text).map(Move::Price),
    }
}

fn read_conditions(value: &Value, most: usize) -> ApiResult<Vec<u8>> {
    let expected = format!("a list of at most {most} (subs.conditions_max) codes of one ASCII character");
    let list = value.as_array().ok_or_else(|| bad("filter.conditions", value, &expected))?;
    let code = |value: &Value| match value.as_str().map(str::as_bytes) {
        Some([code @ 0x20..=0x7e]) => Ok(*code),
        _ => Err(bad("filter.conditions", value, &expected)),
    };
    let mut codes = list.iter().map(code).collect::<ApiResult<Vec<u8>>>()?;
    codes.sort_unstable();
    codes.dedup();
    if codes.len() > most {
        return Err(bad("filter.conditions", &codes.len().into(), &expected));
    }
    Ok(codes)
}

/// Writes a subscription; `state` where it is not paused.
pub(super) fn write(row: &Subscription, state: &str, out: &mut Vec<u8>) {
    let terms = &row.terms;
    let member = |name: &str, first: bool, out: &mut Vec<u8>| {
        out.push(if first { b'{' } else { b',' });
        json::write_text(name, out);
        out.push(b':');
    };
    member("id", true, out);
    json::write_text(&row.id, out);
    member("name", false, out);
    json::write_text(&terms.name, out);
    member("symbols", false, out);
    match &terms.symbols {
        Symbols::All => out.extend_from_slice(b"\"*\""),
        Symbols::Listed(symbols) => write_list(symbols.iter().map(Symbol::as_str), out),
    }
    member("kinds", false, out);
    write_list(terms.channels.iter().map(Channel::name), out);
    member("filter", false, out);
    write_filter(&terms.filter, out);
    member("conflate_ms", false, out);
    out.extend_from_slice(terms.conflate_ms.to_string().as_bytes());
    member("paused", false, out);
    out.extend_from_slice(if terms.paused { b"true" } else { b"false" });
    member("state", false, out);
    json::write_text(if terms.paused && state == "active" { "paused" } else { state }, out);
    member("created_at", false, out);
    write_time(row.created, out);
    member("changed_at", false, out);
    write_time(row.changed, out);
    member("version", false, out);
    out.extend_from_slice(row.version.to_string().as_bytes());
    out.push(b'}');
}

fn write_filter(filter: &FilterSpec, out: &mut Vec<u8>) {
    if filter.is_open() {
        out.extend_from_slice(b"null");
        return;
    }
    out.extend_from_slice(b"{\"min_size\":");
    out.extend_from_slice(filter.min_size.to_string().as_bytes());
    out.extend_from_slice(b",\"min_price_move\":");
    match filter.min_move {
        None => out.extend_from_slice(b"null"),
        Some(Move::Price(price)) => json::write_text(&price.to_string(), out),
        Some(Move::Percent(percent)) => json::write_text(&format!("{percent}%"), out),
    }
    out.extend_from_slice(b",\"conditions\":");
    let codes: Vec<String> = filter.conditions.iter().map(|code| char::from(*code).to_string()).collect();
    write_list(codes.iter().map(String::as_str), out);
    out.push(b'}');
}

fn write_list<'t>(texts: impl Iterator<Item = &'t str>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (at, text) in texts.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::write_text(text, out);
    }
    out.push(b']');
}

pub(super) fn write_time(time: Nanos, out: &mut Vec<u8>) {
    out.push(b'"');
    time.write(out);
    out.push(b'"');
}
