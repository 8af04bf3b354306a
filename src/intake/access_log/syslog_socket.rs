//! Receives access log lines as syslog datagrams over UDP or a Unix socket. Decides whose datagrams are accepted and
//! counts what the kernel dropped. The socket is read without pause, so that a web server never waits for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use liveqos_core::access_log::MAX_LINE;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::time::Instant;

use crate::platform::cidr::Networks;

/// The address of a socket: `udp://127.0.0.1:5514` or `unix:/run/liveqos/access.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A UDP port.
    Udp(SocketAddr),
    /// A Unix datagram socket.
    Unix(PathBuf),
}

/// A bound socket.
#[derive(Debug)]
pub(crate) struct SyslogSocket {
    socket: BoundSocket,
    senders: Networks,
    buffer: Vec<u8>,
    /// The socket's inode, which is its number in the kernel's tables.
    inode: u64,
    counts: SyslogCounts,
    dropped_read_at: Option<Instant>,
}

/// Datagrams that were not accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SyslogCounts {
    /// Datagrams that the kernel dropped because the buffer was full. Only UDP: the sender of a Unix datagram gets an
    /// error instead.
    pub lost: u64,
    /// Datagrams from untrusted senders.
    pub untrusted_senders: u64,
    /// Datagrams that are not syslog.
    pub form: u64,
    /// Datagrams longer than a line may be.
    pub long: u64,
}

#[derive(Debug)]
enum BoundSocket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl SyslogAddress {
    /// Parses an address; `None` if it has neither form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix("udp://") {
            return address.parse().ok().map(Self::Udp);
        }
        let path = text.strip_prefix("unix:").filter(|path| path.starts_with('/'))?;
        Some(Self::Unix(PathBuf::from(path)))
    }
}

impl SyslogSocket {
    /// Binds `address` and requests a receive buffer of `buffer_bytes` from the kernel. Over UDP only datagrams from
    /// `senders` are accepted; for a Unix socket the folder's permissions decide.
    ///
    /// # Errors
    /// When the address is in use or may not be bound.
    pub(crate) fn bind(address: &SyslogAddress, senders: Networks, buffer_bytes: usize) -> io::Result<Self> {
        let socket = match address {
            SyslogAddress::Udp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, None)?;
                socket.bind(&(*address).into())?;
                BoundSocket::Udp(socket.into())
            }
            SyslogAddress::Unix(path) => {
                remove_stale(path)?;
                let socket = UnixDatagram::bind(path)?;
                // As for /dev/log, whoever may enter the folder may write.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
                BoundSocket::Unix(socket)
            }
        };
        let reference = socket.reference();
        reference.set_recv_buffer_size(buffer_bytes)?;
        reference.set_read_timeout(Some(READ_TIMEOUT))?;
        let granted = reference.recv_buffer_size()?;
        if granted < buffer_bytes {
            tracing::warn!(
                %address,
                "the kernel granted a receive buffer of {granted} bytes instead of {buffer_bytes}; raise net.core.rmem_max"
            );
        }
        let inode = std::fs::metadata(format!("/proc/self/fd/{}", socket.descriptor()))?.ino();
        let (buffer, counts) = (vec![0; MAX_LINE + HEADER_ROOM], SyslogCounts::default());
        Ok(Self { socket, senders, buffer, inode, counts, dropped_read_at: None })
    }

    /// Reads for `span` and passes every line to `take`.
    ///
    /// # Errors
    /// When the socket cannot be read.
    pub(crate) fn read(&mut self, span: Duration, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let until = Instant::now() + span;
        while Instant::now() < until {
            let (length, sender) = match self.socket.receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            if sender.is_some_and(|sender| !self.senders.contain(sender)) {
                self.counts.untrusted_senders += 1;
            } else if length == self.buffer.len() {
                self.counts.long += 1;
            } else if let Some(line) = liveqos_core::access_log::syslog::message(&self.buffer[..length]) {
                take(line);
            } else {
                self.counts.form += 1;
            }
        }
        Ok(())
    }

    /// The counts so far. What the kernel dropped is looked up every few seconds.
    pub(crate) fn counts(&mut self) -> SyslogCounts {
        if self.dropped_read_at.is_none_or(|dropped_read_at| dropped_read_at.elapsed() >= DROP_COUNT_INTERVAL) {
            self.dropped_read_at = Some(Instant::now());
            if matches!(self.socket, BoundSocket::Udp(_)) {
                self.counts.lost = dropped(self.inode).unwrap_or(self.counts.lost);
            }
        }
        self.counts
    }

    /// The UDP port, if it is one.
    #[cfg(test)]
    fn port(&self) -> Option<u16> {
        match &self.socket {
            BoundSocket::Udp(socket) => socket.local_addr().ok().map(|address| address.port()),
            BoundSocket::Unix(_) => None,
        }
    }
}

