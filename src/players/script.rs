//! `GET /liveqos-player.js`: the script by which a page's players report. It is part of the program, so it always fits
//! the node.

use std::sync::LazyLock;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use liveqos_core::base::hex;
use ring::digest;

/// The script as it is sent.
pub const SCRIPT: &str = include_str!("../../probes/player/liveqos-player.js");

/// Answers with the script, or with 304 where the browser has this very one.
pub(crate) async fn script(headers: HeaderMap) -> Response {
    let kept = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_kept = kept.split(',').any(|tag| tag.trim().trim_start_matches("W/") == *TAG || tag.trim() == "*");
    let about = [
        (header::ETAG, TAG.as_str()),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if is_kept {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], about, SCRIPT).into_response()
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
    fn it_is_small() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(SCRIPT.as_bytes()).expect("memory takes it");
        let bytes = packed.finish().expect("memory takes it").len();
        assert!(bytes <= 4_096, "{bytes} bytes by gzip");
    }

    #[test]
    fn it_runs_as_it_is_classic_or_module() {
        for word in ["import", "export", "require", "eval", "document.cookie", "localStorage"] {
            assert!(!SCRIPT.lines().any(|line| line.trim_start().starts_with(word)), "{word}");
        }
        assert!(SCRIPT.ends_with("scope.LiveQoS = { watch };\n})(globalThis);\n"));
    }

    #[tokio::test]
    async fn a_browser_asks_again_in_vain() {
        let first = script(HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        let ask = |tag: HeaderValue| script(HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]));
        assert_eq!(ask(tag).await.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(HeaderValue::from_static("\"old\"")).await.status(), StatusCode::OK);
    }
}
