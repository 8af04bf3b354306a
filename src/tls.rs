//! The one TLS provider of the process: ring. Decides nothing else; a provider that something installed before stays.

use std::sync::OnceLock;

use rustls::crypto::{CryptoProvider, ring};

/// Makes ring the process-wide provider, once. Call it before any HTTP or gRPC client is built: without a provider the
/// building of a `reqwest` client panics, even for plain HTTP.
pub fn install() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        if CryptoProvider::get_default().is_none() {
            // Fails only when another thread was faster: then there is a provider, which is all that is wanted.
            ring::default_provider().install_default().ok();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_stands_after_installing_twice() {
        install();
        install();
        assert!(CryptoProvider::get_default().is_some());
    }
}
