//! The node's certificate and the authority it trusts, as a QUIC client and a QUIC server configuration. Both ends must
//! present a certificate of the configured authority.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;

use super::fixed_window::FixedWindow;
use super::settings::NodeTlsSettings;
use crate::platform::{TlsError, tls};

/// The QUIC configurations of a node.
#[derive(Clone)]
pub struct Credentials {
    /// For pinging peers.
    pub client: ClientConfig,
    /// For answering pings.
    pub server: ServerConfig,
}

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("paths.tls: {0}")]
    File(#[from] TlsError),
    /// Certificate and key do not belong together.
    #[error("paths.tls: certificate {} with key {}: {error}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// The authority cannot be used.
    #[error("paths.tls: the authority in {}: {detail}", ca.display())]
    Authority {
        /// The authority's file.
        ca: PathBuf,
        /// Why.
        detail: String,
    },
}

impl Credentials {
    /// Reads certificate, key and authority.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn read(settings: &NodeTlsSettings) -> Result<Self, CredentialError> {
        let provider = Arc::new(ring::default_provider());
        let pair = |error| CredentialError::Pair { cert: settings.cert.clone(), key: settings.key.clone(), error };
        let authority = |detail: String| CredentialError::Authority { ca: settings.ca.clone(), detail };
        let (chain, key) = (tls::chain(&settings.cert)?, tls::key(&settings.key)?);
        let mut roots = RootCertStore::empty();
        for certificate in tls::chain(&settings.ca)? {
            roots.add(certificate).map_err(|error| authority(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let versions = &[&rustls::version::TLS13];
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
        let client = client.with_protocol_versions(versions).map_err(pair)?.with_root_certificates(Arc::clone(&roots));
        let mut client = client.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(pair)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let verifier = verifier.map_err(|error| authority(error.to_string()))?;
        let server = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let server = server.map_err(pair)?.with_client_cert_verifier(verifier);
        let mut server = server.with_single_cert(chain, key).map_err(pair)?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        let unfit = |error: quinn::crypto::rustls::NoInitialCipherSuite| authority(error.to_string());
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).map_err(unfit)?));
        let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).map_err(unfit)?));
        let transport = Arc::new(transport());
        client.transport_config(Arc::clone(&transport));
        server.transport_config(transport);
        server.max_incoming(MAX_INCOMING).incoming_buffer_size(INCOMING_BYTES);
        server.incoming_buffer_size_total(INCOMING_BYTES * MAX_INCOMING as u64);
        Ok(Self { client, server })
    }
}

/// Small datagrams only: no streams, and no path MTU discovery, whose probes are lost on purpose.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    // Acknowledgements wait, so that they share a packet with the next ping or echo.
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10)).max_ack_delay(Some(ACK_DELAY));
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MILLIS))))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .mtu_discovery_config(None)
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .congestion_controller_factory(Arc::new(FixedWindow));
    transport
}

/// The ALPN protocol of both ends.
const PROTOCOL: &[u8] = b"liveqos-path/1";
/// A connection on which nothing is received for this long is closed.
const IDLE_MILLIS: u32 = 10_000;
/// Longest delay of an acknowledgement: more than the longest interval between pings.
const ACK_DELAY: Duration = Duration::from_millis(150);
/// Datagrams queued on a connection, in bytes, each way; the oldest are dropped first.
pub(super) const DATAGRAM_BYTES: usize = 16 * 1024;
/// Connections that may wait to be accepted; more are dropped.
const MAX_INCOMING: usize = 64;
/// Bytes buffered for each of them.
const INCOMING_BYTES: u64 = 16 * 1024;
