//! The retired list of a region: the tapes that have ended, with how far each reaches.
//!
//! It is one compare-and-set row. Its entries are numbered 1, 2, 3 … (`k`) and never change; an
//! entry goes only when its tape's registry row has expired, and nothing is renumbered then. A
//! random id names the list: one that was lost and begun again is another list, and Positions
//! that name the old one are not read by the new one.

use std::collections::BTreeMap;

use super::codec::{CodecError, Fields, put_varint, version};
use super::frame::Region;
use super::position::{Position, Progress, Seen};
use crate::store::TapeId;

/// The key of the row; part = region.
pub const RETIRED_KEY: &str = "list";
/// The most entries of a list.
pub const RETIRED_MAX: usize = 16_384;

const RETIRED_VERSION: u8 = 1;

/// An entry: the tape, and how far it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The number of the entry.
    pub k: u64,
    /// How far the tape reaches, by the node that retired it.
    pub progress: Progress,
}

/// A region's retired list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetiredList {
    /// The random id of the list.
    pub id: u64,
    /// The number of the last entry that was ever made.
    pub k: u64,
    /// The entries, by tape.
    pub entries: BTreeMap<TapeId, Retired>,
}

impl RetiredList {
    /// The list with one more entry.
    #[must_use]
    pub fn with(&self, tape: TapeId, progress: Progress) -> Self {
        let mut list = self.clone();
        list.k += 1;
        list.entries.insert(tape, Retired { k: list.k, progress });
        list
    }

    /// The list without the entries that `gone` names. Nothing is renumbered.
    #[must_use]
    pub fn without(&self, gone: impl Fn(TapeId) -> bool) -> Self {
        let mut list = self.clone();
        list.entries.retain(|tape, _| !gone(*tape));
        list
    }

    /// The body of the row, unsealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![RETIRED_VERSION];
        out.extend_from_slice(&self.id.to_be_bytes());
        put_varint(self.k, &mut out);
        put_varint(self.entries.len() as u64, &mut out);
        for (tape, entry) in &self.entries {
            out.extend_from_slice(&tape.0.to_be_bytes());
            put_varint(entry.k, &mut out);
            entry.progress.encode(&mut out);
        }
        out
    }

    /// Reads the body of the row.
    ///
    /// # Errors
    /// [`CodecError`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, RETIRED_VERSION)?;
        let mut list = Self { id: fields.fixed("list")?, k: fields.varint("k")?, entries: BTreeMap::new() };
        for _ in 0..fields.count(RETIRED_MAX, "entries")? {
            let tape = TapeId(fields.fixed("tape")?);
            let k = fields.varint("entry's k")?;
            if k == 0 || k > list.k {
                return Err(CodecError::invalid("entry's k", k, "1 to the list's k"));
            }
            if list.entries.last_key_value().is_some_and(|(last, _)| *last >= tape) {
                return Err(CodecError::invalid("tape", tape.0, "ascending ids"));
            }
            list.entries.insert(tape, Retired { k, progress: Progress::decode(&mut fields)? });
        }
        fields.end()?;
        Ok(list)
    }
}

/// The lists of all regions, as far as a node has seen them.
#[derive(Clone, Debug, Default)]
pub struct RetiredLists {
    lists: BTreeMap<Region, RetiredList>,
}

impl RetiredLists {
    /// The list of a region, if one was seen.
    #[must_use]
    pub fn get(&self, region: Region) -> Option<&RetiredList> {
        self.lists.get(&region)
    }

    /// Takes a list that was read. Whether it says more than what was known: an older state of
    /// the same list (a slow replica) says nothing.
    pub fn adopt(&mut self, region: Region, list: RetiredList) -> bool {
        match self.lists.get(&region) {
            Some(known)
                if known.id == list.id && known.k >= list.k && known.entries.len() <= list.entries.len() =>
            {
                false
            }
            Some(known) if known.id == list.id && known.k > list.k => false,
            _ => self.lists.insert(region, list).is_none_or(|_| true),
        }
    }

