//! Compressed bodies, decompressed as they arrive and within bounds.
//!
//! Bytes as sent, bytes after decompression, and the ratio of the two each have a limit.
//! The decompressed bytes go on in pieces; no more than one piece and the decoder's window
//! (gzip 32 KiB, zstd at most 8 MiB) is held.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use zstd::stream::raw;
use zstd::stream::write::Decoder as ZstdDecoder;
use zstd::zstd_safe::DParameter;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// The largest window that a zstd body may ask for: 2 to this power, 8 MiB (`zstd -19`).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

impl Coding {
    /// Reads a `Content-Encoding`; `None` where it is none of ours.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        if text.is_empty() || is("identity") {
            Some(Self::Identity)
        } else if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    /// Bytes that decompressing may hold: its window, but no more than can come out at all.
    /// `sent` is what the client announces, 0 where it does not.
    pub(super) const fn window_bytes(self, bounds: Bounds, sent: usize) -> usize {
        let window = match self {
            Self::Identity => 0,
            Self::Gzip => 64 * 1024,
            Self::Zstd => 1 << ZSTD_WINDOW_LOG_MAX,
        };
        let out_max = match sent {
            0 => bounds.bytes_max,
            _ => bounds.allowed(sent),
        };
        if window < out_max { window } else { out_max }
    }
}

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes as sent.
    pub(super) sent_max: usize,
    /// Bytes after decompression.
    pub(super) bytes_max: usize,
    /// How many times larger than sent.
    pub(super) ratio_max: usize,
}

impl Bounds {
    /// The most bytes that may come out of so many. A few bytes of header expand to nothing, so
    /// that the ratio is not held against the first.
    const fn allowed(self, sent: usize) -> usize {
        sent.saturating_add(64).saturating_mul(self.ratio_max)
    }
}

/// Why a body cannot be decompressed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum InflateError<E> {
    #[error("the body is larger than {0} bytes")]
    Sent(usize),
    #[error("the body is larger than {0} bytes after decompression")]
    Bytes(usize),
    #[error("the body grows to more than {0} times its size as sent")]
    Ratio(usize),
    #[error("the body is not well compressed: {0}")]
    Broken(String),
    #[error("{0}")]
    Sink(E),
}

