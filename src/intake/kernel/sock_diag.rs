//! Dumps the established TCP sockets of this node by netlink `sock_diag`. Limits the time of a dump and the number of
//! sockets that are kept. Every call may block up to [`READ_TIMEOUT`], so it must not run on an async worker.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use liveqos_core::connection::TcpReading;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

use super::diag_message::{Family, ParseError, Step, parse_each, write_request};

/// A netlink socket with its buffers, kept from dump to dump. Needs no privilege and sees only its own network
/// namespace.
pub struct Dump {
    /// `None` after a failure: the next dump opens a new socket, so that a late answer is not taken for a new one.
    socket: Option<Socket>,
    request: Vec<u8>,
    buffer: Box<[u8]>,
    sequence: u32,
}

/// The result of one dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpStats {
    /// Sockets returned.
    pub sockets: usize,
    /// Sockets on the requested ports that were dropped because of [`MAX_SOCKETS`].
    pub cut: u64,
    /// Sockets on other ports, which the kernel sends when more than
    /// [`MAX_FILTER_PORTS`](super::diag_message::MAX_FILTER_PORTS) ports are requested.
    pub other_ports: u64,
    /// Datagrams read.
    pub datagrams: u64,
}

/// Why a dump failed. The sockets from before the failure are in the caller's list.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// No netlink socket: forbidden by a sandbox, or no file descriptor left.
    #[error("opening a sock_diag socket: {0}")]
    Open(#[source] io::Error),
    /// The request could not be sent.
    #[error("requesting {family:?} tcp sockets from the kernel: {source}")]
    Ask {
        /// The family being dumped.
        family: Family,
        /// The system's error.
        source: io::Error,
    },
    /// No answer within [`READ_TIMEOUT`], or reading failed.
    #[error("reading {family:?} tcp sockets from the kernel: {source}")]
    Answer {
        /// The family being dumped.
        family: Family,
        /// The system's error.
        source: io::Error,
    },
    /// The answer could not be parsed, or reports that the dump was refused.
    #[error("reading {family:?} tcp sockets from the kernel: {source}")]
    Parse {
        /// The family being dumped.
        family: Family,
        /// Where parsing stopped.
        source: ParseError,
    },
    /// The kernel sent more than [`MAX_DATAGRAMS`] without an end.
    #[error("reading {family:?} tcp sockets from the kernel: no end after {MAX_DATAGRAMS} datagrams")]
    Endless {
        /// The family being dumped.
        family: Family,
    },
}

impl Dump {
    /// Opens the socket to the kernel.
    ///
    /// # Errors
    /// [`DumpError::Open`] when the kernel gives no netlink socket.
    pub fn open() -> Result<Self, DumpError> {
        let buffer = vec![0; DATAGRAM_BYTES].into_boxed_slice();
        Ok(Self { socket: Some(connect().map_err(DumpError::Open)?), request: Vec::new(), buffer, sequence: 0 })
    }

    /// Fills `out` (emptied first) with the established TCP sockets, IPv4 and IPv6, whose local port is one of `ports`.
    /// Without any port it requests nothing. A socket can occur twice if connections open and close during the dump.
    /// Blocks up to [`READ_TIMEOUT`] per datagram: do not call it on an async worker.
    ///
    /// # Errors
    /// [`DumpError`]; the next call opens a new socket.
    pub fn read(&mut self, ports: &[u16], out: &mut Vec<TcpReading>) -> Result<DumpStats, DumpError> {
        out.clear();
        let mut stats = DumpStats::default();
        if ports.is_empty() {
            return Ok(stats);
        }
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect().map_err(DumpError::Open)?,
        };
        for family in [Family::V4, Family::V6] {
            self.sequence = self.sequence.wrapping_add(1);
            write_request(family, ports, self.sequence, &mut self.request);
            socket
                .send_to(&self.request, &SocketAddr::new(KERNEL, 0), 0)
                .map_err(|source| DumpError::Ask { family, source })?;
            stats.datagrams += read_family(&socket, family, &mut self.buffer, |reading| match out.len() {
                _ if !ports.contains(&reading.local.port()) => stats.other_ports += 1,
                MAX_SOCKETS.. => stats.cut += 1,
                _ => out.push(reading),
            })?;
        }
        stats.sockets = out.len();
        self.socket = Some(socket);
        Ok(stats)
    }
}

/// Reads the kernel's answer for one family to its end and returns the number of datagrams.
fn read_family(
    socket: &Socket,
    family: Family,
    buffer: &mut [u8],
    mut take: impl FnMut(TcpReading),
) -> Result<u64, DumpError> {
    for datagram in 1..=MAX_DATAGRAMS {
        let mut room = &mut buffer[..];
        let (length, sender) = socket.recv_from(&mut room, 0).map_err(|source| DumpError::Answer { family, source })?;
        if sender.port_number() != KERNEL {
            continue;
        }
        match parse_each(buffer.get(..length).unwrap_or_default(), &mut take) {
            Ok(Step::More) => {}
            Ok(Step::Done) => return Ok(datagram),
            Err(ParseError::Kernel { errno: ENOENT }) if family == Family::V6 => return Ok(datagram),
            Err(source) => return Err(DumpError::Parse { family, source }),
        }
    }
    Err(DumpError::Endless { family })
}

