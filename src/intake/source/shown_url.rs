//! How a URL is shown to people and in logs.

use reqwest::Url;

/// `url` as it may be shown.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that cannot carry userinfo at all.
    url.set_username("").ok();
    url.set_password(None).ok();
    url.to_string()
}
