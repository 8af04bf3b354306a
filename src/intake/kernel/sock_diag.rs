//! One dump of the established TCP sockets of this node by netlink `sock_diag`. Decides how the kernel is asked, how
//! long it may take and how many sockets are kept; refuses to run on an async worker: every call may block up to
//! [`READ_TIMEOUT`].

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use liveqos_core::connection::TcpReading;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

use super::diag_message::{Family, ParseError, Step, parse_each, write_request};

/// A netlink socket with its buffers, kept from dump to dump. Needs no privilege; sees its own network namespace only.
pub struct Dump {
    /// `None` after a failure: the next dump begins with a fresh socket, so that no late answer is taken for a new one.
    socket: Option<Socket>,
    request: Vec<u8>,
    buffer: Box<[u8]>,
    sequence: u32,
}

/// What one dump did and what its bounds cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpStats {
    /// Sockets handed out.
    pub sockets: usize,
    /// Sockets on the wanted ports that were left out because [`MAX_SOCKETS`] were there already.
    pub cut: u64,
    /// Sockets on other ports that the kernel sent all the same: more than
    /// [`MAX_FILTER_PORTS`](super::diag_message::MAX_FILTER_PORTS) ports were wanted.
    pub other_ports: u64,
    /// Datagrams read.
    pub datagrams: u64,
}

/// Why a dump failed. The sockets found before the failure are in the caller's list all the same.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// No netlink socket to the kernel: a sandbox that forbids it, or no file descriptor left.
    #[error("opening a sock_diag socket: {0}")]
    Open(#[source] io::Error),
    /// The request could not be sent.
    #[error("asking the kernel for {family:?} tcp sockets: {source}")]
    Ask {
        /// Which half of the dump.
        family: Family,
        /// What the kernel answered to the call.
        source: io::Error,
    },
    /// No answer within [`READ_TIMEOUT`], or reading failed.
    #[error("reading {family:?} tcp sockets from the kernel: {source}")]
    Answer {
        /// Which half of the dump.
        family: Family,
        /// What the kernel answered to the call.
        source: io::Error,
    },
    /// The answer could not be read or says that the dump was refused.
    #[error("reading {family:?} tcp sockets from the kernel: {source}")]
    Parse {
        /// Which half of the dump.
        family: Family,
        /// Where reading stopped.
        source: ParseError,
    },
    /// The kernel went on past [`MAX_DATAGRAMS`] without an end.
    #[error("reading {family:?} tcp sockets from the kernel: no end after {MAX_DATAGRAMS} datagrams")]
    Endless {
        /// Which half of the dump.
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
    /// An empty list of ports asks nothing and finds nothing. A socket can appear twice when connections come and go
    /// during the dump. Blocks up to [`READ_TIMEOUT`] a datagram: call it off the async workers.
    ///
    /// # Errors
    /// [`DumpError`]; the next call starts afresh.
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

/// Reads the kernel's answer for one family to its end; gives the number of datagrams it took.
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

/// The most sockets one dump keeps: twice what the largest node serves. The rest is counted in [`DumpStats::cut`].
pub(super) const MAX_SOCKETS: usize = 200_000;

/// How long one datagram of the kernel's answer may take before the dump is given up.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The most datagrams read for one family: each carries at least one socket, so this bounds a dump that would never
/// end.
pub(super) const MAX_DATAGRAMS: u64 = 1_000_000;

/// Room for one datagram; the kernel fills at most 32 KiB (`netlink_recvmsg` in `net/netlink/af_netlink.c`).
const DATAGRAM_BYTES: usize = 64 * 1024;
/// The netlink port of the kernel itself; others may not speak for it.
const KERNEL: u32 = 0;
/// What a kernel without IPv6 answers to the second half of the dump.
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
        // A host without IPv6 has all the same 350 sockets to count.
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
    fn many_ports_are_filtered_here() {
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
    fn no_port_finds_nothing_and_a_failed_dump_starts_afresh() {
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
