//! One HTTP GET from a source that may be slow, endless, false or gone. Limits time, size and redirects; rejects
//! redirects to other servers and ignores the proxy of the environment.

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
    /// A client that opens a new connection for every request. On a host without CA certificates plain HTTP still
    /// works; HTTPS then fails as `tls`.
    ///
    /// # Errors
    /// [`FetchError::Client`] when the TLS library does not start.
    pub(crate) fn new() -> Result<Self, FetchError> {
        crate::platform::tls::install();
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::custom(same_origin))
                // Each nginx worker knows only its own viewers: a kept connection would always reach the same worker.
                .pool_max_idle_per_host(0)
                .referer(false)
                .user_agent(concat!("liveqos/", env!("CARGO_PKG_VERSION")))
        };
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let client = client.map_err(|error| FetchError::Client(innermost(&error)))?;
        Ok(Self { client, max_body: MAX_BODY })
    }

    /// The same client with another size limit than [`MAX_BODY`].
    #[cfg(test)]
    pub(super) fn with_max_body(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }

    /// Requests `path` (as [`liveqos_probes::probe::Request::path`]) from `source` and returns the body that arrives
    /// within `limit`.
    pub(crate) async fn get(&self, source: &Source, path: &str, limit: Duration) -> Result<Vec<u8>, FetchError> {
        let url = below(&source.url, path);
        let shown_url = shown(&url);
        match tokio::time::timeout(limit, self.body(source, url, &shown_url)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Timeout { url: shown_url, limit }),
        }
    }

    async fn body(&self, source: &Source, url: Url, shown_url: &str) -> Result<Vec<u8>, FetchError> {
        let mut request = self.client.get(url);
        if let Some(credentials) = &source.credentials {
            request = credentials.authorize(request);
        }
        let broken = |error: &reqwest::Error| FetchError::of(error, shown_url);
        let mut response = request.send().await.map_err(|error| broken(&error))?;
        if !response.status().is_success() {
            return Err(bad_status(&response, shown_url));
        }
        let too_large = || FetchError::TooLarge { url: shown_url.to_owned(), limit: self.max_body };
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

/// Why a request got no usable response. URLs in it contain no user, password or query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The response was not complete in time.
    #[error("requesting {url}: no complete response within {limit:?}")]
    Timeout {
        /// The requested URL.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// No connection.
    #[error("requesting {url}: connecting: {detail}")]
    Connect {
        /// The requested URL.
        url: String,
        /// The system's message.
        detail: String,
    },
    /// The TLS handshake failed.
    #[error("requesting {url}: TLS: {detail}")]
    Tls {
        /// The requested URL.
        url: String,
        /// The TLS library's message.
        detail: String,
    },
    /// A redirect to another server, or too many redirects.
    #[error("requesting {url}: {detail}")]
    Redirect {
        /// The requested URL.
        url: String,
        /// Where it leads.
        detail: String,
    },
    /// A status other than 2xx.
    #[error("requesting {url}: status {status}{help}")]
    Status {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// A hint what to check.
        help: &'static str,
    },
    /// The response is larger than the limit.
    #[error("requesting {url}: response of more than {limit} bytes")]
    TooLarge {
        /// The requested URL.
        url: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The response ended early, was not HTTP or could not be decompressed.
    #[error("requesting {url}: broken response: {detail}")]
    Broken {
        /// The requested URL.
        url: String,
        /// The HTTP library's message.
        detail: String,
    },
    /// The HTTP client could not be created.
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

    fn of(error: &reqwest::Error, shown_url: &str) -> Self {
        let (url, detail) = (shown_url.to_owned(), innermost(error));
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

/// Follows at most [`MAX_REDIRECTS`] redirects, and only on the configured host and port: a media server must not make
/// this node send requests to others.
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

fn bad_status(response: &Response, shown_url: &str) -> FetchError {
    let status = response.status();
    let help = match status {
        StatusCode::UNAUTHORIZED => "; set username and password_file, or token_file",
        StatusCode::FORBIDDEN => "; the server must allow this address or requires credentials",
        StatusCode::NOT_FOUND => "; the path of url is wrong, or the status page is not enabled",
        _ if status.is_redirection() && response.headers().contains_key(LOCATION) => {
            "; its redirect cannot be followed"
        }
        _ => "",
    };
    FetchError::Status { url: shown_url.to_owned(), status: status.as_u16(), help }
}

/// `path` (with its query) below `base`, whose own query is kept.
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

/// Whether TLS is the cause. An I/O error does not return the error that it wraps as `source`, and may wrap another I/O
/// error.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}

/// The message of the first cause; the errors around it repeat the URL with its secrets.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = None;
    while let Some(error) = cause {
        text = Some(error.to_string());
        cause = error.source();
    }
    text.unwrap_or_else(|| "unknown cause".to_owned())
}

/// Largest response that is read, in bytes after decompression: the client list of an SRS with 100,000 viewers.
pub(super) const MAX_BODY: usize = 32 * 1024 * 1024;
/// Largest number of redirects for one request.
pub(super) const MAX_REDIRECTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_below_the_base_url() {
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
