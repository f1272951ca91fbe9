//! Bodies of answers, written once into one buffer.

use crate::history::{BarSpan, Entry, Page};
use crate::market::Symbol;
use crate::wire::json;

/// One item of a page as the object of history.
pub(crate) trait Item {
    fn write(&self, symbol: Symbol, out: &mut Vec<u8>);
}

impl Item for Entry {
    fn write(&self, _: Symbol, out: &mut Vec<u8>) {
        json::write_history(&self.tick, self.mark, out);
    }
}

impl Item for BarSpan {
    fn write(&self, symbol: Symbol, out: &mut Vec<u8>) {
        json::write_history(&self.to_tick(symbol), None, out);
    }
}

/// What stands around the items.
pub(crate) struct Frame<'a> {
    /// `trades`, `quotes` or `bars`.
    pub(crate) member: &'a str,
    pub(crate) next_page_token: Option<&'a str>,
    pub(crate) currency: Option<&'a str>,
}

/// Bytes of an item, for the buffer's first size.
const ITEM_BYTES: usize = 120;

/// `{"trades":{"AAPL":[…]},"next_page_token":null}`.
pub(crate) fn of_many<T: Item>(page: &Page<T>, frame: &Frame<'_>) -> Vec<u8> {
    let mut out = buffer(page);
    out.push(b'{');
    json::write_text(frame.member, &mut out);
    out.extend_from_slice(b":{");
    for (at, (symbol, items)) in page.series.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::write_text(symbol.as_str(), &mut out);
        out.push(b':');
        write_items(*symbol, items, &mut out);
    }
    out.push(b'}');
    write_end(frame, &mut out);
    out
}

/// `{"symbol":"AAPL","trades":[…],"next_page_token":null}`.
pub(crate) fn of_one<T: Item>(symbol: Symbol, page: &Page<T>, frame: &Frame<'_>) -> Vec<u8> {
    let mut out = buffer(page);
    out.extend_from_slice(b"{\"symbol\":");
    json::write_text(symbol.as_str(), &mut out);
    out.push(b',');
    json::write_text(frame.member, &mut out);
    out.push(b':');
    let items = page.series.first().map(|(_, items)| items.as_slice()).unwrap_or_default();
    write_items(symbol, items, &mut out);
    write_end(frame, &mut out);
    out
}

fn buffer<T>(page: &Page<T>) -> Vec<u8> {
    let items: usize = page.series.iter().map(|(_, items)| items.len()).sum();
    Vec::with_capacity(items * ITEM_BYTES + 128)
}

fn write_items<T: Item>(symbol: Symbol, items: &[T], out: &mut Vec<u8>) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        item.write(symbol, out);
    }
    out.push(b']');
}

fn write_end(frame: &Frame<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"next_page_token\":");
    match frame.next_page_token {
        Some(token) => json::write_text(token, out),
        None => out.extend_from_slice(b"null"),
    }
    if let Some(currency) = frame.currency {
        out.extend_from_slice(b",\"currency\":");
        json::write_text(currency, out);
    }
    out.push(b'}');
}
