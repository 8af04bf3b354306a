//! What liveqos shows a media server to be let in. Decides where a secret may stand (a file or the environment, never
//! the configuration itself); refuses to print it.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

/// A password or token. Neither `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Reads the secret in `path`; the line end after it does not count.
    ///
    /// # Errors
    /// [`SecretError`] with the path, never with what is in it.
    pub(crate) fn of_file(path: &Path) -> Result<Self, SecretError> {
        let place = path.display().to_string();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| SecretError::Unreadable(place.clone(), error.to_string()))?;
        Self::checked(&text, place)
    }

    /// Reads the secret in the environment variable `name`.
    ///
    /// # Errors
    /// [`SecretError`] with the name, never with what is in it.
    pub(crate) fn of_env(name: &str) -> Result<Self, SecretError> {
        let place = format!("${name}");
        // Some names make `var` give an error, none makes it panic. Its error may show the value, so it is not
        // repeated.
        let text = std::env::var(name).map_err(|_| SecretError::NotSet(place.clone()))?;
        Self::checked(&text, place)
    }

    /// The secret itself, for the request that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    fn checked(text: &str, place: String) -> Result<Self, SecretError> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(SecretError::Empty(place));
        }
        if text.len() as u64 > MAX_SECRET_BYTES {
            return Err(SecretError::TooLong(place));
        }
        if text.chars().any(char::is_control) {
            return Err(SecretError::Control(place));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a secret could not be had. Each names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("reading the secret in {0}: {1}")]
    Unreadable(String, String),
    /// The variable is not set, or is no text.
    #[error("reading the secret in {0}: the variable is not set")]
    NotSet(String),
    /// There is nothing in it.
    #[error("reading the secret in {0}: it is empty")]
    Empty(String),
    /// Longer than 4 KiB.
    #[error("reading the secret in {0}: it is longer than {MAX_SECRET_BYTES} bytes")]
    TooLong(String),
    /// It cannot stand in an HTTP header.
    #[error("reading the secret in {0}: it has a control character or more than one line")]
    Control(String),
}

/// How a source is logged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// HTTP Basic (RFC 7617).
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token (RFC 6750).
    Bearer(Secret),
}

impl Credentials {
    /// The request with its `Authorization` header.
    pub(crate) fn show(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::Basic { username, password } => request.basic_auth(username, Some(password.reveal())),
            Self::Bearer(token) => request.bearer_auth(token.reveal()),
        }
    }
}

/// Longest secret kept.
const MAX_SECRET_BYTES: u64 = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text).expect("written");
        file
    }

    #[test]
    fn a_file_holds_a_secret_that_is_never_shown() {
        let secret = Secret::of_file(file(b"hunter2\r\n").path()).expect("a secret");
        assert_eq!(secret.reveal(), "hunter2");
        let login = Credentials::Bearer(secret);
        assert_eq!(format!("{login:?}"), "Bearer((hidden))");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let of = |text: &[u8]| Secret::of_file(file(text).path()).map_err(|error| error.to_string());
        for (text, says) in [
            (&b"\n"[..], "it is empty"),
            (b"two\nlines", "control character or more than one line"),
            (&[b'x'; 5_000], "longer than 4096 bytes"),
            (&[0xff, 0xfe], "reading the secret in"),
        ] {
            let error = of(text).expect_err("refused");
            assert!(error.contains(says) && !error.contains("two"), "{error}");
        }
        let error = Secret::of_file(Path::new("/no/such/file")).expect_err("missing").to_string();
        assert!(error.starts_with("reading the secret in /no/such/file: "), "{error}");
        assert_eq!(
            Secret::of_env("LIVEQOS_NO_SUCH_VARIABLE"),
            Err(SecretError::NotSet("$LIVEQOS_NO_SUCH_VARIABLE".to_owned()))
        );
        assert!(Secret::of_env("PATH").is_ok(), "set wherever tests run");
    }
}
