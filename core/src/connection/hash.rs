//! The keyed hash by which a log line and a socket are matched to the same TCP connection.

use std::net::{IpAddr, SocketAddr};

use crate::base::keyed_hash::sip_hash;

/// The keyed hash that stands for a connection, so that neither address nor port is kept. `server_port` is 0 where the
/// log does not contain it.
#[must_use]
pub(crate) fn connection_hash(key: [u64; 2], peer: SocketAddr, server_port: u16) -> u64 {
    let ports = (u32::from(peer.port()) << 16 | u32::from(server_port)).to_be_bytes();
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => sip_hash(key, &[&address.octets(), &ports]),
        IpAddr::V6(address) => sip_hash(key, &[&address.octets(), &ports]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_same_connection_and_a_port_is_not() {
        let hash = |peer: &str, port| connection_hash([1, 2], peer.parse().expect("an address"), port);
        assert_eq!(hash("10.0.0.9:1000", 80), hash("[::ffff:10.0.0.9]:1000", 80));
        assert_ne!(hash("10.0.0.9:1000", 80), hash("10.0.0.9:1001", 80));
        assert_ne!(hash("10.0.0.9:1000", 80), hash("10.0.0.9:1000", 443));
        assert_ne!(hash("10.0.0.9:1000", 80), connection_hash([1, 3], "10.0.0.9:1000".parse().expect("it"), 80));
    }
}
