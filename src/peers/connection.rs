//! One QUIC connection to another node and the pings on it, and the reason given when it fails.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use liveqos_core::node::{DirectionLoss, Echo, PathLoss, ping};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

use super::settings::PeerSettings;

/// Why a connection could not be opened, or was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PeerError {
    /// One word: the `reason` label of `liveqos_probe_failures_total`.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl PeerError {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Whether the peer itself closed or refused the connection: its silence then shows nothing about the path.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        matches!(self.reason, "closed" | "reset" | "refused")
    }
}

/// An open connection to a peer.
pub(crate) struct PeerConnection {
    connection: Connection,
    loss: PathLoss,
    opened_at: Instant,
}

impl PeerConnection {
    /// Connects; `attempt` selects one of the addresses that the peer's name resolves to.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(crate) async fn open(peer: &PeerSettings, client: ClientConfig, attempt: u32) -> Result<Self, PeerError> {
        let address = resolve(peer, attempt).await?;
        let from: SocketAddr =
            if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        // Each attempt uses a new socket: another port may be routed around the fault.
        let endpoint = Endpoint::client(from).map_err(|error| PeerError::new("socket", error.to_string()))?;
        let connecting = endpoint.connect_with(client, address, peer.certificate_name());
        let connecting = connecting.map_err(|error| PeerError::new("connect", error.to_string()))?;
        let connection = timeout(HANDSHAKE, connecting).await;
        let connection =
            connection.map_err(|_| PeerError::new("timeout", format!("nobody answers at {address} (UDP)")))?;
        let connection = connection.map_err(|error| peer_error(&error))?;
        if connection.max_datagram_size().is_none_or(|size| size < ping::ECHO_BYTES) {
            return Err(PeerError::new("protocol", "the peer accepts no datagrams"));
        }
        Ok(Self { connection, loss: PathLoss::default(), opened_at: Instant::now() })
    }

    /// Sends a ping; false while too many are undecided.
    ///
    /// # Errors
    /// [`PeerError`] where the connection is lost.
    pub(crate) fn ping(&mut self) -> Result<bool, PeerError> {
        let Some(number) = self.loss.send(self.opened_at.elapsed()) else { return Ok(false) };
        let datagram = Bytes::copy_from_slice(&ping::ping(number));
        let sent = self.connection.send_datagram(datagram);
        sent.map(|()| true).map_err(|error| match error {
            quinn::SendDatagramError::ConnectionLost(error) => peer_error(&error),
            error => PeerError::new("protocol", error.to_string()),
        })
    }

    /// Waits for a datagram: the round trip and the losses that it decides, or `None` where it is not the echo of an
    /// undecided ping.
    ///
    /// # Errors
    /// [`PeerError`] where the connection is lost.
    pub(crate) async fn receive(&mut self) -> Result<Option<(Duration, DirectionLoss)>, PeerError> {
        let datagram = self.connection.read_datagram().await.map_err(|error| peer_error(&error))?;
        let now = self.opened_at.elapsed();
        Ok(Echo::read(&datagram).and_then(|echo| self.loss.receive(now, &echo)))
    }
}

async fn resolve(peer: &PeerSettings, attempt: u32) -> Result<SocketAddr, PeerError> {
    let host = peer.host_and_port().ok_or_else(|| PeerError::new("resolve", "the address is not a host and port"))?;
    let found = timeout(RESOLVE, lookup_host(host)).await;
    let found = found.map_err(|_| PeerError::new("resolve", format!("{} was not resolved in time", host.0)))?;
    let found: Vec<_> = found.map_err(|error| PeerError::new("resolve", format!("{}: {error}", host.0)))?.collect();
    let address = found.get(attempt as usize % found.len().max(1));
    address.copied().ok_or_else(|| PeerError::new("resolve", format!("{} has no address", host.0)))
}

/// The reason and message of a lost connection.
pub(super) fn peer_error(error: &ConnectionError) -> PeerError {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(frame) => u64::from(frame.error_code),
        _ => 0,
    };
    let reason = match error {
        ConnectionError::TimedOut => "timeout",
        ConnectionError::ApplicationClosed(_) => "closed",
        ConnectionError::Reset => "reset",
        ConnectionError::VersionMismatch => "protocol",
        _ if code == CONNECTION_REFUSED => "refused",
        _ if code == NO_PROTOCOL => "protocol",
        _ if CERTIFICATE_ALERTS.contains(&code) => "certificate",
        _ => "connection",
    };
    let message = match reason {
        "timeout" => "nothing was received in time".to_owned(),
        "closed" => "the peer closed the connection".to_owned(),
        "refused" => "the peer accepts no more connections".to_owned(),
        "protocol" => format!("something other than liveqos answers there, or another version: {error}"),
        "certificate" if matches!(error, ConnectionError::TransportError(_)) => {
            format!("its certificate is not trusted (paths.tls.ca, server_name): {error}")
        }
        "certificate" => format!("it does not trust this node's certificate (paths.tls.cert): {error}"),
        _ => error.to_string(),
    };
    PeerError::new(reason, message)
}

/// Longest wait for name resolution.
const RESOLVE: Duration = Duration::from_secs(3);
/// Longest wait for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// `CONNECTION_REFUSED` (RFC 9000, section 20.1).
const CONNECTION_REFUSED: u64 = 2;
/// The TLS alert `no_application_protocol` as a QUIC error (RFC 9001, section 4.8).
const NO_PROTOCOL: u64 = 0x100 + 120;
/// TLS alerts about certificates (RFC 8446, section 6.2): from `bad_certificate` to `unknown_ca`, `access_denied`,
/// `decrypt_error` (an authority of the same name signed it), `certificate_required`.
const CERTIFICATE_ALERTS: [u64; 9] = [0x12a, 0x12b, 0x12c, 0x12d, 0x12e, 0x130, 0x131, 0x133, 0x174];