/// A bound socket whose reads end after [`READ_TIMEOUT`]. `SO_RCVTIMEO` belongs to the socket, not to the descriptor,
/// so the standard library's setter on a short-lived duplicate sets it without unsafe code.
fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    UnixDatagram::from(socket.as_fd().try_clone_to_owned()?).set_read_timeout(Some(READ_TIMEOUT))?;
    Ok(socket)
}

/// The most sockets that one dump returns: twice what the largest node serves. The rest is counted in
/// [`DumpStats::cut`].
pub(super) const MAX_SOCKETS: usize = 200_000;

/// Time limit of one datagram of the kernel's answer.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The most datagrams of one family. Each carries at least one socket, so this bounds a dump that would never end.
pub(super) const MAX_DATAGRAMS: u64 = 1_000_000;

/// Size of the buffer for one datagram; the kernel fills at most 32 KiB (`netlink_recvmsg` in
/// `net/netlink/af_netlink.c`).
const DATAGRAM_BYTES: usize = 64 * 1024;
/// The kernel's own netlink port; datagrams from others are ignored.
const KERNEL: u32 = 0;
/// The answer of a kernel without IPv6 to the second half of the dump.
const ENOENT: i32 = 2;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::intake::kernel::diag_message::MAX_FILTER_PORTS;

    fn connections(listener: &TcpListener, count: usize) -> Vec<(TcpStream, TcpStream)> {
        let address = listener.local_addr().unwrap();
        (0..count).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).collect()
    }

    #[test]
    fn a_few_hundred_sockets_are_counted_exactly() {
        let (plain, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        // A host without IPv6 also has 350 sockets to count.
        let dual = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
        let dual_port = dual.local_addr().unwrap().port();
        let mapped: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(("127.0.0.1", dual_port)).unwrap()).collect();
        let (held, _held_other) = (connections(&plain, 300), connections(&other, 20));
        let ports = [plain.local_addr().unwrap().port(), dual_port];

        let (mut dump, mut sockets) = (Dump::open().unwrap(), Vec::new());
        let stats = dump.read(&ports, &mut sockets).unwrap();
        assert_eq!(stats, DumpStats { sockets: 350, cut: 0, other_ports: 0, datagrams: stats.datagrams });
        assert!(stats.datagrams > 4, "350 sockets do not fit into one datagram a family");

        let peers: HashSet<_> = sockets.iter().map(|socket| socket.peer).collect();
        let wanted = held.iter().map(|(client, _)| client).chain(&mapped).map(|client| client.local_addr().unwrap());
        assert_eq!(peers, wanted.collect::<HashSet<_>>(), "each client is there, IPv4 even where the listener is IPv6");
        let before: HashSet<u64> = sockets.iter().map(|socket| socket.identity).collect();
        assert_eq!(before.len(), 350);

        dump.read(&ports, &mut sockets).unwrap();
        assert_eq!(
            before,
            sockets.iter().map(|socket| socket.identity).collect::<HashSet<_>>(),
            "identities stay from dump to dump"
        );
    }

    #[test]
    fn many_ports_are_filtered_in_the_reader() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _held = connections(&listener, 3);
        let mut ports = vec![1; MAX_FILTER_PORTS];
        ports.push(listener.local_addr().unwrap().port());
        let (mut dump, mut sockets) = (Dump::open().unwrap(), Vec::new());
        let stats = dump.read(&ports, &mut sockets).unwrap();
        assert_eq!(stats.sockets, 3);
        assert!(stats.other_ports >= 3, "the clients' own ends are sent by the kernel and dropped here");
    }

    #[test]
    fn no_port_finds_nothing_and_a_failed_dump_is_repeated() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _held = connections(&listener, 2);
        let (mut dump, mut sockets) = (Dump::open().unwrap(), Vec::new());
        assert_eq!(dump.read(&[], &mut sockets).unwrap(), DumpStats::default());
        dump.socket = None;
        let stats = dump.read(&[listener.local_addr().unwrap().port()], &mut sockets).unwrap();
        assert_eq!((stats.sockets, sockets.len()), (2, 2));
    }

    #[test]
    fn a_read_without_an_answer_ends() {
        let failure = connect().unwrap().recv_from(&mut &mut [0_u8; 64][..], 0).unwrap_err();
        assert_eq!(failure.kind(), io::ErrorKind::WouldBlock);
    }
}
