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

    /// Bytes that decompressing holds, where `bytes_max` is the most that can come out.
    pub(super) const fn window_bytes(self, bytes_max: usize) -> usize {
        let window = match self {
            Self::Identity => 0,
            Self::Gzip => 64 * 1024,
            Self::Zstd => 1 << ZSTD_WINDOW_LOG_MAX,
        };
        if window < bytes_max { window } else { bytes_max }
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
    Identity(Counted<P>),
    Gzip(MultiGzDecoder<Counted<P>>),
    Zstd(ZstdDecoder<'static, Counted<P>>),
}

impl<P: Pour> Inflate<P> {
    pub(super) fn new(coding: Coding, bounds: Bounds, pour: P) -> Result<Self, InflateError<P::Error>> {
        let sink = Counted { pour, bounds, bytes: 0, allowed: 0, failed: None };
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
        // A few bytes of header expand to nothing, so that the ratio is not held against the first.
        let allowed = self.sent.saturating_add(64).saturating_mul(self.bounds.ratio_max);
        self.sink().allowed = allowed;
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

    fn sink(&mut self) -> &mut Counted<P> {
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

/// Counts what comes out, and remembers why it went no further.
struct Counted<P: Pour> {
    pour: P,
    bounds: Bounds,
    bytes: usize,
    allowed: usize,
    failed: Option<InflateError<P::Error>>,
}

impl<P: Pour> Counted<P> {
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

impl<P: Pour> Write for Counted<P> {
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
