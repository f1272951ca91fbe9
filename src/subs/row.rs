//! A subscription as it is stored: JSON, sealed. `docs/FORMATS.md` section 8 has it.

use serde::{Deserialize, Serialize};

use super::{Channel, FilterSpec, Move, Subscription, Symbols, Terms};
use crate::market::{Nanos, Price, Symbol};

const ID_DOMAIN: &[u8] = b"tapeline subscription id v1";
const ASKED_DOMAIN: &[u8] = b"tapeline subscription asked v1";
const ID_PREFIX: &str = "SU";

/// The id that an account's `Idempotency-Key` makes.
pub(super) fn id_of_key(account: &str, key: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ID_DOMAIN);
    hasher.update(&(account.len() as u64).to_be_bytes()).update(account.as_bytes()).update(key.as_bytes());
    id(first_half(&hasher))
}

/// The id of 128 bits.
pub(super) fn id(bits: [u8; 16]) -> String {
    format!("{ID_PREFIX}{:032X}", u128::from_be_bytes(bits))
}

/// Whether a text can be an id.
pub(super) fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix(ID_PREFIX).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

fn first_half(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut bits = [0; 16];
    hasher.finalize_xof().fill(&mut bits);
    bits
}

#[derive(Serialize, Deserialize)]
struct StoredTerms {
    name: String,
    /// Null: all.
    symbols: Option<Vec<String>>,
    kinds: Vec<String>,
    min_size: u32,
    /// In units of 1e-9.
    min_price: Option<i64>,
    min_percent: Option<i64>,
    conditions: String,
    conflate_ms: u32,
    paused: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    #[serde(flatten)]
    terms: StoredTerms,
    created: i64,
    changed: i64,
    asked: String,
}

impl From<&Terms> for StoredTerms {
    fn from(terms: &Terms) -> Self {
        let filter = &terms.filter;
        Self {
            name: terms.name.clone(),
            symbols: match &terms.symbols {
                Symbols::All => None,
                Symbols::Listed(symbols) => Some(symbols.iter().map(Symbol::to_string).collect()),
            },
            kinds: terms.channels.iter().map(|channel| channel.name().to_owned()).collect(),
            min_size: filter.min_size,
            min_price: match filter.min_move {
                Some(Move::Price(price)) => Some(price.0),
                _ => None,
            },
            min_percent: match filter.min_move {
                Some(Move::Percent(percent)) => Some(percent.0),
                _ => None,
            },
            conditions: filter.conditions.iter().map(|code| char::from(*code)).collect(),
            conflate_ms: terms.conflate_ms,
            paused: terms.paused,
        }
    }
}

impl StoredTerms {
    /// Channels that a newer version knows and this one does not are left out.
    fn terms(self) -> Result<Terms, String> {
        let parse =
            |text: String| Symbol::parse(text.as_bytes()).map_err(|error| format!("{text:?} {error}"));
        let symbols = match self.symbols {
            None => Symbols::All,
            Some(symbols) => Symbols::Listed(symbols.into_iter().map(parse).collect::<Result<_, _>>()?),
        };
        let price = self.min_price.map(|units| Move::Price(Price(units)));
        let percent = self.min_percent.map(|units| Move::Percent(Price(units)));
        Ok(Terms {
            name: self.name,
            symbols,
            channels: self.kinds.iter().filter_map(|name| Channel::named(name)).collect(),
            filter: FilterSpec {
                min_size: self.min_size,
                min_move: price.or(percent),
                conditions: self.conditions.into_bytes(),
            },
            conflate_ms: self.conflate_ms,
            paused: self.paused,
        })
    }
}

/// A digest of what a stream of it is given: of all but the name.
pub(super) fn delivers(terms: &Terms) -> [u8; 16] {
    let terms = Terms { name: String::new(), ..terms.clone() };
    // What cannot be written is like nothing else, and was never stored.
    asked(&terms).unwrap_or_default()
}

/// The digest by which a repeated request is known.
pub(super) fn asked(terms: &Terms) -> Result<[u8; 16], serde_json::Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ASKED_DOMAIN).update(&serde_json::to_vec(&StoredTerms::from(terms))?);
    Ok(first_half(&hasher))
}

impl Subscription {
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Stored {
            v: 1,
            terms: (&self.terms).into(),
            created: self.created.0,
            changed: self.changed.0,
            asked: format!("{:032x}", u128::from_be_bytes(self.asked)),
        })
    }

    pub(super) fn decode(account: &str, id: &str, version: u64, body: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if stored.v != 1 {
            return Err(format!("version {}, this program reads version 1", stored.v));
        }
        let asked = u128::from_str_radix(&stored.asked, 16).map_err(|error| format!("asked: {error}"))?;
        Ok(Self {
            id: id.to_owned(),
            account: account.to_owned(),
            terms: stored.terms.terms()?,
            created: Nanos(stored.created),
            changed: Nanos(stored.changed),
            version,
            asked: asked.to_be_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;

    fn row() -> Subscription {
        let terms = Terms {
            name: "desk A".to_owned(),
            symbols: Symbols::Listed(vec!["AAPL".parse().unwrap(), "BRK.B".parse().unwrap()]),
            channels: [Channel::Trades, Channel::Bars].into_iter().collect(),
            filter: FilterSpec {
                min_size: 100,
                min_move: Some(Move::Percent(Price(500_000_000))),
                conditions: b"@".to_vec(),
            },
            conflate_ms: 250,
            paused: false,
        };
        let asked = asked(&terms).unwrap();
        let (created, changed) = (Nanos(1_704_292_200_500_000_000), Nanos(1_704_292_201_500_000_000));
        let id = id_of_key("acct_1", "desk-a");
        Subscription { id, account: "acct_1".to_owned(), terms, created, changed, version: 7, asked }
    }

    #[test]
    fn the_golden_row_and_id() {
        let text = String::from_utf8(row().encode().unwrap()).unwrap();
        assert_eq!(text, golden::text("record-subscription"));
        assert_eq!(row().id, golden::text("subscription-id"));
        assert!(is_id(&row().id) && !is_id("SU1") && !is_id(&row().id.to_lowercase()));
    }

    #[test]
    fn a_row_reads_back_and_another_version_is_named() {
        let mut rows = vec![row()];
        for (symbols, min_move) in
            [(Symbols::All, None), (Symbols::Listed(Vec::new()), Some(Move::Price(Price(1))))]
        {
            let mut row = row();
            row.terms.symbols = symbols;
            row.terms.filter.min_move = min_move;
            rows.push(row);
        }
        for row in rows {
            let body = row.encode().unwrap();
            assert_eq!(Subscription::decode("acct_1", &row.id, 7, &body).as_ref(), Ok(&row));
            let newer = String::from_utf8(body).unwrap().replace("\"v\":1", "\"v\":2");
            let error = Subscription::decode("acct_1", &row.id, 7, newer.as_bytes()).unwrap_err();
            assert!(error.contains("version 2"), "{error}");
        }
    }
}
