//! TLS: ring as the one provider of the process, and certificates read from files. Decides that a provider which
//! something installed before stays; refuses a certificate without its key.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::players::TlsSettings;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("reading {}: {reason}; it must hold PEM", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The two do not fit.
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

/// What a server needs to speak TLS; `None` where no certificate is configured.
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

/// The certificates of a file, at least one.
///
/// # Errors
/// [`TlsError::Read`].
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unreadable(path, &error))?;
    if chain.is_empty() { Err(unreadable(path, &"no certificate is in it")) } else { Ok(chain) }
}

/// The private key of a file.
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
    fn a_provider_stands_after_installing_twice() {
        install();
        install();
        assert!(CryptoProvider::get_default().is_some());
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let settings = TlsSettings { cert: Some(cert.clone()), key: Some(key.clone()) };
        let says = |settings: &TlsSettings| server(settings).expect_err("refused").to_string();
        assert!(says(&settings).contains("cert.pem"), "{}", says(&settings));
        std::fs::write(&cert, "nonsense").expect("written");
        std::fs::write(&key, "nonsense").expect("written");
        assert!(says(&settings).contains("it must hold PEM"), "{}", says(&settings));
        assert!(server(&TlsSettings::default()).expect("none is well").is_none());
    }
}
