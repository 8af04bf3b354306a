//! A URL without its secrets, for people and logs.

use reqwest::Url;

/// `url` without user, password, query and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that cannot contain user and password at all.
    url.set_username("").ok();
    url.set_password(None).ok();
    url.to_string()
}
