//! Many encoded messages as one export request with one resource and one scope. Messages are copied, never decoded.
//!
//! The three requests have one shape (opentelemetry-proto, `collector/*/v1`): request field 1 is `Resource*`, whose
//! field 1 is the resource and field 2 `Scope*`, whose field 1 is the scope and whose repeated field 2 the messages.

use bytes::{BufMut as _, Bytes, BytesMut};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::resource::Resource;

/// The part that all requests of a node share: resource and scope, encoded.
#[derive(Clone, Debug)]
pub(crate) struct RequestTemplate {
    resource: Bytes,
    scope: Bytes,
}

impl RequestTemplate {
    /// The template of a node.
    #[must_use]
    pub(crate) fn new(resource: &Resource) -> Self {
        let scope = InstrumentationScope {
            name: SCOPE.to_owned(),
            version: resource.service_version.clone(),
            ..InstrumentationScope::default()
        };
        Self { resource: resource.encode().encode_to_vec().into(), scope: scope.encode_to_vec().into() }
    }

    /// The export request of `messages`, all of one signal.
    #[must_use]
    pub(crate) fn build(&self, messages: &[Bytes]) -> Bytes {
        let messages_len: usize = messages.iter().map(|message| field_len(message.len())).sum();
        let scope_len = field_len(self.scope.len()) + messages_len;
        let resource_len = field_len(self.resource.len()) + field_len(scope_len);
        let mut out = BytesMut::with_capacity(field_len(resource_len));
        open(&mut out, REQUEST, resource_len);
        field(&mut out, COMMON, &self.resource);
        open(&mut out, REPEATED, scope_len);
        field(&mut out, COMMON, &self.scope);
        for message in messages {
            field(&mut out, REPEATED, message);
        }
        out.freeze()
    }

    /// An upper bound of the bytes of a request beside its messages.
    #[must_use]
    pub(crate) fn overhead(&self) -> usize {
        self.resource.len() + self.scope.len() + 4 * FIELD_MAX
    }
}

/// The bytes that a message of `len` bytes takes in a request, with its field header.
#[must_use]
pub(crate) fn field_len(len: usize) -> usize {
    key_len(REPEATED) + encoded_len_varint(len as u64) + len
}

fn open(out: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn field(out: &mut BytesMut, tag: u32, bytes: &Bytes) {
    open(out, tag, bytes.len());
    out.put_slice(bytes);
}

/// The name of the instrumentation scope.
const SCOPE: &str = "liveqos";
/// Field number of `Resource*` in a request.
const REQUEST: u32 = 1;
/// Field number of the resource in `Resource*`, of the scope in `Scope*`.
const COMMON: u32 = 1;
/// Field number of `Scope*` in `Resource*`, of the messages in `Scope*`.
const REPEATED: u32 = 2;
/// Longest field header: a tag of one byte and a 10-byte varint.
const FIELD_MAX: usize = 11;

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::trace::v1::Span;
    use proptest::prelude::*;

    use super::*;

    fn node() -> Resource {
        Resource { service_version: "1".to_owned(), node: "n".to_owned(), ..Resource::default() }
    }

    #[test]
    fn a_request_equals_that_of_the_generated_types() {
        let log = |n: usize| LogRecord { event_name: "x".repeat(n), ..LogRecord::default() };
        let logs = vec![log(1), log(200), log(0)];
        let messages: Vec<Bytes> = logs.iter().map(|log| log.encode_to_vec().into()).collect();
        let expected = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(node().encode()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(InstrumentationScope {
                        name: "liveqos".to_owned(),
                        version: "1".to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    log_records: logs,
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        };
        assert_eq!(RequestTemplate::new(&node()).build(&messages), expected.encode_to_vec());
    }

    proptest! {
        #[test]
        fn any_messages_decode_in_order(names in prop::collection::vec("[a-z]{0,300}", 0..20)) {
            let spans = names.iter().map(|name| Span { name: name.clone(), ..Span::default() });
            let messages: Vec<Bytes> = spans.map(|span| span.encode_to_vec().into()).collect();
            let template = RequestTemplate::new(&node());
            let bytes = template.build(&messages);
            let inside: usize = messages.iter().map(|message| field_len(message.len())).sum();
            prop_assert!(bytes.len() <= template.overhead() + inside);
            let read = ExportTraceServiceRequest::decode(bytes).expect("a request");
            let read: Vec<_> = read.resource_spans[0].scope_spans[0].spans.iter().map(|s| s.name.clone()).collect();
            prop_assert_eq!(read, names);
        }
    }
}