/// Where decompressed bytes go.
pub(super) trait Pour {
    type Error;
    fn pour(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// A body on its way through.
pub(super) struct Inflate<P: Pour> {
    decoder: Decoder<P>,
    bounds: Bounds,
    sent: usize,
}

enum Decoder<P: Pour> {
    Identity(Measured<P>),
    Gzip(MultiGzDecoder<Measured<P>>),
    Zstd(ZstdDecoder<'static, Measured<P>>),
}

impl<P: Pour> Inflate<P> {
    pub(super) fn new(coding: Coding, bounds: Bounds, pour: P) -> Result<Self, InflateError<P::Error>> {
        let sink = Measured { pour, bounds, bytes: 0, allowed: 0, failed: None };
        let broken = |error: io::Error| InflateError::Broken(error.to_string());
        let decoder = match coding {
            Coding::Identity => Decoder::Identity(sink),
            Coding::Gzip => Decoder::Gzip(MultiGzDecoder::new(sink)),
            Coding::Zstd => {
                let mut decoder = raw::Decoder::new().map_err(broken)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(broken)?;
                Decoder::Zstd(ZstdDecoder::with_decoder(sink, decoder))
            }
        };
        Ok(Self { decoder, bounds, sent: 0 })
    }

    /// Takes the next bytes as sent.
    pub(super) fn push(&mut self, sent: &[u8]) -> Result<(), InflateError<P::Error>> {
        self.sent += sent.len();
        if self.sent > self.bounds.sent_max {
            return Err(InflateError::Sent(self.bounds.sent_max));
        }
        self.sink().allowed = self.bounds.allowed(self.sent);
        let written = match &mut self.decoder {
            Decoder::Identity(sink) => sink.write_all(sent),
            Decoder::Gzip(decoder) => decoder.write_all(sent),
            Decoder::Zstd(decoder) => decoder.write_all(sent).and_then(|()| decoder.flush()),
        };
        self.told(written)
    }

    /// Ends the body and gives back where it went.
    pub(super) fn finish(mut self) -> Result<P, InflateError<P::Error>> {
        let ended = match &mut self.decoder {
            Decoder::Identity(_) => Ok(()),
            Decoder::Gzip(decoder) => decoder.try_finish(),
            Decoder::Zstd(decoder) => decoder.do_finish(),
        };
        self.told(ended)?;
        let broken = |error: io::Error| InflateError::Broken(error.to_string());
        Ok(match self.decoder {
            Decoder::Identity(sink) => sink,
            Decoder::Gzip(decoder) => decoder.finish().map_err(broken)?,
            Decoder::Zstd(decoder) => decoder.into_inner(),
        }
        .pour)
    }

    fn sink(&mut self) -> &mut Measured<P> {
        match &mut self.decoder {
            Decoder::Identity(sink) => sink,
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }

    /// A decoder's failure, or that of the sink behind it, which is the cause.
    fn told(&mut self, result: io::Result<()>) -> Result<(), InflateError<P::Error>> {
        match (self.sink().failed.take(), result) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(InflateError::Broken(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Measures what comes out, and remembers why it went no further.
struct Measured<P: Pour> {
    pour: P,
    bounds: Bounds,
    bytes: usize,
    allowed: usize,
    failed: Option<InflateError<P::Error>>,
}

impl<P: Pour> Measured<P> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), InflateError<P::Error>> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > self.bounds.bytes_max {
            return Err(InflateError::Bytes(self.bounds.bytes_max));
        }
        if self.bytes > self.allowed {
            return Err(InflateError::Ratio(self.bounds.ratio_max));
        }
        self.pour.pour(bytes).map_err(InflateError::Sink)
    }
}

impl<P: Pour> Write for Measured<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_none()
            && let Err(error) = self.take(bytes)
        {
            self.failed = Some(error);
        }
        match self.failed {
            Some(_) => Err(io::Error::other("the bytes are not taken")),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { sent_max: 10_000, bytes_max: 100_000, ratio_max: 50 };

    impl Pour for Vec<u8> {
        type Error = &'static str;

        fn pour(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
            if bytes.contains(&b'!') {
                return Err("an exclamation mark");
            }
            self.extend_from_slice(bytes);
            Ok(())
        }
    }

    fn sent(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Identity => bytes.to_vec(),
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        }
    }

    fn inflate(coding: Coding, bounds: Bounds, sent: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let through = || {
            let mut inflate = Inflate::new(coding, bounds, Vec::new())?;
            sent.chunks(piece).try_for_each(|piece| inflate.push(piece))?;
            inflate.finish()
        };
        through().map_err(|error: InflateError<_>| error.to_string())
    }

    const ALL: [Coding; 3] = [Coding::Identity, Coding::Gzip, Coding::Zstd];
    const COMPRESSED: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

    #[test]
    fn names_of_codings() {
        let cases = [
            ("", Some(Coding::Identity)),
            ("identity", Some(Coding::Identity)),
            ("GZip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            (" zstd ", Some(Coding::Zstd)),
            ("br", None),
            ("gzip, zstd", None),
        ];
        for (text, coding) in cases {
            assert_eq!(Coding::parse(text), coding, "{text}");
        }
    }

    #[test]
    fn several_members_are_one_body() {
        for coding in COMPRESSED {
            let both = [sent(coding, b"one "), sent(coding, b"two")].concat();
            assert_eq!(inflate(coding, BOUNDS, &both, 3).unwrap(), b"one two");
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_an_error() {
        for coding in COMPRESSED {
            let whole = sent(coding, &b"some text that is long enough to be compressed".repeat(20));
            for end in 1..whole.len() {
                let error = inflate(coding, BOUNDS, &whole[..end], 1000).unwrap_err();
                assert!(error.starts_with("the body is not well compressed"), "{coding:?} {end}: {error}");
            }
            assert!(inflate(coding, BOUNDS, b"plain text", 100).is_err());
        }
    }

    #[test]
    fn a_bomb_ends_early() {
        let zeros = vec![b'0'; 10_000_000];
        for coding in COMPRESSED {
            let bomb = sent(coding, &zeros);
            let wide = Bounds { sent_max: 1_000_000, ..BOUNDS };
            let bytes = inflate(coding, Bounds { ratio_max: 1_000_000, ..wide }, &bomb, 16_384).unwrap_err();
            assert_eq!(bytes, "the body is larger than 100000 bytes after decompression");
            let ratio = inflate(coding, Bounds { bytes_max: usize::MAX, ..wide }, &bomb, 16_384).unwrap_err();
            assert_eq!(ratio, "the body grows to more than 50 times its size as sent");
        }
        let sent_max = inflate(Coding::Identity, BOUNDS, &zeros, 16_384).unwrap_err();
        assert_eq!(sent_max, "the body is larger than 10000 bytes");
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(b"text").unwrap();
        let error = inflate(Coding::Zstd, BOUNDS, &encoder.finish().unwrap(), 100).unwrap_err();
        assert!(error.starts_with("the body is not well compressed"), "{error}");
    }

    #[test]
    fn what_decompressing_holds() {
        assert_eq!(Coding::Identity.window_bytes(BOUNDS, 0), 0);
        assert_eq!(Coding::Gzip.window_bytes(BOUNDS, 0), 65_536);
        assert_eq!(Coding::Zstd.window_bytes(BOUNDS, 0), 100_000);
        assert_eq!(Coding::Zstd.window_bytes(BOUNDS, 36), 5_000);
        let wide = Bounds { bytes_max: usize::MAX, ..BOUNDS };
        assert_eq!(Coding::Zstd.window_bytes(wide, 0), 8 * 1024 * 1024);
    }

    #[test]
    fn the_sinks_own_error_comes_through() {
        for coding in ALL {
            assert_eq!(
                inflate(coding, BOUNDS, &sent(coding, b"stop!"), 2).unwrap_err(),
                "an exclamation mark"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_sent_comes_out(bytes in proptest::collection::vec(b'a'..=b'z', 0..5_000), piece in 1_usize..3_000) {
            for coding in ALL {
                prop_assert_eq!(&inflate(coding, BOUNDS, &sent(coding, &bytes), piece), &Ok(bytes.clone()));
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for coding in COMPRESSED {
                let _ = inflate(coding, BOUNDS, &bytes, 7);
                let _ = inflate(coding, BOUNDS, &[&sent(coding, b"x")[..4], &bytes].concat(), 7);
            }
        }
    }
}
