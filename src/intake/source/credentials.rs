//! Credentials that liveqos presents to a media server. A secret comes from a file or an environment variable, never
//! from the configuration itself, and is never printed.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

/// A password or token. Neither `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Reads the secret in `path`, without the line end after it.
    ///
    /// # Errors
    /// [`SecretError`] with the path, never with the content.
    pub(crate) fn of_file(path: &Path) -> Result<Self, SecretError> {
        let origin = path.display().to_string();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| SecretError::Unreadable(origin.clone(), error.to_string()))?;
        Self::checked(&text, origin)
    }

    /// Reads the secret in the environment variable `name`.
    ///
    /// # Errors
    /// [`SecretError`] with the name, never with the content.
    pub(crate) fn of_env(name: &str) -> Result<Self, SecretError> {
        let origin = format!("${name}");
        // `var` returns an error for names that cannot exist and never panics. Its error may contain the value, so it
        // is not repeated.
        let text = std::env::var(name).map_err(|_| SecretError::NotSet(origin.clone()))?;
        Self::checked(&text, origin)
    }

    /// The secret itself, for the request that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    fn checked(text: &str, origin: String) -> Result<Self, SecretError> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(SecretError::Empty(origin));
        }
        if text.len() as u64 > MAX_SECRET_BYTES {
            return Err(SecretError::TooLong(origin));
        }
        if text.chars().any(char::is_control) {
            return Err(SecretError::Control(origin));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a secret cannot be read. Each variant names the file or variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("reading the secret in {0}: {1}")]
    Unreadable(String, String),
    /// The variable is not set, or not valid UTF-8.
    #[error("reading the secret in {0}: the variable is not set")]
    NotSet(String),
    /// The file or variable is empty.
    #[error("reading the secret in {0}: it is empty")]
    Empty(String),
    /// Longer than 4 KiB.
    #[error("reading the secret in {0}: it is longer than {MAX_SECRET_BYTES} bytes")]
    TooLong(String),
    /// The secret does not fit into an HTTP header.
    #[error("reading the secret in {0}: it contains a control character or more than one line")]
    Control(String),
}

/// How liveqos authenticates to a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// HTTP Basic (RFC 7617).
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token (RFC 6750).
    Bearer(Secret),
}

impl Credentials {
    /// Adds the `Authorization` header to `request`.
    pub(crate) fn authorize(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::Basic { username, password } => request.basic_auth(username, Some(password.reveal())),
            Self::Bearer(token) => request.bearer_auth(token.reveal()),
        }
    }
}

/// Longest secret that is accepted, in bytes.
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
    fn a_secret_from_a_file_is_never_shown() {
        let secret = Secret::of_file(file(b"hunter2\r\n").path()).expect("a secret");
        assert_eq!(secret.reveal(), "hunter2");
        let credentials = Credentials::Bearer(secret);
        assert_eq!(format!("{credentials:?}"), "Bearer((hidden))");
    }

    #[test]
    fn invalid_secrets_are_rejected() {
        let of = |text: &[u8]| Secret::of_file(file(text).path()).map_err(|error| error.to_string());
        for (text, expected) in [
            (&b"\n"[..], "it is empty"),
            (b"two\nlines", "control character or more than one line"),
            (&[b'x'; 5_000], "longer than 4096 bytes"),
            (&[0xff, 0xfe], "reading the secret in"),
        ] {
            let error = of(text).expect_err("refused");
            assert!(error.contains(expected) && !error.contains("two"), "{error}");
        }
        let error = Secret::of_file(Path::new("/no/such/file")).expect_err("missing").to_string();
        assert!(error.starts_with("reading the secret in /no/such/file: "), "{error}");
        assert_eq!(
            Secret::of_env("LIVEQOS_NO_SUCH_VARIABLE"),
            Err(SecretError::NotSet("$LIVEQOS_NO_SUCH_VARIABLE".to_owned()))
        );
        assert!(Secret::of_env("PATH").is_ok(), "PATH is always set");
    }
}
