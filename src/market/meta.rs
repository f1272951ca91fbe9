//! What the one-letter codes mean: exchanges, sale conditions, quote conditions.
//!
//! The names are those of Alpaca's `meta` endpoints. Sale and quote conditions are defined by
//! the plan that a security is reported under: CTS/CQS for tapes A and B, UTP for tape C.

use super::SipTape;

/// A code and its name.
pub type Code = (u8, &'static str);

/// The exchanges.
pub const EXCHANGES: &[Code] = &[
    (b'A', "NYSE American (AMEX)"),
    (b'B', "NASDAQ OMX BX"),
    (b'C', "National Stock Exchange"),
    (b'D', "FINRA ADF"),
    (b'E', "Market Independent"),
    (b'H', "MIAX"),
    (b'I', "International Securities Exchange"),
    (b'J', "Cboe EDGA"),
    (b'K', "Cboe EDGX"),
    (b'L', "Long Term Stock Exchange"),
    (b'M', "Chicago Stock Exchange"),
    (b'N', "New York Stock Exchange"),
    (b'P', "NYSE Arca"),
    (b'Q', "NASDAQ OMX"),
    (b'S', "NASDAQ Small Cap"),
    (b'T', "NASDAQ Int"),
    (b'U', "Members Exchange"),
    (b'V', "IEX"),
    (b'W', "CBOE"),
    (b'X', "NASDAQ OMX PSX"),
    (b'Y', "Cboe BYX"),
    (b'Z', "Cboe BZX"),
];

const TRADE_CTS: &[Code] = &[
    (b' ', "Regular Sale"),
    (b'4', "Derivatively Priced"),
    (b'5', "Market Center Reopening Trade"),
    (b'6', "Market Center Closing Trade"),
    (b'7', "Qualified Contingent Trade"),
    (b'8', "Reserved"),
    (b'9', "Corrected Consolidated Close Price as per Listing Market"),
    (b'B', "Average Price Trade"),
    (b'C', "Cash Trade (Same Day Clearing)"),
    (b'E', "Automatic Execution"),
    (b'F', "Inter-market Sweep Order"),
    (b'H', "Price Variation Trade"),
    (b'I', "Odd Lot Trade"),
    (b'K', "Rule 127 (NYSE only) or Rule 155 (NYSE MKT only)"),
    (b'L', "Sold Last (Late Reporting)"),
    (b'M', "Market Center Official Close"),
    (b'N', "Next Day Trade (Next Day Clearing)"),
    (b'O', "Market Center Opening Trade"),
    (b'P', "Prior Reference Price"),
    (b'Q', "Market Center Official Open"),
    (b'R', "Seller"),
    (b'T', "Extended Hours Trade"),
    (b'U', "Extended Hours Sold (Out Of Sequence)"),
    (b'V', "Contingent Trade"),
    (b'X', "Cross Trade"),
    (b'Z', "Sold (Out Of Sequence)"),
];

const TRADE_UTP: &[Code] = &[
    (b'1', "Stopped Stock (Regular Trade)"),
    (b'4', "Derivatively priced"),
    (b'5', "Re-Opening Prints"),
    (b'6', "Closing Prints"),
    (b'7', "Qualified Contingent Trade (QCT)"),
    (b'8', "Placeholder For 611 Exempt"),
    (b'9', "Corrected Consolidated Close (per listing market)"),
    (b'@', "Regular Sale"),
    (b'A', "Acquisition"),
    (b'B', "Bunched Trade"),
    (b'C', "Cash Sale"),
    (b'D', "Distribution"),
    (b'E', "Placeholder"),
    (b'F', "Intermarket Sweep"),
    (b'G', "Bunched Sold Trade"),
    (b'H', "Price Variation Trade"),
    (b'I', "Odd Lot Trade"),
    (b'K', "Rule 155 Trade (AMEX)"),
    (b'L', "Sold Last"),
    (b'M', "Market Center Official Close"),
    (b'N', "Next Day"),
    (b'O', "Opening Prints"),
    (b'P', "Prior Reference Price"),
    (b'Q', "Market Center Official Open"),
    (b'R', "Seller"),
    (b'S', "Split Trade"),
    (b'T', "Form T"),
    (b'U', "Extended trading hours (Sold Out of Sequence)"),
    (b'V', "Contingent Trade"),
    (b'W', "Average Price Trade"),
    (b'X', "Cross Trade"),
    (b'Y', "Yellow Flag Regular Trade"),
    (b'Z', "Sold (out of sequence)"),
];

const QUOTE_CQS: &[Code] = &[
    (b'4', "On Demand Intra Day Auction"),
    (b'A', "Slow Quote Offer Side"),
    (b'B', "Slow Quote Bid Side"),
    (b'C', "Closing Quote"),
    (b'E', "Slow Quote LRP Bid Side"),
    (b'F', "Slow Quote LRP Offer Side"),
    (b'H', "Slow Quote Bid And Offer Side"),
    (b'L', "Market Maker Quotes Closed"),
    (b'N', "Non Firm Quote"),
    (b'O', "Opening Quote"),
    (b'R', "Regular Market Maker Open"),
    (b'U', "Slow Quote LRP Bid And Offer"),
    (b'W', "Slow Quote Set Slow List"),
];

const QUOTE_UTP: &[Code] = &[
    (b'4', "On Demand Intra Day Auction"),
    (b'A', "Manual Ask Automated Bid"),
    (b'B', "Manual Bid Automated Ask"),
    (b'F', "Fast Trading"),
    (b'H', "Manual Bid And Ask"),
    (b'I', "Order Imbalance"),
    (b'L', "Closed Quote"),
    (b'N', "Non Firm Quote"),
    (b'O', "Opening Quote Automated"),
    (b'R', "Regular Two Sided Open"),
    (b'U', "Manual Bid And Ask Non Firm"),
    (b'X', "Order Influx"),
    (b'Y', "No Offer No Bid One Sided Open"),
    (b'Z', "No Open No Resume"),
];

/// The sale conditions of trades on a tape, in the order of their codes; `None` where the
/// tape is not A, B or C.
#[must_use]
pub const fn trade_conditions(tape: SipTape) -> Option<&'static [Code]> {
    by_plan(tape, TRADE_CTS, TRADE_UTP)
}

