//! One connection to another node with pings along it. Decides how a failure is called; refuses a node that shows no
//! certificate of the authority, and one that speaks something else.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use liveqos_core::node::{Echo, PathLoss, Ways, ping};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

use super::settings::PeerSettings;

/// Why there is no connection, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    /// In one word, as in the label `reason`.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Trouble {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Whether the other node took leave or said no: then its silence says nothing of the path.
    pub(super) fn is_leave(&self) -> bool {
        matches!(self.reason, "closed" | "reset" | "refused")
    }
}

/// An open connection.
pub(crate) struct PeerConnection {
    connection: Connection,
    tally: PathLoss,
    began: Instant,
}

impl PeerConnection {
    /// Connects; `attempt` chooses among the addresses of a name.
    pub(crate) async fn open(peer: &PeerSettings, client: ClientConfig, attempt: u32) -> Result<Self, Trouble> {
        let address = resolve(peer, attempt).await?;
        let from: SocketAddr =
            if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        // A socket of its own each time: a new port may take another way around what is broken.
        let endpoint = Endpoint::client(from).map_err(|error| Trouble::new("socket", error.to_string()))?;
        let connecting = endpoint.connect_with(client, address, peer.shown_as());
        let connecting = connecting.map_err(|error| Trouble::new("connect", error.to_string()))?;
        let connection = timeout(HANDSHAKE, connecting).await;
        let connection =
            connection.map_err(|_| Trouble::new("timeout", format!("nobody answers at {address} (UDP)")))?;
        let connection = connection.map_err(|error| trouble(&error))?;
        if connection.max_datagram_size().is_none_or(|size| size < ping::ECHO_BYTES) {
            return Err(Trouble::new("protocol", "it takes no datagrams"));
        }
        Ok(Self { connection, tally: PathLoss::default(), began: Instant::now() })
    }

    /// Sends a ping; false while too many are undecided.
    pub(crate) fn ping(&mut self) -> Result<bool, Trouble> {
        let Some(number) = self.tally.send(self.began.elapsed()) else { return Ok(false) };
        let datagram = Bytes::copy_from_slice(&ping::ping(number));
        let sent = self.connection.send_datagram(datagram);
        sent.map(|()| true).map_err(|error| match error {
            quinn::SendDatagramError::ConnectionLost(error) => trouble(&error),
            error => Trouble::new("protocol", error.to_string()),
        })
    }

    /// Waits for a datagram: the round trip and what is decided by it, or `None` where it was no echo of an open ping.
    pub(crate) async fn hear(&mut self) -> Result<Option<(Duration, Ways)>, Trouble> {
        let datagram = self.connection.read_datagram().await.map_err(|error| trouble(&error))?;
        let now = self.began.elapsed();
        Ok(Echo::read(&datagram).and_then(|echo| self.tally.hear(now, &echo)))
    }
}

async fn resolve(peer: &PeerSettings, attempt: u32) -> Result<SocketAddr, Trouble> {
    let place = peer.host_and_port().ok_or_else(|| Trouble::new("resolve", "it is not a host and port"))?;
    let found = timeout(RESOLVE, lookup_host(place)).await;
    let found = found.map_err(|_| Trouble::new("resolve", format!("{} is not resolved in time", place.0)))?;
    let found: Vec<_> = found.map_err(|error| Trouble::new("resolve", format!("{}: {error}", place.0)))?.collect();
    let one = found.get(attempt as usize % found.len().max(1));
    one.copied().ok_or_else(|| Trouble::new("resolve", format!("{} has no address", place.0)))
}

/// What a lost connection is called.
pub(super) fn trouble(error: &ConnectionError) -> Trouble {
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
    let words = match reason {
        "timeout" => "nothing was heard in time".to_owned(),
        "closed" => "it took leave".to_owned(),
        "refused" => "it is full".to_owned(),
        "protocol" => format!("something else than liveqos answers there, or another version: {error}"),
        "certificate" if matches!(error, ConnectionError::TransportError(_)) => {
            format!("its certificate is not believed (paths.tls.ca, server_name): {error}")
        }
        "certificate" => format!("it does not believe this node's certificate (paths.tls.cert): {error}"),
        _ => error.to_string(),
    };
    Trouble::new(reason, words)
}

/// Longest wait for a name.
const RESOLVE: Duration = Duration::from_secs(3);
/// Longest wait for a connection.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// RFC 9000 20.1.
const CONNECTION_REFUSED: u64 = 2;
/// The alert `no_application_protocol` as an error of QUIC (RFC 9001 4.8).
const NO_PROTOCOL: u64 = 0x100 + 120;
/// Alerts about certificates (RFC 8446 6.2): from `bad_certificate` to `unknown_ca`, `access_denied`, `decrypt_error`
/// (an authority of the same name signed it), `certificate_required`.
const CERTIFICATE_ALERTS: [u64; 9] = [0x12a, 0x12b, 0x12c, 0x12d, 0x12e, 0x130, 0x131, 0x133, 0x174];
