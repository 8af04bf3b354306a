//! The lines of `liveqos check` for the paths to other nodes: certificates, then one ping of each peer.

use crate::peers::{Credentials, PathSettings, try_once};

/// Tries everything. Each line: whether it is good, what was checked, and the result.
pub(super) async fn check(settings: &PathSettings) -> Vec<(bool, String, String)> {
    if !settings.is_used() {
        return Vec::new();
    }
    let about = "paths.tls".to_owned();
    let credentials = match Credentials::read(&settings.tls) {
        Ok(credentials) => credentials,
        Err(error) => return vec![(false, about, error.to_string())],
    };
    let mut lines = vec![(true, about, "certificate, key and authority are valid".to_owned())];
    for peer in &settings.peers {
        let about = format!("path to {} ({})", peer.name, peer.address);
        lines.push(match try_once(peer, &credentials).await {
            Ok(rtt) => (true, about, format!("answers, round trip {:.1} ms", rtt.as_secs_f64() * 1e3)),
            Err(error) => (false, about, error.to_string()),
        });
    }
    lines
}
