//! Trace and span ids, hashed from names, so that every node, a restarted daemon and a person with a shell find the
//! same trace. An id is never all zero, which W3C Trace Context (level 1, section 3.2.2) forbids.
//!
//! The trace id of a class without the platform's `traceparent`, in one line of shell:
//!
//! ```sh
//! printf 'liveqos/1%s' "$SESSION_ID" | sha256sum | cut -c1-32
//! ```

use liveqos_core::model::Session;
use liveqos_core::trace::SpanRef;
use ring::digest::{Context, SHA256};

/// A trace id; never all zero.
pub type TraceId = [u8; 16];

/// A span id; never all zero.
pub type SpanId = [u8; 8];

/// The trace id of `session`: that of the platform's `traceparent` where there is one, else [`derived_trace_id`].
#[must_use]
pub fn trace_id(session: &Session) -> TraceId {
    session.trace_parent.map_or_else(|| derived_trace_id(session.id.as_str()), |parent| parent.trace_id)
}

/// The first 16 bytes of SHA-256 over `liveqos/1` and the session id.
///
/// ```
/// use liveqos::platform::trace_id::derived_trace_id;
/// use liveqos_core::base::hex;
/// assert_eq!(hex::encode(&derived_trace_id("class-101")), "9d5b219967131ccb6ff6e0346ac77d0a");
/// ```
#[must_use]
pub fn derived_trace_id(session_id: &str) -> TraceId {
    hashed(&[b"liveqos/1", session_id.as_bytes()])
}

/// The first 8 bytes of SHA-256 over the trace id, the node, the span's name and its ordinal (big-endian).
#[must_use]
pub fn span_id(trace: &TraceId, node: &str, span: &SpanRef) -> SpanId {
    let ordinal = span.ordinal.to_be_bytes();
    hashed(&[trace, node.as_bytes(), span.name.as_str().as_bytes(), &ordinal])
}

/// The first `N` bytes of the digest of `parts`, hashed again while they are all zero.
fn hashed<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = context.finish();
    loop {
        let mut id = [0; N];
        for (to, from) in id.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        if id != [0; N] {
            return id;
        }
        digest = ring::digest::digest(&SHA256, digest.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use liveqos_core::base::hex;
    use liveqos_core::trace::SpanName;

    use super::*;

    #[test]
    fn ids_are_those_of_sha256sum() {
        assert_eq!(hex::encode(&derived_trace_id("class-101")), "9d5b219967131ccb6ff6e0346ac77d0a");
        assert_eq!(hex::encode(&derived_trace_id("课堂-101")), "763db425bd46de6e88947e7f30fd2f0a");
        let span = SpanRef { name: SpanName::TeachingConduct, ordinal: 1_700_000_000_000_000_000 };
        let id = span_id(&derived_trace_id("class-101"), "edge-7", &span);
        assert_eq!(hex::encode(&id), "5094483acfceaf00");
    }

    #[test]
    fn every_part_distinguishes_spans() {
        let trace = derived_trace_id("s");
        let of = |node: &str, name, ordinal| span_id(&trace, node, &SpanRef { name, ordinal });
        let base = of("n", SpanName::TeachingConduct, 1);
        assert_ne!(base, of("m", SpanName::TeachingConduct, 1));
        assert_ne!(base, of("n", SpanName::QosIncident, 1));
        assert_ne!(base, of("n", SpanName::TeachingConduct, 2));
        assert_eq!(base, of("n", SpanName::TeachingConduct, 1));
    }
}
