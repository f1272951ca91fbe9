//! Answers that the protocol layer makes by itself, in the one envelope.
//!
//! What is no HTTP/1.1, or has headers beyond the protocol layer's own limits, reaches no
//! router: hyper answers it with a status and nothing else, and closes. Clients that read every
//! error as JSON fail on that. Its answer is known by what it lacks: every answer of ours has a
//! request id.

use axum::http::StatusCode;
use bytes::Bytes;

use super::error::ApiError;
use super::layers::new_request_id;

const BEGIN: &[u8] = b"HTTP/1.1 4";
const END: &[u8] = b"\r\n\r\n";

/// Whether these bytes, which go out at once, are such an answer.
pub(super) fn is_bare(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGIN)
        && bytes.ends_with(END)
        && memchr::memmem::find(bytes, b"\r\ncontent-length: 0\r\n").is_some()
        && memchr::memmem::find(bytes, b"\r\nx-request-id: ").is_none()
}

/// The same answer with an envelope and a request id; `None` where it is no such answer.
pub(super) fn enveloped(bytes: &[u8]) -> Option<Bytes> {
    if !is_bare(bytes) {
        return None;
    }
    let status = StatusCode::from_bytes(bytes.get(9..12)?).ok()?;
    let error = match status {
        StatusCode::URI_TOO_LONG => ApiError::new(status, "the URI is too long").with("reason", "uri_bytes"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ApiError::new(status, "the headers are too large").with("reason", "header_bytes")
        }
        _ => ApiError::new(status, "the request is no HTTP that this server reads").with("reason", "no_http"),
    };
    let body = error.body();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         x-request-id: {}\r\nconnection: close\r\n\r\n",
        body.len(),
        new_request_id(),
    );
    Some([head, body].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_without_body_and_id_gets_an_envelope() {
        let bare = b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let made = enveloped(bare).unwrap();
        let text = std::str::from_utf8(&made).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 414 URI Too Long\r\n") && !is_bare(text.as_bytes()), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["code"], &body["reason"]), (&41_400_000.into(), &"uri_bytes".into()));
        let text = std::str::from_utf8(bare).unwrap();
        for other in [
            text.replace("414 URI Too Long", "200 OK"),
            text.replace("date: x", "x-request-id: 1"),
            text.replace("content-length: 0", "content-length: 2"),
            text.replace("\r\n\r\n", "\r\n\r\n{}"),
            text.replace("\r\n\r\n", "\r\n"),
        ] {
            assert_eq!(enveloped(other.as_bytes()), None, "{other}");
        }
    }
}
