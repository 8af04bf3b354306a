//! Percent-encoding: the one decoder of the workspace, in the lenient form of browsers' queries and in a strict one.

use super::hex;

/// The byte at the head of `encoded` and what follows it, by `application/x-www-form-urlencoded`: `%XX` is decoded, `+`
/// is a blank, an escape that is not two digits stays as it is. `None` at the end.
#[inline]
#[must_use]
pub const fn next(encoded: &[u8]) -> Option<(u8, &[u8])> {
    Some(match encoded {
        [b'+', rest @ ..] => (b' ', rest),
        [b'%', high, low, rest @ ..] => match hex::byte(*high, *low) {
            Some(byte) => (byte, rest),
            None => (b'%', encoded.split_at(1).1),
        },
        [byte, rest @ ..] => (*byte, rest),
        [] => return None,
    })
}

/// Appends `encoded` to `out`, decoded as by [`next`].
pub fn decode_form(encoded: &[u8], out: &mut Vec<u8>) {
    let mut rest = encoded;
    while let Some((byte, after)) = next(rest) {
        out.push(byte);
        rest = after;
    }
}

/// `encoded` as text, decoded as by [`next`]; bytes that are not UTF-8 become U+FFFD.
#[must_use]
pub fn decode_form_text(encoded: &str) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    decode_form(encoded.as_bytes(), &mut bytes);
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// `encoded` as text by RFC 3986 section 2.1, where `+` stands for itself; `None` where an escape is not two digits or
/// the bytes are not UTF-8.
#[must_use]
pub fn decode_strict(encoded: &str) -> Option<String> {
    let mut bytes = encoded.bytes();
    let mut out = Vec::with_capacity(encoded.len());
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' { hex::byte(bytes.next()?, bytes.next()?)? } else { byte });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_escapes_stay_or_are_refused() {
        for (text, form, strict) in [
            ("a%2fb%zz%4", "a/b%zz%4", None),
            ("%41+%4%zz%", "A %4%zz%", None),
            ("%ff+x", "\u{fffd} x", None),
            ("%e8%aF%be+x", "课 x", Some("课+x")),
        ] {
            assert_eq!((decode_form_text(text).as_str(), decode_strict(text).as_deref()), (form, strict), "{text}");
        }
    }

    proptest! {
        #[test]
        fn escapes_read_back(text in "\\PC{0,40}") {
            let escaped = text.bytes().fold(String::new(), |escaped, byte| escaped + &format!("%{byte:02X}"));
            prop_assert_eq!(&decode_form_text(&escaped), &text);
            prop_assert_eq!(decode_strict(&escaped), Some(text));
        }
    }
}