    /// What a Position states of the lists.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<Region, Seen> {
        self.lists.iter().map(|(region, list)| (*region, Seen { list: list.id, k: list.k })).collect()
    }

    /// The entry of a tape.
    #[must_use]
    pub fn entry(&self, tape: TapeId) -> Option<&Retired> {
        self.lists.values().find_map(|list| list.entries.get(&tape))
    }

    /// The entry of a tape, and the id of its list.
    #[must_use]
    pub fn entry_of(&self, tape: TapeId) -> Option<(u64, &Retired)> {
        self.lists.values().find_map(|list| list.entries.get(&tape).map(|entry| (list.id, entry)))
    }

    /// What a Position says of a tape. One that it does not name is covered as far as its retired
    /// entry, where the Position's writer had seen that entry, and else not at all (I9).
    #[must_use]
    pub fn progress(&self, position: &Position, tape: TapeId) -> Progress {
        if let Some(progress) = position.tapes.get(&tape) {
            return progress.clone();
        }
        let retired = self.lists.iter().find_map(|(region, list)| {
            let entry = list.entries.get(&tape)?;
            let seen = position.seen.get(region)?;
            (seen.list == list.id && entry.k <= seen.k).then(|| entry.progress.clone())
        });
        retired.unwrap_or_default()
    }

    /// The regions of whose list a Position has seen more (or another one): read them at home
    /// before it is trusted for tapes that it does not name.
    #[must_use]
    pub fn behind(&self, position: &Position) -> Vec<Region> {
        let knows = |region: &Region, seen: &Seen| {
            self.lists.get(region).is_some_and(|list| list.id == seen.list && list.k >= seen.k)
        };
        position
            .seen
            .iter()
            .filter(|(region, seen)| !knows(region, seen))
            .map(|(region, _)| *region)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::parse(name).unwrap()
    }

    #[test]
    fn the_golden_list() {
        let list = RetiredList { id: 0x1122_3344_5566_7788, ..RetiredList::default() };
        let list = list.with(TapeId(0xfedc_ba98_7654_3210), Progress::at(301));
        let voids = Progress { next: 12, voids: [3, 9].into() };
        let list = list.with(TapeId(0x0123_4567_89ab_cdef), voids);
        assert_eq!(list.encode(), crate::market::golden::block("record-retired"));
    }

    #[test]
    fn lists_round_trip_and_never_renumber() {
        let list = RetiredList { id: 9, ..RetiredList::default() };
        let list =
            list.with(TapeId(5), Progress { next: 8, voids: [3].into() }).with(TapeId(2), Progress::at(4));
        assert_eq!(RetiredList::decode(&list.encode()), Ok(list.clone()));
        let fewer = list.without(|tape| tape == TapeId(5));
        assert_eq!((fewer.k, fewer.entries[&TapeId(2)].k), (2, 2));
        assert_eq!(RetiredList::decode(&fewer.encode()), Ok(fewer));
        let bytes = list.encode();
        for cut in 0..bytes.len() {
            assert!(RetiredList::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_absent_tape_is_retired_only_within_what_the_position_has_seen_of_the_same_list() {
        let list = RetiredList { id: 9, ..RetiredList::default() }.with(TapeId(5), Progress::at(8));
        let mut lists = RetiredLists::default();
        assert!(lists.adopt(region("a"), list.clone()));
        assert!(!lists.adopt(region("a"), list));
        let position =
            |list, k| Position { seen: [(region("a"), Seen { list, k })].into(), ..Position::default() };
        assert_eq!(lists.progress(&position(9, 1), TapeId(5)), Progress::at(8));
        assert_eq!(lists.progress(&position(9, 0), TapeId(5)), Progress::at(1));
        assert_eq!(lists.progress(&position(8, 1), TapeId(5)), Progress::at(1));
        assert_eq!(lists.behind(&position(9, 1)), []);
        assert_eq!(lists.behind(&position(9, 2)), [region("a")]);
        assert_eq!(lists.behind(&position(8, 1)), [region("a")]);
    }
}