impl BoundSocket {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<IpAddr>)> {
        match self {
            Self::Udp(socket) => socket.recv_from(buffer).map(|(length, sender)| (length, Some(sender.ip()))),
            Self::Unix(socket) => socket.recv(buffer).map(|length| (length, None)),
        }
    }

    fn reference(&self) -> SockRef<'_> {
        match self {
            Self::Udp(socket) => SockRef::from(socket),
            Self::Unix(socket) => SockRef::from(socket),
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Udp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The default senders: this machine.
#[must_use]
pub(super) fn loopback() -> Vec<String> {
    vec![format!("{}/8", Ipv4Addr::new(127, 0, 0, 0)), "::1".to_owned()]
}

/// Removes the socket file of a killed daemon; one that is still being read stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of this name exists and is not a socket"));
    }
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process reads this socket")),
    }
}

/// The number of datagrams that the kernel dropped for the socket with this inode: the last column of `/proc/net/udp`
/// and `udp6` (`proc_net(5)`).
fn dropped(inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    ["/proc/net/udp", "/proc/net/udp6"].into_iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        let line = text.lines().find(|line| line.split_ascii_whitespace().nth(INODE_COLUMN) == Some(&inode))?;
        line.split_ascii_whitespace().last()?.parse().ok()
    })
}

/// Longest wait for a datagram before the clock is checked again.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
const DROP_COUNT_INTERVAL: Duration = Duration::from_secs(2);
const INODE_COLUMN: usize = 9;
/// Room for a datagram's header, and one byte to detect a longer datagram.
const HEADER_ROOM: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: usize = 1 << 16;

    fn networks(texts: &[&str]) -> Networks {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        Networks::read("from", &texts).expect("good")
    }

    fn lines(socket: &mut SyslogSocket) -> Vec<String> {
        let mut out = Vec::new();
        let taken = socket.read(READ_TIMEOUT, |line| out.push(String::from_utf8_lossy(line).into_owned()));
        taken.expect("readable");
        out
    }

    #[test]
    fn addresses_are_parsed() {
        for text in ["udp://127.0.0.1:5514", "udp://[::1]:5514", "unix:/run/liveqos/access.sock"] {
            assert_eq!(SyslogAddress::parse(text).expect("good").to_string(), text);
        }
        for text in ["", "udp://host:1", "127.0.0.1:1", "unix:relative", "tcp://127.0.0.1:1"] {
            assert_eq!(SyslogAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn trusted_datagrams_are_lines_and_others_are_counted() {
        let address = SyslogAddress::parse("udp://127.0.0.1:0").expect("good");
        let mut socket = SyslogSocket::bind(&address, networks(&["127.0.0.1"]), BUFFER).expect("bound");
        let target = ("127.0.0.1", socket.port().expect("a port"));
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for text in ["<190>Nov 23 15:04:05 nginx: a", "not syslog", "<190>Nov 23 15:04:05 host nginx: b"] {
            sender.send_to(text.as_bytes(), target).expect("sent");
        }
        UdpSocket::bind("127.0.0.2:0").expect("a port").send_to(b"<1>x", target).expect("sent");
        assert_eq!(lines(&mut socket), ["a", "b"]);
        assert_eq!(socket.counts(), SyslogCounts { untrusted_senders: 1, form: 1, ..SyslogCounts::default() });
    }

    #[test]
    fn datagrams_dropped_by_the_kernel_are_counted() {
        let address = SyslogAddress::parse("udp://127.0.0.1:0").expect("good");
        let mut socket = SyslogSocket::bind(&address, networks(&["127.0.0.1"]), 4_096).expect("bound");
        let target = ("127.0.0.1", socket.port().expect("a port"));
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let line = format!("<190>{}", "x".repeat(1_000));
        for _ in 0..200 {
            sender.send_to(line.as_bytes(), target).expect("sent");
        }
        let taken = lines(&mut socket).len() as u64;
        let lost = socket.counts().lost;
        assert!(taken > 0 && lost > 0, "{taken} {lost}");
        assert_eq!(taken + lost, 200);
    }

    #[test]
    fn a_unix_socket_of_a_killed_daemon_is_replaced_but_not_one_in_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.sock");
        let address = SyslogAddress::Unix(path.clone());
        let mut socket = SyslogSocket::bind(&address, Networks::default(), BUFFER).expect("bound");
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(b"<190>Nov 23 15:04:05 nginx: a", &path).expect("anybody may write");
        assert_eq!(lines(&mut socket), ["a"]);
        let again = SyslogSocket::bind(&address, Networks::default(), BUFFER).expect_err("in use");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        SyslogSocket::bind(&address, Networks::default(), BUFFER).expect("its file was left behind");
        std::fs::remove_file(&path).expect("gone");
        std::fs::write(&path, "").expect("a file");
        SyslogSocket::bind(&address, Networks::default(), BUFFER).expect_err("a file that is not a socket");
    }
}
