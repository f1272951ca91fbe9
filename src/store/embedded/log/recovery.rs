//! Opening and verifying: what is in the segments, what it means, what is cut.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{self, ALIGN, Entry, HEADER_BYTES, Header, Location, RECORD_MAGIC, Record, aligned};
use super::index::{Active, Finished, IndexPlace, spans};
use super::writer::{State, Tail};
use super::{Core, Opened};
use crate::seal::Keyring;
use crate::store::StoreError;
use crate::store::embedded::{Finding, Progress, Severity};

/// The file of a segment.
pub(super) fn segment_path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:016}.log"))
}

/// A segment's file and header.
struct Head {
    path: PathBuf,
    header: Header,
    /// The first number of the next segment.
    limit: Option<u64>,
}

/// The trusted part of a segment.
struct Survey {
    entries: Vec<Entry>,
    /// The number after the last.
    end: u64,
    /// The offset after the last record, aligned.
    offset: u64,
    /// The offset of its index, where it has a good one.
    index: Option<u64>,
    /// Bytes after the last record that are not zero, up to the last of them.
    junk_bytes: u64,
    /// Records that a later header takes back.
    ignored: u64,
    /// Records that no `durable` covers yet.
    unconfirmed: Vec<Location>,
}

/// A record that a scan found.
struct Found {
    record: Record,
    at: Location,
}

/// Opens the log: reads it, judges it, syncs its tail. `create` where there must be none.
pub(super) fn open(core: &Core, create: bool) -> Result<(State, Opened), StoreError> {
    remove_temporary(&core.folder).map_err(|error| at_folder(&core.folder, &error))?;
    let heads = heads(&core.folder, &core.keyring)?;
    if create != heads.is_empty() {
        let found = if create { "log segments in a store that was just made" } else { "no log segment" };
        return Err(StoreError::corrupt(format!("{}: there are {found}", core.folder.display())));
    }
    if create {
        let tail = core.make_segment(1, 1)?;
        let active = Active { segment: 1, file: Arc::clone(&tail.file), entries: BTreeMap::new() };
        core.shared.write().active = Some(active);
        return Ok((State { durable: 0, next_segment: 2, tail: Some(tail) }, Opened::default()));
    }
    let mut opened = Opened::default();
    let mut surveys = Vec::with_capacity(heads.len());
    for head in &heads {
        surveys.push(survey(head, &core.keyring, false, &mut opened.findings)?);
    }
    // Nothing is changed on the disk before all of it was judged.
    if let Some(damage) = opened.findings.iter().find(|finding| finding.severity == Severity::Damage) {
        return Err(StoreError::corrupt(damage.to_string()));
    }
    let mut state = State { durable: 0, next_segment: 1, tail: None };
    for (head, survey) in heads.iter().zip(surveys) {
        opened.frames += survey.entries.len() as u64;
        opened.ignored_records += survey.ignored;
        state.durable = survey.end - 1;
        state.next_segment = head.header.segment + 1;
        if head.limit.is_some() {
            core.take_finished(head, survey).map_err(|error| at_file(&head.path, &error))?;
        } else {
            opened.cut_bytes = survey.junk_bytes;
            state.tail = core.take_last(head, survey, &mut state.next_segment)?;
        }
    }
    Ok((state, opened))
}

impl Core {
    /// A segment with a later one: its index is written again where it was missing or bad.
    fn take_finished(&self, head: &Head, mut survey: Survey) -> io::Result<()> {
        survey.entries.sort_unstable();
        let spans = spans(&survey.entries);
        let segment = head.header.segment;
        let index = match survey.index {
            Some(offset) => IndexPlace::File(offset),
            None => {
                let file = OpenOptions::new().read(true).write(true).open(&head.path)?;
                self.write_index(segment, &file, survey.offset, survey.end, survey.entries.into())
            }
        };
        let finished = Finished { segment, path: head.path.clone(), spans, index };
        self.shared.write().finished.push(Arc::new(finished));
        Ok(())
    }

