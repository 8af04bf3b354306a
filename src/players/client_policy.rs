//! Which clients may post how often, and which web pages may read the responses. Decides the source address of a
//! request (the peer's, or the one that a trusted proxy reports).

use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::rate_limit::RateLimiter;
use super::settings::{IngestError, IngestSettings};
use crate::platform::cidr::Networks;

/// The rules for clients of the players' endpoints.
pub(crate) struct ClientPolicy {
    limiter: RateLimiter,
    proxies: Networks,
    origins: Vec<HeaderValue>,
    started: Instant,
}

impl ClientPolicy {
    /// A policy as configured.
    ///
    /// # Errors
    /// [`IngestError`].
    pub(crate) fn new(settings: &IngestSettings) -> Result<Self, IngestError> {
        let origin = |text: &String| HeaderValue::from_str(text).map_err(|_| IngestError::Origin(text.clone()));
        Ok(Self {
            limiter: RateLimiter::new(settings.rate_per_second, settings.burst),
            proxies: settings.proxies()?,
            origins: settings.origins.iter().map(origin).collect::<Result<_, _>>()?,
            started: Instant::now(),
        })
    }

    /// The source address of a request: the peer, or, behind trusted proxies, the last address of `X-Forwarded-For`
    /// that is not a trusted proxy.
    #[must_use]
    pub(crate) fn source(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut source = peer;
        let lists = headers.get_all("x-forwarded-for").iter().rev().filter_map(|value| value.to_str().ok());
        for hop in lists.flat_map(|list| list.rsplit(',')) {
            if !self.proxies.contain(source) {
                break;
            }
            let Ok(address) = hop.trim().parse() else {
                break;
            };
            source = address;
        }
        source
    }

    /// The source address as that of a viewer; `None` where it is a proxy that named no client.
    #[must_use]
    pub(crate) fn viewer(&self, source: IpAddr) -> Option<IpAddr> {
        (!self.proxies.contain(source)).then_some(source)
    }

    /// Counts a request of `source`.
    ///
    /// # Errors
    /// How long to wait, when the source exceeds its rate.
    pub(super) fn admit(&self, source: IpAddr) -> Result<(), Duration> {
        self.limiter.admit(source, self.started.elapsed())
    }

    /// CORS headers for pages of the configured origins (WHATWG Fetch).
    pub(super) fn cors(&self) -> CorsLayer {
        let any = self.origins.iter().any(|origin| origin == "*");
        CorsLayer::new()
            .allow_origin(if any { AllowOrigin::any() } else { AllowOrigin::list(self.origins.clone()) })
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(ALLOWED_HEADERS)
            .expose_headers([header::RETRY_AFTER])
            .max_age(PREFLIGHT_MAX_AGE)
    }
}

/// Headers that a page of another origin may send beside the CORS-safelisted ones.
const ALLOWED_HEADERS: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    HeaderName::from_static("cmcd-request"),
    HeaderName::from_static("cmcd-object"),
    HeaderName::from_static("cmcd-status"),
    HeaderName::from_static("cmcd-session"),
];
/// How long a browser may cache a preflight response; Chromium caps it at two hours.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str, forwarded: &[&'static str]) -> String {
        let policy = ClientPolicy::new(&IngestSettings {
            trusted_proxies: vec!["127.0.0.1".to_owned(), "10.0.0.0/8".to_owned()],
            ..IngestSettings::default()
        });
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        let policy = policy.expect("good");
        let source = policy.source(peer.parse().expect("an address"), &headers);
        assert_eq!(policy.viewer(source).is_none(), source.to_string() == peer && source.is_loopback());
        source.to_string()
    }

    #[test]
    fn only_the_address_that_a_trusted_proxy_adds_is_trusted() {
        assert_eq!(source("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "the peer is no trusted proxy");
        assert_eq!(source("127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(source("127.0.0.1", &["6.6.6.6, 198.51.100.7"]), "198.51.100.7", "the client sent the rest");
        assert_eq!(source("127.0.0.1", &["6.6.6.6", "198.51.100.7, 10.1.1.1"]), "198.51.100.7");
        assert_eq!(source("127.0.0.1", &["unknown"]), "127.0.0.1");
        assert_eq!(source("127.0.0.1", &[]), "127.0.0.1");
    }
}
