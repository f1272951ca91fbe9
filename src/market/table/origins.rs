//! Where rows came from.

use std::collections::HashMap;

use super::TableError;
use super::bytes::{Source, put_count};
use super::column::{self, Shape};
use super::layout::Form;
use crate::market::{Nanos, Origin, RequestKey, Row};

/// The requests of a table by number: those of the frame's header, then those named in the table.
pub(super) struct Requests {
    numbers: HashMap<RequestKey, u64>,
    before: Option<(RequestKey, u64)>,
    next: u64,
    named: Vec<RequestKey>,
}

impl Requests {
    pub(super) fn new(requests: &[RequestKey]) -> Self {
        let mut numbers = HashMap::with_capacity(requests.len());
        let mut next = 0;
        for request in requests {
            numbers.entry(*request).or_insert(next);
            next += 1;
        }
        Self { numbers, before: None, next, named: Vec::new() }
    }

    pub(super) fn number(&mut self, request: RequestKey) -> u64 {
        // Rows of one request mostly follow each other.
        if let Some((before, number)) = self.before
            && before == request
        {
            return number;
        }
        let next = self.next;
        let number = *self.numbers.entry(request).or_insert(next);
        if number == next {
            self.named.push(request);
            self.next += 1;
        }
        self.before = Some((request, number));
        number
    }
}

/// Appends the origins of rows: of a frame all, of a block of those that need them.
pub(super) fn put<'a>(
    rows: impl Iterator<Item = &'a Row>,
    form: Form,
    requests: &mut Requests,
    out: &mut Vec<u8>,
) {
    let origins: Vec<&Origin> =
        rows.filter(|row| form == Form::Frame || row.needs_origin()).map(|row| &row.origin).collect();
    let numbers: Vec<u64> = origins.iter().map(|origin| requests.number(origin.request)).collect();
    if form == Form::Block {
        put_count(origins.len(), out);
    }
    put_count(requests.named.len(), out);
    for request in &requests.named {
        out.extend_from_slice(&request.0);
    }
    let indexes: Vec<u64> = origins.iter().map(|origin| u64::from(origin.index)).collect();
    column::put(&numbers, Shape::Near, &[], out);
    column::put(&indexes, Shape::Near, &[], out);
    if form == Form::Block {
        let received: Vec<u64> = origins.iter().map(|origin| origin.received.0.cast_unsigned()).collect();
        column::put(&received, Shape::Near, &[], out);
    }
}

/// Reads origins again. In a frame there is one for each of `rows` rows, received at `received`.
pub(super) fn take(
    rows: usize,
    form: Form,
    requests: &[RequestKey],
    received: Nanos,
    source: &mut Source<'_>,
) -> Result<Vec<Origin>, TableError> {
    let count = if form == Form::Frame { rows } else { source.count(rows)? };
    let named = source.count(rows)?;
    let (named, _) = source.take(named * size_of::<RequestKey>())?.as_chunks::<16>();
    let key = |number: u64| {
        let at = usize::try_from(number).ok()?;
        let named = || named.get(at.checked_sub(requests.len())?).map(|bytes| RequestKey(*bytes));
        requests.get(at).copied().or_else(named)
    };
    let numbers = column::take(count, &[], source)?;
    let indexes = column::take(count, &[], source)?;
    let times = match form {
        Form::Frame => Vec::new(),
        Form::Block => column::take(count, &[], source)?,
    };
    let mut times = times.into_iter().map(|time| Nanos(time.cast_signed()));
    numbers
        .into_iter()
        .zip(indexes)
        .map(|(number, index)| {
            Ok(Origin {
                received: times.next().unwrap_or(received),
                index: u32::try_from(index).map_err(|_| TableError::Malformed("an index is too large"))?,
                request: key(number).ok_or(TableError::Malformed("a request is not known"))?,
            })
        })
        .collect()
}
