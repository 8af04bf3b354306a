//! One HTTP GET of a source that may be anything: slow, endless, lying, gone. Decides how long, how much and how far a
//! question goes; refuses redirects to elsewhere and any proxy of the environment.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::LOCATION;
use reqwest::{Client, Response, StatusCode, Url, redirect};

use crate::intake::source::{Source, shown};

/// The HTTP client that all sources share.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    client: Client,
    max_body: usize,
}

impl HttpClient {
    /// A client that opens a connection for every question. On a host without CA certificates plain HTTP works all the
    /// same; HTTPS then fails as `tls`.
    ///
    /// # Errors
    /// [`FetchError::Client`] when the TLS library does not start.
    pub(crate) fn new() -> Result<Self, FetchError> {
        crate::platform::tls::install();
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::custom(same_origin))
                // Each worker of an nginx knows its own viewers only: one kept connection would ask the same worker for
                // ever.
                .pool_max_idle_per_host(0)
                .referer(false)
                .user_agent(concat!("liveqos/", env!("CARGO_PKG_VERSION")))
        };
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let client = client.map_err(|error| FetchError::Client(innermost(&error)))?;
        Ok(Self { client, max_body: MAX_BODY })
    }

    /// The same with another limit of an answer's bytes than [`MAX_BODY`].
    #[cfg(test)]
    pub(super) fn with_max_body(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }

    /// The body that `source` answers for `path` (as [`liveqos_probes::probe::Request::path`]) within `limit`.
    pub(crate) async fn get(&self, source: &Source, path: &str, limit: Duration) -> Result<Vec<u8>, FetchError> {
        let url = below(&source.url, path);
        let place = shown(&url);
        match tokio::time::timeout(limit, self.body(source, url, &place)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Timeout { url: place, limit }),
        }
    }

    async fn body(&self, source: &Source, url: Url, place: &str) -> Result<Vec<u8>, FetchError> {
        let mut request = self.client.get(url);
        if let Some(login) = &source.login {
            request = login.show(request);
        }
        let broken = |error: &reqwest::Error| FetchError::of(error, place);
        let mut response = request.send().await.map_err(|error| broken(&error))?;
        if !response.status().is_success() {
            return Err(bad_status(&response, place));
        }
        let too_large = || FetchError::TooLarge { url: place.to_owned(), limit: self.max_body };
        if response.content_length().is_some_and(|length| length > self.max_body as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
            if chunk.len() > self.max_body - body.len() {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Why a question had no usable answer. URLs stand in it without user, password and query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// Not all of the answer came in time.
    #[error("asking {url}: no whole answer within {limit:?}")]
    Timeout {
        /// What was asked.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// No connection.
    #[error("asking {url}: connecting: {detail}")]
    Connect {
        /// What was asked.
        url: String,
        /// The system's words.
        detail: String,
    },
    /// No trust.
    #[error("asking {url}: TLS: {detail}")]
    Tls {
        /// What was asked.
        url: String,
        /// The TLS library's words.
        detail: String,
    },
    /// Sent elsewhere or too often.
    #[error("asking {url}: {detail}")]
    Redirect {
        /// What was asked.
        url: String,
        /// Where to.
        detail: String,
    },
    /// Another status than 2xx.
    #[error("asking {url}: status {status}{help}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// What to look at.
        help: &'static str,
    },
    /// More than is read.
    #[error("asking {url}: answer of more than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// It ended in the middle, or was no HTTP, or could not be unpacked.
    #[error("asking {url}: broken answer: {detail}")]
    Broken {
        /// What was asked.
        url: String,
        /// The HTTP library's words.
        detail: String,
    },
    /// The HTTP client itself could not be made.
    #[error("starting the HTTP client: {0}")]
    Client(String),
}

impl FetchError {
    /// The value of the `reason` label.
    #[must_use]
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::Redirect { .. } => "redirect",
            Self::Status { .. } => "status",
            Self::TooLarge { .. } => "too_large",
            Self::Broken { .. } => "broken",
            Self::Client(_) => "client",
        }
    }

    fn of(error: &reqwest::Error, place: &str) -> Self {
        let (url, detail) = (place.to_owned(), innermost(error));
        if error.is_redirect() {
            Self::Redirect { url, detail }
        } else if is_tls(error) {
            Self::Tls { url, detail }
        } else if error.is_connect() {
            Self::Connect { url, detail }
        } else {
            Self::Broken { url, detail }
        }
    }
}

/// Follows at most [`MAX_REDIRECTS`] redirects, and only on the host and port that were configured: a media server must
/// not be able to make this node ask others.
fn same_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().first();
    if from.is_none_or(|from| from.origin() != attempt.url().origin()) {
        let to = shown(attempt.url());
        return attempt
            .error(format!("redirected to {to}, another server; if that is right, make it the source's url"));
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("redirected more than {MAX_REDIRECTS} times"));
    }
    attempt.follow()
}

fn bad_status(response: &Response, place: &str) -> FetchError {
    let status = response.status();
    let help = match status {
        StatusCode::UNAUTHORIZED => "; set username and password_file, or token_file",
        StatusCode::FORBIDDEN => "; the server must allow this address, or wants a login",
        StatusCode::NOT_FOUND => "; the path of url is wrong, or the status page is not switched on",
        _ if status.is_redirection() && response.headers().contains_key(LOCATION) => {
            "; its redirect cannot be followed"
        }
        _ => "",
    };
    FetchError::Status { url: place.to_owned(), status: status.as_u16(), help }
}

/// `path` (with its query) below `base`; the base's own query stays.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    if !path.is_empty() {
        url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/')));
    }
    match (base.query().filter(|query| !query.is_empty()), query) {
        (_, None) => {}
        (None, Some(query)) => url.set_query(Some(query)),
        (Some(own), Some(query)) => url.set_query(Some(&format!("{own}&{query}"))),
    }
    url
}

/// Whether TLS is the cause. An I/O error hides the one it wraps from `source`, and may wrap another I/O error.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}

/// The words of the first cause; those around it repeat the URL with its secrets.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = None;
    while let Some(error) = cause {
        text = Some(error.to_string());
        cause = error.source();
    }
    text.unwrap_or_else(|| "no cause known".to_owned())
}

/// Longest answer that is read, in bytes after unpacking: the client list of an SRS with 100,000 viewers.
pub(super) const MAX_BODY: usize = 32 * 1024 * 1024;
/// Redirects that are followed for one question.
pub(super) const MAX_REDIRECTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_below_the_base() {
        for (base, path, expected) in [
            ("http://h:1985", "/api/v1/streams/?count=9", "http://h:1985/api/v1/streams/?count=9"),
            ("http://h/srs/", "/api", "http://h/srs/api"),
            ("http://h/stat", "", "http://h/stat"),
            ("http://h/x?secret=1", "/a?b=2", "http://h/x/a?secret=1&b=2"),
            ("http://h/x?secret=1", "/a", "http://h/x/a?secret=1"),
            ("http://h", "//evil.example/x", "http://h/evil.example/x"),
            ("http://h", "/@evil.example:1/", "http://h/@evil.example:1/"),
        ] {
            let base = Url::parse(base).expect("a URL");
            assert_eq!(below(&base, path).as_str(), expected);
        }
    }
}
