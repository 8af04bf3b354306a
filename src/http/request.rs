//! What handlers read from a request beside its body: the bearer token and arguments of the query.

use axum::http::{HeaderMap, header};
use liveqos_core::base::percent::decode_form;

/// The token of an `Authorization: Bearer` header (RFC 6750).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// An argument of a query as text; `None` where it is missing or is not UTF-8.
pub(crate) fn argument(query: &str, name: &str) -> Option<String> {
    String::from_utf8(decoded(query, name)?).ok()
}

/// An argument of a query, percent-decoded.
pub(crate) fn decoded(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut values = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = values.find(|(key, _)| *key == name)?;
    let mut out = Vec::new();
    decode_form(value.as_bytes(), &mut out);
    Some(out)
}
