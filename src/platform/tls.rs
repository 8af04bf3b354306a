//! TLS: ring as the process's one crypto provider, and certificates and keys read from PEM files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// File with the certificate and those between it and the root, PEM; read again at a reload.
    pub cert: Option<PathBuf>,
    /// File with its private key, PEM; read again at a reload.
    pub key: Option<PathBuf>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the kind.
    #[error("reading {}: {reason}; it must hold PEM", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("certificate {} with key {}: {error}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
}

/// Makes ring the provider of the process, unless there is one. Call it before building any HTTP or gRPC client:
/// without a provider, building a `reqwest` client panics even for plain HTTP.
pub fn install() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        if CryptoProvider::get_default().is_none() {
            // Fails only when another thread was faster: then there is a provider.
            ring::default_provider().install_default().ok();
        }
    });
}

/// The TLS configuration of a server; `None` where no certificate is configured.
///
/// # Errors
/// [`TlsError`].
pub fn server(settings: &TlsSettings) -> Result<Option<ServerConfig>, TlsError> {
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else {
        return Ok(None);
    };
    install();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain(cert)?, self::key(key)?);
    let mut config = config.map_err(|error| TlsError::Pair { cert: cert.clone(), key: key.clone(), error })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(config))
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// [`TlsError::Read`].
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unreadable(path, &error))?;
    if chain.is_empty() { Err(unreadable(path, &"it contains no certificate")) } else { Ok(chain) }
}

/// The private key in a PEM file.
///
/// # Errors
/// [`TlsError::Read`].
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Read { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_leaves_one_provider() {
        install();
        install();
        assert!(CryptoProvider::get_default().is_some());
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let settings = TlsSettings { cert: Some(cert.clone()), key: Some(key.clone()) };
        let error = |settings: &TlsSettings| server(settings).expect_err("refused").to_string();
        assert!(error(&settings).contains("cert.pem"), "{}", error(&settings));
        std::fs::write(&cert, "nonsense").expect("written");
        std::fs::write(&key, "nonsense").expect("written");
        assert!(error(&settings).contains("it must hold PEM"), "{}", error(&settings));
        assert!(server(&TlsSettings::default()).expect("no certificate is fine").is_none());
    }
}
