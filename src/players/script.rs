//! `GET /liveqos-player.js`: the script with which the players of a page report. It is compiled into the program, so
//! that it always matches the version of the node.

use std::sync::LazyLock;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use liveqos_core::base::hex;
use ring::digest;

/// The script as it is served.
pub const SCRIPT: &str = include_str!("../../probes/player/liveqos-player.js");

/// Answers with the script, or with 304 where the browser has the current one (RFC 9110, section 13.1.2).
pub(crate) async fn script(headers: HeaderMap) -> Response {
    let cached = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_current = cached.split(',').any(|tag| tag.trim().trim_start_matches("W/") == *TAG || tag.trim() == "*");
    let caching = [
        (header::ETAG, TAG.as_str()),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if is_current {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], caching, SCRIPT).into_response()
}

static TAG: LazyLock<String> = LazyLock::new(|| {
    let hash = digest::digest(&digest::SHA256, SCRIPT.as_bytes());
    format!("\"{}\"", hex::encode(&hash.as_ref()[..8]))
});

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_script_is_small() {
        let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        compressed.write_all(SCRIPT.as_bytes()).expect("memory takes it");
        let bytes = compressed.finish().expect("memory takes it").len();
        assert!(bytes <= 4_096, "{bytes} bytes by gzip");
    }

    #[test]
    fn the_script_runs_as_classic_script_and_as_module() {
        for start in ["import", "export", "require", "eval", "document.cookie", "localStorage"] {
            assert!(!SCRIPT.lines().any(|line| line.trim_start().starts_with(start)), "{start}");
        }
        assert!(SCRIPT.ends_with("scope.LiveQoS = { watch };\n})(globalThis);\n"));
    }

    #[tokio::test]
    async fn a_browser_with_the_current_script_gets_304() {
        let first = script(HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        let request = |tag: HeaderValue| script(HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]));
        assert_eq!(request(tag).await.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(request(HeaderValue::from_static("\"old\"")).await.status(), StatusCode::OK);
    }
}
