//! Files of ticks: NDJSON, CSV and Databento DBN, as they are or in gzip or zstd.
//!
//! A file is read as numbered entries, each one tick as a line of NDJSON. The number is the
//! line's position in the file (of CSV the record's, without the header; of DBN the record's),
//! from 0, whatever is on it: together with the SHA-256 of the decompressed bytes it names the
//! tick, so that a file can be posted in any pieces, again, or from the middle.
//!
//! - What a file is made of is seen in its first bytes; `--format` says otherwise.
//! - An entry that holds no tick (an empty line, a line that is no JSON, a record without a
//!   symbol) keeps its number and says why. What a readable line says is judged by the node.
//! - Memory is one line of at most 64 KiB and the buffers of the decoders.

mod columns;
mod csv;
mod dbn;
mod lines;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::market::{Symbol, SymbolError};

/// The longest line, which is the longest tick that a node takes.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// The most entries of a file: the last number is 2^32 - 2.
pub(super) const ENTRIES_MAX: u32 = u32::MAX - 1;

const BUFFER_BYTES: usize = 128 * 1024;

/// Which file, and how to read it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FileArgs {
    /// NDJSON, CSV or Databento DBN; gzip and zstd are seen by their first bytes
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What the file is, where its first bytes do not tell
    #[arg(long, value_enum, default_value_t = FileFormat::Auto)]
    pub format: FileFormat,
    /// Symbol of a CSV file that has no column for it
    #[arg(long, value_name = "SYMBOL", value_parser = symbol)]
    pub symbol: Option<Symbol>,
    /// Columns of a CSV file that are left out, by their names in the header
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub ignore: Vec<String>,
}

fn symbol(text: &str) -> Result<Symbol, SymbolError> {
    text.parse()
}

/// What the lines of `--help` say about files.
pub(super) const FILES_HELP: &str = "\
Files:
  NDJSON  One tick a line, an object of Alpaca's stream: {\"T\":\"t\",\"S\":\"AAPL\",\"t\":…,\"p\":…,\"s\":…}
  CSV     A header names the fields: T S t p s x c i z, ap as ax bp bs bx, o h l c v n vw, or
          symbol/ticker/name, time/timestamp/date, price, size, exchange, conditions, id, tape,
          ask_price/ask, ask_size, bid_price/bid, bid_size, open, high, low, close, volume,
          trades, vwap. Without a column T a row with open to close is a bar (daily where its
          time is a date), one with ask or bid a quote (exchange is that of both sides), one
          with a price a trade. Times are RFC 3339, dates (midnight in New York) or Unix times
          in s, ms, us or ns by their length. Conditions are one letter each, parted by one of
          ; | / or not at all
  DBN     Schemas trades, mbp-1, tbbo, bbo-1s, bbo-1m (quotes), ohlcv-1m, ohlcv-1d";

/// What a file is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FileFormat {
    /// By its first bytes
    Auto,
    /// One tick a line
    Ndjson,
    /// Rows under a header
    Csv,
    /// Databento's binary encoding
    Dbn,
}

/// Why a file cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub(super) struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// One entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its position, from 0.
    pub number: u32,
    /// The tick as a line of NDJSON without its end; of a refused one what the file has there.
    pub text: Vec<u8>,
    /// Why it holds no tick.
    pub refused: Option<String>,
    /// Bytes of the decompressed file that have been read, up to a buffer more than this entry.
    pub bytes_read: u64,
}

/// The entries of a file.
pub(super) type Entries = Box<dyn Iterator<Item = Result<Entry, FileError>> + Send>;

/// A file that was read through once: its name by content is known.
#[derive(Clone, Debug)]
pub(super) struct TickFile {
    args: FileArgs,
    format: FileFormat,
    digest: [u8; 32],
    bytes: u64,
}

/// What a decoder says of one entry: a line, or what is there and why it is no tick.
type Decoded = Result<Vec<u8>, Refused>;

struct Refused {
    text: Vec<u8>,
    why: String,
}

impl Refused {
    fn new(text: impl Into<Vec<u8>>, why: impl Into<String>) -> Self {
        Self { text: text.into(), why: why.into() }
    }
}

