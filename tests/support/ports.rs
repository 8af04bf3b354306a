//! Ports for programs that cannot be asked which port they were given (nginx, Prometheus, Alertmanager), and addresses
//! that refuse connections. A daemon under test binds port 0 and logs its address instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};

use socket2::{Domain, Socket, Type};

/// Any free port of 127.0.0.1.
pub const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A TCP port of 127.0.0.1 that the kernel gives to nobody else while this lives.
///
/// A socket is bound to it with `SO_REUSEADDR` and never listens (socket(7)): a program that sets the option too, as
/// nginx, Go's net and tokio do, can listen on the port; without one, connections are refused; and neither a bind to
/// port 0 nor an outgoing connection is given it.
#[derive(Debug)]
pub struct ReservedPort {
    socket: Socket,
}

impl ReservedPort {
    /// Reserves one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each is another port")]
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&LOOPBACK.into()).unwrap();
        Self { socket }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.address().port()
    }
}

/// A UDP address for a program under test, on a loopback address of this process's own (127.0.0.0/8).
///
/// It is not held, since a UDP socket shares its port with nobody; but a socket elsewhere would have to bind the same
/// address, or all addresses and by chance this port, to be in its way.
#[must_use]
pub fn udp_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let own = Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed));
    UdpSocket::bind((own, 0)).unwrap().local_addr().unwrap()
}

#[test]
fn a_reserved_port_refuses_until_somebody_listens_on_it() {
    use std::net::TcpListener;
    let port = ReservedPort::new();
    assert!(std::net::TcpStream::connect(port.address()).is_err(), "nobody listens");
    // The standard library sets SO_REUSEADDR on Unix.
    let listener = TcpListener::bind(port.address()).unwrap();
    std::net::TcpStream::connect(port.address()).unwrap();
    drop(listener);
    assert!(std::net::TcpStream::connect(port.address()).is_err(), "nobody listens any more");
    let others: Vec<_> = (0..200).map(|_| TcpListener::bind(LOOPBACK).unwrap()).collect();
    assert!(others.iter().all(|other| other.local_addr().unwrap() != port.address()));
}
