//! What codes mean: `/v2/stocks/meta/…`.

use axum::extract::{Path, RawQuery};
use axum::response::Response;

use crate::http::auth::Subscriber;
use crate::http::params::Params;
use crate::http::{ApiError, ApiResult};
use crate::market::{SipTape, meta};
use crate::wire::json;

/// `GET /v2/stocks/meta/exchanges`.
pub(super) async fn exchanges(_: Subscriber, RawQuery(query): RawQuery) -> ApiResult<Response> {
    Params::decode(query.as_deref())?.only(&[])?;
    Ok(super::json_answer(table(meta::EXCHANGES)))
}

/// `GET /v2/stocks/meta/conditions/{trade|quote}?tape=A|B|C`.
pub(super) async fn conditions(
    _: Subscriber,
    Path(ticktype): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let params = Params::decode(query.as_deref())?;
    params.only(&["tape"])?;
    let codes = match ticktype.as_str() {
        "trade" => meta::trade_conditions,
        "quote" => meta::quote_conditions,
        _ => return Err(ApiError::bad_field("ticktype", &ticktype, "trade or quote")),
    };
    params.required("tape", "A, B or C")?;
    let tapes = [("A", SipTape::A), ("B", SipTape::B), ("C", SipTape::C)];
    let tape = params.one_of("tape", &tapes)?.unwrap_or(SipTape::A);
    Ok(super::json_answer(table(codes(tape).unwrap_or_default())))
}

/// `{"A":"…","B":"…"}`.
fn table(codes: &[meta::Code]) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (at, (code, name)) in codes.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::write_text(char::from(*code).encode_utf8(&mut [0; 4]), &mut out);
        out.push(b':');
        json::write_text(name, &mut out);
    }
    out.push(b'}');
    out
}