impl TickFile {
    /// Reads a file once for its digest and length. `on_progress` is told how many of how many
    /// stored bytes are read.
    ///
    /// # Errors
    /// [`FileError`] where it cannot be read or holds no ticks.
    pub(super) fn open(args: FileArgs, mut on_progress: impl FnMut(u64, u64)) -> Result<Self, FileError> {
        let failed = |why: String| FileError { path: args.file.clone(), why };
        let stored = Arc::new(AtomicU64::new(0));
        let reader = decompressed(&args.file, &stored).map_err(|error| failed(error.to_string()));
        let mut reader = reader?;
        let stored_total = std::fs::metadata(&args.file).map_or(0, |about| about.len());
        let start = reader.fill_buf().map_err(|error| failed(error.to_string()))?;
        let format = match args.format {
            FileFormat::Auto => seen_in(start).map_err(failed)?,
            format => format,
        };
        let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
        loop {
            let buffer = reader.fill_buf().map_err(|error| failed(error.to_string()))?;
            if buffer.is_empty() {
                break;
            }
            hasher.update(buffer);
            let length = buffer.len();
            bytes += length as u64;
            reader.consume(length);
            on_progress(stored.load(Ordering::Relaxed), stored_total);
        }
        Ok(Self { format, digest: hasher.finalize().into(), bytes, args })
    }

    /// SHA-256 of the decompressed file, in hex.
    #[must_use]
    pub(super) fn digest_hex(&self) -> String {
        self.digest.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
    }

    /// The length of the decompressed file.
    #[must_use]
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What an entry is called when told to people.
    #[must_use]
    pub(super) const fn unit(&self) -> &'static str {
        match self.format {
            FileFormat::Csv | FileFormat::Dbn => "records",
            FileFormat::Auto | FileFormat::Ndjson => "lines",
        }
    }

    /// The entries, from the first.
    ///
    /// # Errors
    /// [`FileError`] where the file cannot be opened or its header cannot be used.
    pub(super) fn entries(&self) -> Result<Entries, FileError> {
        let path = self.args.file.clone();
        let failed = |why: String| FileError { path: path.clone(), why };
        let read = Arc::new(AtomicU64::new(0));
        let inner = decompressed(&path, &Arc::default()).map_err(|error| failed(error.to_string()))?;
        let reader = Counted { inner, read: Arc::clone(&read) };
        let decoded: Box<dyn Iterator<Item = Result<Decoded, String>> + Send> = match self.format {
            FileFormat::Auto | FileFormat::Ndjson => {
                Box::new(lines::Lines::new(BufReader::with_capacity(BUFFER_BYTES, reader)))
            }
            FileFormat::Csv => {
                Box::new(csv::Rows::new(reader, self.args.symbol, &self.args.ignore).map_err(failed)?)
            }
            FileFormat::Dbn => Box::new(dbn::Records::new(reader).map_err(failed)?),
        };
        let numbered = decoded.enumerate().map(move |(number, decoded)| {
            let failed = |why| FileError { path: path.clone(), why };
            let number = u32::try_from(number).ok().filter(|number| *number < ENTRIES_MAX);
            let number = number.ok_or_else(|| failed(format!("more than {ENTRIES_MAX} entries")))?;
            let bytes_read = read.load(Ordering::Relaxed);
            Ok(match decoded.map_err(failed)? {
                Ok(text) => Entry { number, text, refused: None, bytes_read },
                Err(Refused { text, why }) => Entry { number, text, refused: Some(why), bytes_read },
            })
        });
        Ok(Box::new(numbered))
    }
}