    /// The last segment: its tail is written again and synced before anyone reads it. It is
    /// written on where it ends clean; else a new segment begins, or, where the disk has no room
    /// for one, appends are refused until it has.
    fn take_last(
        &self,
        head: &Head,
        mut survey: Survey,
        next_segment: &mut u64,
    ) -> Result<Option<Tail>, StoreError> {
        let failed = |error: io::Error| at_file(&head.path, &error);
        let file = OpenOptions::new().read(true).write(true).open(&head.path).map_err(failed)?;
        self.sync_tail(&file, &survey.unconfirmed).map_err(failed)?;
        survey.entries.sort_unstable();
        let length = file.metadata().map_err(failed)?.len();
        let (segment, bytes) = (head.header.segment, head.header.bytes);
        let offset = u32::try_from(survey.offset).unwrap_or(bytes);
        if survey.junk_bytes == 0 && length == u64::from(bytes) && offset < bytes {
            let file = Arc::new(file);
            let entries = survey.entries.iter().map(|entry| ((entry.tape, entry.seq), entry.location()));
            let active = Active { segment, file: Arc::clone(&file), entries: entries.collect() };
            self.shared.write().active = Some(active);
            return Ok(Some(Tail { segment, file, offset, bytes }));
        }
        let fresh = self.make_segment(*next_segment, survey.end);
        let spans = spans(&survey.entries);
        let index = match &fresh {
            // Only now that the next header stands may the bytes behind the last record go.
            Ok(_) => self.write_index(segment, &file, survey.offset, survey.end, survey.entries.into()),
            Err(_) => IndexPlace::Memory(survey.entries.into()),
        };
        let mut shared = self.shared.write();
        shared.finished.push(Arc::new(Finished { segment, path: head.path.clone(), spans, index }));
        match fresh {
            Ok(tail) => {
                *next_segment += 1;
                let (segment, file) = (tail.segment, Arc::clone(&tail.file));
                shared.active = Some(Active { segment, file, entries: BTreeMap::new() });
                Ok(Some(tail))
            }
            Err(error) => {
                tracing::error!(detail = %error, "the log cannot make a segment, appends are refused");
                shared.refusing = Some(error.detail);
                Ok(None)
            }
        }
    }

    fn sync_tail(&self, file: &File, unconfirmed: &[Location]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        for at in unconfirmed {
            let mut bytes = vec![0; at.record_bytes()];
            file.read_exact_at(&mut bytes, u64::from(at.offset))?;
            self.disk.write(file, &bytes, u64::from(at.offset))?;
        }
        self.disk.sync(file)
    }
}

