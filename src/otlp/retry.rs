//! What an answer means: delivered, retry, or give up, by the tables of OTLP 1.11 (OTLP/gRPC and OTLP/HTTP response,
//! failures and throttling). What was accepted in part or refused for good is never sent again.

use std::time::Duration;

use prost::Message as _;
use tonic::Code;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The collector accepted it: gRPC OK or HTTP 200 with a body that decodes.
    Accepted(Partial),
    /// A gRPC status other than OK.
    Rpc {
        /// Its code.
        code: Code,
        /// Its message.
        message: String,
        /// The delay of `google.rpc.RetryInfo`, where the status has one; it may be zero.
        retry_info: Option<Duration>,
    },
    /// An HTTP status other than 200.
    Http {
        /// Its code.
        status: u16,
        /// The delay of `Retry-After`, where present and valid.
        retry_after: Option<Duration>,
    },
    /// A success whose body does not decode or is too large.
    Unreadable(String),
    /// No answer: not connected, connection lost, or not in time.
    Silence(String),
}

/// `partial_success` of an export response; both fields are empty where everything was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// Spans, log records or data points rejected.
    pub rejected: u64,
    /// Why, or a warning where nothing was rejected.
    pub message: String,
}

/// What to do after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted, at least in part.
    Delivered(Partial),
    /// Send the same again.
    Retry {
        /// After this delay; `None` leaves it to the back-off.
        after: Option<Duration>,
        /// What was wrong.
        reason: String,
    },
    /// Never send it again, and why.
    Final(String),
}

/// The meaning of `answer`.
#[must_use]
pub fn classify(answer: Answer) -> Verdict {
    match answer {
        Answer::Accepted(partial) => Verdict::Delivered(partial),
        Answer::Silence(reason) => Verdict::Retry { after: None, reason },
        Answer::Unreadable(reason) => Verdict::Final(format!("success with an unreadable body: {reason}")),
        Answer::Http { status, retry_after } => {
            let reason = format!("http status {status}");
            match status {
                429 | 502 | 503 | 504 => Verdict::Retry { after: retry_after.and_then(granted), reason },
                _ => Verdict::Final(reason),
            }
        }
        Answer::Rpc { code, message, retry_info } => {
            let reason = format!("grpc status {code:?}: {message}");
            let again = match code {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss => true,
                Code::ResourceExhausted => retry_info.is_some(),
                _ => false,
            };
            if again { Verdict::Retry { after: retry_info.and_then(granted), reason } } else { Verdict::Final(reason) }
        }
    }
}

/// The delay of `google.rpc.RetryInfo` in `grpc-status-details-bin`, where there is one; zero where it has no delay.
#[must_use]
pub fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url.rsplit('/').next() == Some("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// Decodes the export response of any signal: the three have one shape (field 1 `partial_success`: 1 rejected, 2
/// message).
///
/// # Errors
/// When the body is not protobuf of that shape.
pub fn read_response(body: &[u8]) -> Result<Partial, prost::DecodeError> {
    let partial = ExportResponse::decode(body)?.partial_success.unwrap_or_default();
    Ok(Partial { rejected: u64::try_from(partial.rejected).unwrap_or(0), message: partial.error_message })
}

/// The delay a server asked for, bounded. A zero delay is left to the back-off, so that it does not become a tight
/// loop.
fn granted(delay: Duration) -> Option<Duration> {
    (!delay.is_zero()).then(|| delay.min(MAX_SERVER_DELAY))
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<ExportPartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportPartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Longest delay granted to a server: a wrong header must not stop the export for a day.
pub const MAX_SERVER_DELAY: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rpc(code: Code, retry_info: Option<Duration>) -> Verdict {
        classify(Answer::Rpc { code, message: String::new(), retry_info })
    }

    /// The delay of a retry, zero where it is left to the back-off; `None` where there is no retry.
    fn after(verdict: &Verdict) -> Option<Duration> {
        match verdict {
            Verdict::Retry { after, .. } => Some(after.unwrap_or_default()),
            _ => None,
        }
    }

    /// `google.rpc.Status` with a `RetryInfo` of `seconds` and `nanos`.
    fn details(seconds: i64, nanos: i32) -> Vec<u8> {
        let info = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) };
        let other = Any { type_url: "type.googleapis.com/google.rpc.Help".to_owned(), value: vec![255] };
        let info = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info.encode_to_vec() };
        RpcStatus { details: vec![other, info] }.encode_to_vec()
    }

    #[test]
    fn grpc_codes_follow_the_specification() {
        let again = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unavailable,
            Code::DataLoss,
        ];
        for number in 1..=16 {
            let code = Code::from_i32(number);
            assert_eq!(after(&rpc(code, None)).is_some(), again.contains(&code), "{code:?}");
        }
        let delay = Some(Duration::from_secs(2));
        assert_eq!(after(&rpc(Code::ResourceExhausted, delay)), delay);
        assert_eq!(after(&rpc(Code::ResourceExhausted, Some(Duration::ZERO))), Some(Duration::ZERO));
        assert_eq!(after(&rpc(Code::Unavailable, delay)), delay);
        assert_eq!(after(&rpc(Code::Internal, delay)), None, "a hint does not make an error transient");
    }

    #[test]
    fn http_codes_follow_the_specification() {
        for status in 100..600 {
            let verdict = classify(Answer::Http { status, retry_after: None });
            let again = [429, 502, 503, 504].contains(&status);
            assert_eq!(after(&verdict).is_some(), again, "{status}");
        }
        let at_once = Answer::Http { status: 503, retry_after: Some(Duration::ZERO) };
        let expected = Verdict::Retry { after: None, reason: "http status 503".to_owned() };
        assert_eq!(classify(at_once), expected, "a zero delay is left to the back-off");
        let day = Answer::Http { status: 503, retry_after: Some(Duration::from_hours(24)) };
        assert_eq!(after(&classify(day)), Some(MAX_SERVER_DELAY));
    }

    #[test]
    fn other_answers_are_classified() {
        let partial = Partial { rejected: 3, message: "too old".to_owned() };
        assert_eq!(classify(Answer::Accepted(partial.clone())), Verdict::Delivered(partial));
        assert_eq!(after(&classify(Answer::Silence("reset".to_owned()))), Some(Duration::ZERO));
        assert!(matches!(classify(Answer::Unreadable("html".to_owned())), Verdict::Final(_)));
    }

    #[test]
    fn retry_info_is_found_among_details() {
        assert_eq!(retry_info(&details(1, 500_000_000)), Some(Duration::from_millis(1_500)));
        assert_eq!(retry_info(&details(-1, -1)), Some(Duration::ZERO));
        assert_eq!(retry_info(&RpcStatus { details: vec![] }.encode_to_vec()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(retry_info(&bytes).is_none() || RpcStatus::decode(bytes.as_slice()).is_ok());
            prop_assert!(read_response(&bytes).is_err() || ExportResponse::decode(bytes.as_slice()).is_ok());
        }
    }
}
