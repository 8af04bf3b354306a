//! Removes the header of a syslog datagram, as nginx (`access_log syslog:`), rsyslog and journald send it: RFC 3164 and
//! RFC 5424. Nothing of the header is used, since the line has its own time.

/// The message of a datagram: what follows `<134>Nov 23 15:04:05 host nginx: ` (RFC 3164, with or without the host) or
/// `<134>1 2026-11-23T15:04:05Z host nginx 77 - - ` (RFC 5424). `None` when it does not begin with a priority.
#[must_use]
pub fn message(datagram: &[u8]) -> Option<&[u8]> {
    let (priority, rest) = split_once(datagram.strip_prefix(b"<")?, b'>')?;
    let is_priority = (1..=3).contains(&priority.len()) && priority.iter().all(u8::is_ascii_digit);
    let rest = is_priority.then_some(rest)?;
    let message = match rest.strip_prefix(b"1 ") {
        Some(rest) => of_5424(rest)?,
        None => of_3164(rest),
    };
    Some(message.strip_suffix(b"\n").unwrap_or(message).trim_ascii_start())
}

/// Skips time, host, application, process and message id, then the structured data (RFC 5424 section 6).
fn of_5424(rest: &[u8]) -> Option<&[u8]> {
    let mut rest = rest;
    for _ in 0..FIELDS_OF_5424 {
        rest = split_once(rest, b' ')?.1;
    }
    let mut message = after_structured(rest)?;
    message = message.strip_prefix(b" ").unwrap_or(message);
    Some(message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message))
}

/// Skips `-`, or elements in brackets whose quoted values may contain escaped quotes and brackets.
fn after_structured(rest: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = rest.strip_prefix(b"-") {
        return Some(rest);
    }
    let mut rest = rest;
    while rest.first() == Some(&b'[') {
        let (mut quoted, mut escaped, mut end) = (false, false, None);
        for (index, byte) in rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b']' if !quoted => {
                    end = Some(index + 1);
                    break;
                }
                _ => {}
            }
        }
        rest = &rest[end?..];
    }
    Some(rest)
}

/// Skips `Mmm dd hh:mm:ss `, then `host tag: ` or `tag: ` (nginx with `nohostname`). Without such a header all of it is
/// the message (RFC 3164 section 4.3.3).
fn of_3164(rest: &[u8]) -> &[u8] {
    let is_stamp = rest.len() > STAMP && rest[3] == b' ' && rest[6] == b' ' && rest[9] == b':' && rest[12] == b':';
    if !is_stamp || rest[STAMP] != b' ' {
        return rest;
    }
    let rest = &rest[STAMP + 1..];
    // The tag is the first word that ends with a colon; at most one word, the host, precedes it.
    let Some((word, after)) = split_once(rest, b' ') else {
        return rest;
    };
    if word.ends_with(b":") {
        return after;
    }
    match split_once(after, b' ') {
        Some((tag, after)) if tag.ends_with(b":") => after,
        _ => rest,
    }
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = text.iter().position(|byte| *byte == at)?;
    Some((&text[..index], &text[index + 1..]))
}

/// Length of `Mmm dd hh:mm:ss`.
const STAMP: usize = 15;
/// Fields between the version and the structured data.
const FIELDS_OF_5424: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_message_follows_each_header() {
        for datagram in [
            "<190>Nov 23 15:04:05 edge-7 nginx: {\"t\":1}",
            "<190>Nov  3 15:04:05 edge-7 nginx: {\"t\":1}\n",
            "<190>Nov 23 15:04:05 nginx: {\"t\":1}",
            "<190>Nov 23 15:04:05 edge-7 nginx[77]: {\"t\":1}",
            "<190>1 2026-11-23T15:04:05.003Z edge-7 nginx 77 ID47 - {\"t\":1}",
            "<190>1 - - - - - - {\"t\":1}",
            "<190>1 - - - - - [a@1 b=\"x\\\"] y\"][c@2] \u{feff}{\"t\":1}",
            "<0>{\"t\":1}",
        ] {
            let read = message(datagram.as_bytes()).map(String::from_utf8_lossy);
            assert_eq!(read.as_deref(), Some("{\"t\":1}"), "{datagram}");
        }
        let plain = message(b"<190>Nov 23 15:04:05 nginx: 10.0.0.1 - - [x] \"GET / HTTP/1.1\"").expect("a message");
        assert_eq!(plain, b"10.0.0.1 - - [x] \"GET / HTTP/1.1\"");
    }

    #[test]
    fn datagrams_without_priority_are_refused() {
        for datagram in ["", "<", "<>x", "<1234>x", "<x>y", "{\"t\":1}", "<190>1 - - - - - [open", "<190>1 - -"] {
            assert_eq!(message(datagram.as_bytes()), None, "{datagram}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_the_message_is_a_part(bytes in proptest::collection::vec(any::<u8>(), 0..100), head in "(<[0-9]{1,4}>)?(1 )?(Nov 23 15:04:05 )?") {
            let datagram = [head.as_bytes(), &bytes].concat();
            if let Some(message) = message(&datagram) {
                prop_assert!(datagram.windows(message.len().max(1)).any(|part| part == message) || message.is_empty());
            }
        }

        #[test]
        fn any_line_is_found(line in "\\{[ -~]{0,60}", host in "[a-z0-9.-]{1,20} |") {
            let datagram = format!("<190>Nov 23 15:04:05 {host}nginx: {line}");
            prop_assert_eq!(message(datagram.as_bytes()).map(String::from_utf8_lossy), Some(line.as_str().into()));
        }
    }
}