/// Reads every record of a log that nobody writes and names what is damaged.
pub(super) fn verify(
    folder: &Path,
    keyring: &Keyring,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Finding>, StoreError> {
    let heads = heads(folder, keyring)?;
    if heads.is_empty() {
        return Err(StoreError::corrupt("the folder holds no segment of the log"));
    }
    let mut findings = Vec::new();
    verify_heads(&heads, keyring, &mut findings, progress)?;
    Ok(findings)
}

/// The same for a log that is open: of the segment that is written only what readers see.
pub(super) fn verify_open(
    core: &Core,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Finding>, StoreError> {
    let active = core.shared.read().active.as_ref().map(|active| (active.segment, active.sorted_entries()));
    let before = active.as_ref().map_or(u64::MAX, |(segment, _)| *segment);
    let mut heads = heads(&core.folder, &core.keyring)?;
    heads.retain(|head| head.header.segment < before);
    let mut findings = Vec::new();
    verify_heads(&heads, &core.keyring, &mut findings, progress)?;
    // What was finished a moment ago may get its index only now.
    findings.retain(|finding| finding.severity == Severity::Damage);
    for entry in active.iter().flat_map(|(_, entries)| entries) {
        if let Err(error) = core.find(entry.tape, entry.seq) {
            let file = segment_path(&core.folder, before);
            let offset = Some(u64::from(entry.offset));
            findings.push(Finding { file, offset, severity: Severity::Damage, what: error.detail });
        }
    }
    Ok(findings)
}

fn verify_heads(
    heads: &[Head],
    keyring: &Keyring,
    findings: &mut Vec<Finding>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let total = heads.iter().map(|head| u64::from(head.header.bytes)).sum();
    let mut done = 0;
    for head in heads {
        match survey(head, keyring, true, findings) {
            Ok(_) => {}
            // Retention has just unlinked it.
            Err(_) if !head.path.exists() => {}
            Err(error) => return Err(error),
        }
        done += u64::from(head.header.bytes);
        progress(Progress { what: "tapes", done_bytes: done, total_bytes: total });
    }
    Ok(())
}

/// The segments of a folder, ascending, without holes between them.
fn heads(folder: &Path, keyring: &Keyring) -> Result<Vec<Head>, StoreError> {
    let mut numbers = Vec::new();
    for item in fs::read_dir(folder).map_err(|error| at_folder(folder, &error))? {
        let item = item.map_err(|error| at_folder(folder, &error))?;
        let name = item.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|n| n.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let mut heads: Vec<Head> = Vec::with_capacity(numbers.len());
    for segment in numbers {
        let path = segment_path(folder, segment);
        let header = match read_header(keyring, segment, &path) {
            Ok(header) => header,
            // Retention has just unlinked it, and all before it.
            Err(_) if !path.exists() => {
                heads.clear();
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(before) = heads.last_mut() {
            let expected = before.header.segment + 1;
            if segment != expected {
                let missing = segment_path(folder, expected);
                return Err(StoreError::corrupt(format!(
                    "{}: this log segment is missing",
                    missing.display()
                )));
            }
            if header.first < before.header.first {
                let what = format!("{}: it begins before the segment before it", path.display());
                return Err(StoreError::corrupt(what));
            }
            before.limit = Some(header.first);
        }
        heads.push(Head { path, header, limit: None });
    }
    Ok(heads)
}

fn read_header(keyring: &Keyring, segment: u64, path: &Path) -> Result<Header, StoreError> {
    use std::io::Read as _;
    let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
    let file = File::open(path).map_err(|error| at_file(path, &error))?;
    file.take(u64::from(HEADER_BYTES)).read_to_end(&mut bytes).map_err(|error| at_file(path, &error))?;
    Header::decode(keyring, segment, &bytes)
        .map_err(|why| StoreError::corrupt(format!("{}, byte 0: {why}", path.display())))
}

/// Reads one segment. With `full` every record is read, else its index where it has a good one.
fn survey(
    head: &Head,
    keyring: &Keyring,
    full: bool,
    findings: &mut Vec<Finding>,
) -> Result<Survey, StoreError> {
    let segment = head.header.segment;
    let bytes = if full { fs::read(&head.path) } else { read_index_or_all(&head.path, head.limit.is_some()) };
    let bytes = bytes.map_err(|error| at_file(&head.path, &error))?;
    let file_bytes = fs::metadata(&head.path).map_err(|error| at_file(&head.path, &error))?.len();
    let begin = file_bytes.saturating_sub(bytes.len() as u64);
    let index = trailer_offset(&bytes).and_then(|offset| {
        let at = usize::try_from(offset.checked_sub(begin)?).ok()?;
        Some((offset, format::decode_index(keyring, segment, offset, bytes.get(at..)?)))
    });
    let mut finding = |severity, offset, what: String| {
        findings.push(Finding { file: head.path.clone(), offset, severity, what });
    };
    let listed = match (index, head.limit) {
        (Some((offset, Ok((end, entries)))), Some(limit)) if end == limit => Some((offset, end, entries)),
        (Some((offset, Ok(_))), None) => {
            let what = "the segment is finished, so the log went on in a newer one, which is missing";
            finding(Severity::Damage, Some(offset), what.into());
            None
        }
        (Some((offset, Ok((end, _)))), Some(limit)) => {
            let what = format!("the index ends at record {end}, the next segment begins at {limit}");
            finding(Severity::Damage, Some(offset), what);
            None
        }
        (Some((offset, Err(why))), _) => {
            let what = format!("the index cannot be read and is made again from the records: {why}");
            finding(Severity::Healed, Some(offset), what);
            None
        }
        (None, Some(_)) => {
            let what = "the segment has no index; it is made again from the records";
            finding(Severity::Healed, None, what.into());
            None
        }
        (None, None) => None,
    };
    if let (false, Some((offset, end, entries))) = (full, listed) {
        let index = Some(offset);
        return Ok(Survey {
            entries,
            end,
            offset,
            index,
            junk_bytes: 0,
            ignored: 0,
            unconfirmed: Vec::new(),
        });
    }
    let bytes =
        if begin == 0 { bytes } else { fs::read(&head.path).map_err(|error| at_file(&head.path, &error))? };
    let found = scan(keyring, segment, &bytes);
    Ok(judge(head, &found, &bytes, findings))
}

/// The end of a finished segment that holds its index, or all of the file.
fn read_index_or_all(path: &Path, finished: bool) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut trailer = [0; 16];
    if finished && length >= format::TRAILER_BYTES {
        file.read_exact_at(&mut trailer, length - format::TRAILER_BYTES)?;
        if let Some(offset) = format::decode_trailer(&trailer).filter(|offset| *offset < length) {
            let mut bytes = vec![0; usize::try_from(length - offset).unwrap_or(0)];
            file.read_exact_at(&mut bytes, offset)?;
            return Ok(bytes);
        }
    }
    fs::read(path)
}

fn trailer_offset(bytes: &[u8]) -> Option<u64> {
    let trailer = bytes.last_chunk::<16>()?;
    format::decode_trailer(trailer)
}

/// All records of a segment, also behind bytes that are none.
fn scan(keyring: &Keyring, segment: u64, bytes: &[u8]) -> Vec<Found> {
    let magic = memchr::memmem::Finder::new(RECORD_MAGIC);
    let mut found: Vec<Found> = Vec::new();
    let mut at = HEADER_BYTES as usize;
    while let Some(rest) = bytes.get(at..) {
        let Some(skip) = magic.find(rest) else { break };
        at += skip;
        let offset = u32::try_from(at).ok().filter(|_| (at as u64).is_multiple_of(ALIGN));
        let record = offset.and_then(|offset| {
            Record::decode(keyring, segment, offset, bytes.get(at..).unwrap_or_default()).ok()
        });
        match record {
            Some((record, location, _)) => {
                at = usize::try_from(aligned(location.end())).unwrap_or(usize::MAX);
                found.push(Found { record, at: location });
            }
            None => at += 1,
        }
    }
    found
}

/// What of the records found is to be trusted, by the rules of the module.
fn judge(head: &Head, found: &[Found], bytes: &[u8], findings: &mut Vec<Finding>) -> Survey {
    let limit = head.limit.unwrap_or(u64::MAX);
    let mut next = head.header.first;
    let mut offset = u64::from(HEADER_BYTES);
    let mut entries = Vec::new();
    let mut rest = found.iter().peekable();
    while let Some(one) = rest.next_if(|one| one.record.number == next && next < limit) {
        let Record { tape, seq, .. } = one.record;
        entries.push(Entry { tape, seq, offset: one.at.offset, length: one.at.length });
        offset = aligned(one.at.end());
        next += 1;
    }
    let later: Vec<&Found> = rest.collect();
    // Where the segment is not the last, the next header says what was on the disk.
    let covered =
        later.iter().map(|one| one.record.durable).max().unwrap_or(0).max(head.limit.map_or(0, |l| l - 1));
    let mut finding = |severity, what| {
        findings.push(Finding { file: head.path.clone(), offset: Some(offset), severity, what });
    };
    if covered >= next {
        let what =
            format!("log record {next} cannot be read, although records up to {covered} were on the disk");
        finding(Severity::Damage, what);
    }
    let after = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
    let is_cut_short = head.limit.is_none() && (bytes.len() as u64) < u64::from(head.header.bytes);
    let junk_bytes = match after.iter().rposition(|byte| *byte != 0) {
        // Zeros at the end of a file that was cut belong to what was cut.
        _ if is_cut_short => after.len() as u64,
        last => last.map_or(0, |last| last as u64 + 1),
    };
    if head.limit.is_none() && covered < next {
        if junk_bytes > 0 {
            let what = format!(
                "the log ends before record {next}: {junk_bytes} bytes that no acknowledgement covers are cut"
            );
            finding(Severity::Cut, what);
        } else if is_cut_short {
            let what = format!("the file has {} bytes and was made with {}", bytes.len(), head.header.bytes);
            finding(Severity::Cut, what);
        }
    }
    let durable = found.iter().map(|one| one.record.durable).max().unwrap_or(0);
    let trusted = found.iter().take_while(|one| one.record.number < next);
    Survey {
        entries,
        end: next,
        offset,
        index: None,
        junk_bytes,
        ignored: if head.limit.is_some() { later.len() as u64 } else { 0 },
        unconfirmed: trusted.filter(|one| one.record.number > durable).map(|one| one.at).collect(),
    }
}

fn remove_temporary(folder: &Path) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn at_folder(folder: &Path, error: &io::Error) -> StoreError {
    StoreError::refused(format!("{}: {error}", folder.display()))
}

fn at_file(path: &Path, error: &io::Error) -> StoreError {
    StoreError::refused(format!("{}: {error}", path.display()))
}
