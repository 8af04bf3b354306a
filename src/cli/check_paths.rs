//! The lines of `liveqos check` about the paths to other nodes: certificates, then each peer pinged once.

use crate::peers::{Credentials, PathSettings, try_once};

/// Tries everything; each line says whether it is good, what it is about, and what was found.
pub(super) async fn check(settings: &PathSettings) -> Vec<(bool, String, String)> {
    if !settings.is_used() {
        return Vec::new();
    }
    let about = "paths.tls".to_owned();
    let credentials = match Credentials::read(&settings.tls) {
        Ok(credentials) => credentials,
        Err(error) => return vec![(false, about, error.to_string())],
    };
    let mut lines = vec![(true, about, "certificate, key and authority can be used".to_owned())];
    for peer in &settings.peers {
        let about = format!("path to {} ({})", peer.name, peer.address);
        lines.push(match try_once(peer, &credentials).await {
            Ok(rtt) => (true, about, format!("it answers, round trip {:.1} ms", rtt.as_secs_f64() * 1e3)),
            Err(trouble) => (false, about, trouble.to_string()),
        });
    }
    lines
}