/// What the first bytes tell.
fn seen_in(start: &[u8]) -> Result<FileFormat, String> {
    let text = start.strip_prefix(lines::BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
    match text {
        [b'D', b'B', b'N', 1..=9, ..] => Ok(FileFormat::Dbn),
        [b'{', ..] => Ok(FileFormat::Ndjson),
        [b'[', ..] => Err("is one JSON array; files have one tick a line (NDJSON)".to_owned()),
        [] => Err("holds no ticks".to_owned()),
        [first, ..] if first.is_ascii_alphabetic() || *first == b'"' => Ok(FileFormat::Csv),
        _ => Err("is neither NDJSON, CSV with a header nor DBN; --format says which".to_owned()),
    }
}

/// Opens a file and undoes gzip or zstd, which its first bytes tell. `stored` counts the bytes as
/// they are on the disk.
fn decompressed(path: &Path, stored: &Arc<AtomicU64>) -> std::io::Result<Box<dyn BufRead + Send>> {
    let file = Counted { inner: File::open(path)?, read: Arc::clone(stored) };
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let start = file.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        let reader = flate2::bufread::MultiGzDecoder::new(file);
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, reader)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let reader = zstd::stream::read::Decoder::with_buffer(file)?;
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, reader)));
    }
    Ok(Box::new(file))
}

/// Counts what was read through it.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TICK: &str = r#"{"T":"t","S":"AAPL","i":1,"x":"Q","p":126.55,"s":1,"t":"2024-01-03T14:30:00Z"}"#;

    fn file(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> FileArgs {
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        FileArgs { file: path, format: FileFormat::Auto, symbol: None, ignore: Vec::new() }
    }

    fn entries(args: FileArgs) -> Vec<(u32, String, Option<String>)> {
        let file = TickFile::open(args, |_, _| ()).unwrap();
        let entries = file.entries().unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.number, String::from_utf8(entry.text).unwrap(), entry.refused)).collect()
    }

    #[test]
    fn a_file_is_the_same_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{TICK}\n\n{TICK}\nnonsense\n{TICK}");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let files = [
            file(&folder, "a.ndjson", text.as_bytes()),
            file(&folder, "a.gz", &gzip.finish().unwrap()),
            file(&folder, "a.zst", &zstd),
        ];
        for args in files {
            let (mut told, stored) = (Vec::new(), std::fs::metadata(&args.file).unwrap().len());
            let opened = TickFile::open(args.clone(), |done, total| told.push((done, total))).unwrap();
            assert_eq!(told.last(), Some(&(stored, stored)), "progress counts stored bytes");
            assert_eq!(opened.bytes(), text.len() as u64);
            let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            assert_eq!(opened.digest, digest);
            assert_eq!(opened.digest_hex().len(), 64);
            let entries = entries(args);
            let numbers: Vec<u32> = entries.iter().map(|entry| entry.0).collect();
            assert_eq!(numbers, [0, 1, 2, 3, 4]);
            assert!(entries.iter().all(|(number, text, refused)| match number {
                1 => text.is_empty() && refused.as_ref().unwrap().contains("empty"),
                3 => text == "nonsense" && refused.is_some(),
                _ => text == TICK && refused.is_none(),
            }));
        }
    }

    #[test]
    fn what_a_file_is_shows_in_its_first_bytes() {
        assert_eq!(seen_in(b"\xef\xbb\xbf{\"T\"").unwrap(), FileFormat::Ndjson);
        assert_eq!(seen_in(b"\n\n {").unwrap(), FileFormat::Ndjson);
        assert_eq!(seen_in(b"date,open\n").unwrap(), FileFormat::Csv);
        assert_eq!(seen_in(b"\"date\",open\n").unwrap(), FileFormat::Csv);
        assert_eq!(seen_in(b"DBN\x03\0").unwrap(), FileFormat::Dbn);
        assert_eq!(seen_in(b"DBN,open").unwrap(), FileFormat::Csv);
        for (start, why) in [(b"[{".as_slice(), "array"), (b" \n", "no ticks"), (b"\x7fELF", "neither")] {
            assert!(seen_in(start).unwrap_err().contains(why));
        }
    }

    #[test]
    fn a_missing_or_cut_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = FileArgs { file: folder.path().join("no.csv"), ..file(&folder, "x", TICK.as_bytes()) };
        assert!(TickFile::open(missing, |_, _| ()).unwrap_err().to_string().contains("no.csv"));
        let zstd = zstd::encode_all(TICK.repeat(9_999).as_bytes(), 1).unwrap();
        let cut = file(&folder, "cut.zst", &zstd[..zstd.len() - 5]);
        assert!(TickFile::open(cut, |_, _| ()).unwrap_err().to_string().contains("cut.zst"));
    }
}
