//! Tokens with which a player may report for one class until they expire: `<unix seconds>.<hex HMAC-SHA-256>` over
//! class and expiry (RFC 2104). Decides whether a token is valid, in constant time; a refusal does not tell which byte
//! is wrong.

use std::fmt;

use liveqos_core::base::hex;
use liveqos_core::model::Timestamp;
use ring::hmac;

/// Least length of a key in bytes.
pub(super) const MIN_KEY: usize = 32;

/// The key that signs tokens.
#[derive(Clone)]
pub struct Key(hmac::Key);

/// Why a token or a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has another form.
    #[error("the token is missing or not of the form <unix seconds>.<64 hex digits>")]
    Form,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is not signed with this node's key for this class.
    #[error("the token is not signed for this class")]
    Signature,
    /// The key is shorter than [`MIN_KEY`].
    #[error("the key has {0} bytes; at least {MIN_KEY} are needed")]
    ShortKey(usize),
}

impl Key {
    /// The key with these bytes.
    ///
    /// # Errors
    /// [`TokenError::ShortKey`].
    pub fn new(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.len() < MIN_KEY {
            return Err(TokenError::ShortKey(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// A token for `session_id` that expires at `expiry`, in whole seconds.
    #[must_use]
    pub fn sign(&self, session_id: &str, expiry: Timestamp) -> String {
        let seconds = expiry.millis() / 1_000;
        let tag = hmac::sign(&self.0, signed(session_id, seconds).as_bytes());
        format!("{seconds}.{}", hex::encode(tag.as_ref()))
    }

    /// Checks that the bearer of `token` may report for `session_id` at `now`.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check(&self, token: &str, session_id: &str, now: Timestamp) -> Result<(), TokenError> {
        let (seconds, tag) = token.split_once('.').ok_or(TokenError::Form)?;
        let seconds: u64 = seconds.parse().map_err(|_| TokenError::Form)?;
        let tag = hex::decode_array::<32>(tag.as_bytes()).ok_or(TokenError::Form)?;
        hmac::verify(&self.0, signed(session_id, seconds).as_bytes(), &tag).map_err(|_| TokenError::Signature)?;
        if Timestamp::from_secs(seconds) < now { Err(TokenError::Expired) } else { Ok(()) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

fn signed(session_id: &str, seconds: u64) -> String {
    format!("{seconds}\n{session_id}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_is_valid_for_its_class_and_time_only() {
        let key = Key::new(&[7; 32]).expect("long enough");
        let now = Timestamp::from_secs(1_000);
        let token = key.sign("s1", now + Duration::from_secs(10));
        assert_eq!(key.check(&token, "s1", now), Ok(()));
        assert_eq!(key.check(&token, "s2", now), Err(TokenError::Signature));
        assert_eq!(key.check(&token, "s1", now + Duration::from_secs(11)), Err(TokenError::Expired));
        let later = format!("99{token}");
        assert_eq!(key.check(&later, "s1", now), Err(TokenError::Signature));
        for broken in ["", ".", "1", "1.zz", "x.00"] {
            assert_eq!(key.check(broken, "s1", now), Err(TokenError::Form));
        }
        assert!(Key::new(b"short").is_err());
        assert_eq!(format!("{key:?}"), "Key(secret)");
    }
}
