//! What a request says besides its body: parameters and headers.

use axum::http::{HeaderMap, StatusCode, Uri, header};

use crate::http::inflate::Coding;
use crate::http::params::{IDEMPOTENCY_KEY, Params, header_text as text, named};
use crate::http::{ApiError, ApiResult};
use crate::ingest::{Ack, Options, RequestName};
use crate::wire::{Format, beginning};

/// Names a file of numbered lines.
pub const LINES_KEY: &str = "tapeline-lines-key";
/// The SHA-256 of the decompressed file, in hexadecimal digits.
pub const LINES_DIGEST: &str = "tapeline-lines-digest";
/// The number of the request's first line in the file, from 0.
pub const LINES_FIRST: &str = "tapeline-lines-first";

/// A request before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The parameters.
    pub(super) options: Options,
    /// How the body is written.
    pub(super) format: Format,
    /// How it is compressed.
    pub(super) coding: Coding,
    /// By what the request is known again.
    pub(super) name: RequestName,
    /// The body's bytes as sent, where the client says; else 0.
    pub(super) announced_bytes: usize,
}

impl Ask {
    /// Reads parameters and headers, on a node of so many regions.
    ///
    /// # Errors
    /// 400 or 415, naming the parameter or header.
    pub(super) fn read(uri: &Uri, headers: &HeaderMap, regions: usize) -> ApiResult<Self> {
        Ok(Self {
            options: options(uri.query(), regions)?,
            format: format(headers)?,
            coding: coding(headers)?,
            name: name(headers)?,
            announced_bytes: announced_bytes(headers),
        })
    }
}

fn options(query: Option<&str>, regions: usize) -> ApiResult<Options> {
    let params = Params::decode(query)?;
    params.only(&["atomic", "backfill", "validate", "ack"])?;
    let acks = [("region", Ack::Region), ("global", Ack::Global)];
    let ack = params.one_of("ack", &acks)?.unwrap_or_default();
    // Where there is one region, it is all of them.
    let ack = if regions > 1 { ack } else { Ack::Region };
    Ok(Options {
        atomic: params.switch("atomic")?,
        backfill: params.switch("backfill")?,
        validate: params.switch("validate")?,
        ack,
    })
}

fn format(headers: &HeaderMap) -> ApiResult<Format> {
    const OFFERED: &str = "application/json, application/x-ndjson or application/msgpack";
    let given = text(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" => Ok(Format::NdJson),
        "application/msgpack" | "application/x-msgpack" => Ok(Format::MsgPack),
        _ => Err(unsupported("Content-Type", given, OFFERED)),
    }
}

fn coding(headers: &HeaderMap) -> ApiResult<Coding> {
    let given = text(headers, header::CONTENT_ENCODING.as_str())?.unwrap_or_default();
    Coding::parse(given).ok_or_else(|| unsupported("Content-Encoding", given, "gzip or zstd"))
}

fn unsupported(name: &'static str, given: &str, offered: &str) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{name} must be {offered}"))
        .with("field", name)
        .with("value", &*beginning(given))
        .with("expected", offered)
}

fn name(headers: &HeaderMap) -> ApiResult<RequestName> {
    let key = text(headers, IDEMPOTENCY_KEY)?;
    let lines_key = text(headers, LINES_KEY)?;
    let digest = text(headers, LINES_DIGEST)?;
    let first = text(headers, LINES_FIRST)?;
    match (key, lines_key, digest, first) {
        (None, None, None, None) => Ok(RequestName::Body),
        (Some(key), None, None, None) => named(IDEMPOTENCY_KEY, key).map(RequestName::Key),
        (None, Some(key), Some(digest), Some(first)) => {
            let number = first.parse().ok().filter(|_| first.bytes().all(|byte| byte.is_ascii_digit()));
            Ok(RequestName::Lines {
                key: named(LINES_KEY, key)?,
                digest: sha256(digest)?,
                first: number.ok_or_else(|| {
                    ApiError::bad_field(LINES_FIRST, first, "a number from 0 to 4294967295")
                })?,
            })
        }
        (Some(_), ..) => Err(ApiError::bad_request(
            "a request is named by Idempotency-Key or by the Tapeline-Lines headers, not by both",
        )),
        _ => Err(ApiError::bad_request(
            "numbered lines need all of Tapeline-Lines-Key, Tapeline-Lines-Digest and Tapeline-Lines-First",
        )),
    }
}

fn sha256(text: &str) -> ApiResult<[u8; 32]> {
    let bad = || ApiError::bad_field(LINES_DIGEST, text, "a SHA-256 of 64 hexadecimal digits");
    if text.len() != 64 {
        return Err(bad());
    }
    let mut digest = [0; 32];
    for (slot, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |at: usize| pair.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let value = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        *slot = value.ok_or_else(bad)?;
    }
    Ok(digest)
}

fn announced_bytes(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or_default()
}