/// The conditions of quotes on a tape, in the order of their codes; `None` where the tape is
/// not A, B or C.
#[must_use]
pub const fn quote_conditions(tape: SipTape) -> Option<&'static [Code]> {
    by_plan(tape, QUOTE_CQS, QUOTE_UTP)
}

const fn by_plan(tape: SipTape, cts: &'static [Code], utp: &'static [Code]) -> Option<&'static [Code]> {
    match tape.letter() {
        Some(b'A' | b'B') => Some(cts),
        Some(b'C') => Some(utp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(table: &[Code], code: u8) -> Option<&'static str> {
        table.iter().find(|(letter, _)| *letter == code).map(|(_, name)| *name)
    }

    #[test]
    fn codes_ascend_and_are_named_once() {
        for table in [EXCHANGES, TRADE_CTS, TRADE_UTP, QUOTE_CQS, QUOTE_UTP] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
            assert!(table.iter().all(|(code, name)| (0x20..0x7f).contains(code) && !name.is_empty()));
        }
        assert_eq!([EXCHANGES.len(), TRADE_CTS.len(), TRADE_UTP.len()], [22, 26, 33]);
        assert_eq!([QUOTE_CQS.len(), QUOTE_UTP.len()], [13, 14]);
    }

    #[test]
    fn the_same_letter_means_another_thing_on_another_tape() {
        let (a, b, c) = (SipTape::A, SipTape::B, SipTape::C);
        assert_eq!(trade_conditions(a), trade_conditions(b));
        assert_eq!(name(trade_conditions(a).unwrap(), b'B'), Some("Average Price Trade"));
        assert_eq!(name(trade_conditions(c).unwrap(), b'B'), Some("Bunched Trade"));
        assert_eq!(name(trade_conditions(c).unwrap(), b' '), None);
        assert_eq!(name(quote_conditions(b).unwrap(), b'O'), Some("Opening Quote"));
        assert_eq!(name(quote_conditions(c).unwrap(), b'O'), Some("Opening Quote Automated"));
        assert_eq!(trade_conditions(SipTape::ABSENT), None);
        assert_eq!(quote_conditions(SipTape::parse(b"O").unwrap()), None);
        assert_eq!(name(EXCHANGES, b'V'), Some("IEX"));
    }
}
