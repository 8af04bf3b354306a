//! The bytes of a netlink `sock_diag` dump: the request to the kernel and its answer (`sock_diag(7)`). Parses by offset
//! and length, so that the shorter `tcp_info` of an older kernel gives fewer values; a length that exceeds the buffer
//! is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use liveqos_core::connection::TcpReading;

/// Whether a dump continues after a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More datagrams of the same dump follow.
    More,
    /// The kernel ended the dump (`NLMSG_DONE`).
    Done,
}

/// Why a datagram of a dump could not be parsed. Readings from before the fault are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A message is longer than the rest of the datagram, or shorter than its own header.
    #[error("reading a sock_diag message at byte {offset}: length {length} does not fit the {left} bytes left")]
    Length {
        /// Where the message or attribute begins, in bytes from the start of the datagram.
        offset: usize,
        /// The length in the message.
        length: usize,
        /// The bytes left in the datagram.
        left: usize,
    },
    /// The kernel refused the dump (`NLMSG_ERROR`, or an error in `NLMSG_DONE`).
    #[error("dumping tcp sockets: the kernel answered error number {errno}")]
    Kernel {
        /// The error number, positive, as in `errno.h`.
        errno: i32,
    },
    /// The kernel lost a part of the answer (`NLMSG_OVERRUN`).
    #[error("dumping tcp sockets: the kernel reports an overrun")]
    Overrun,
}

/// Parses one datagram of a dump of TCP sockets and appends a reading for each socket.
///
/// # Errors
/// [`ParseError`] if a length does not fit or the kernel reports a failure; never panics.
pub fn parse(datagram: &[u8], out: &mut Vec<TcpReading>) -> Result<Step, ParseError> {
    parse_each(datagram, |reading| out.push(reading))
}

/// As [`parse`], but passes each reading to `take` instead of storing it.
///
/// # Errors
/// As [`parse`].
pub fn parse_each(datagram: &[u8], mut take: impl FnMut(TcpReading)) -> Result<Step, ParseError> {
    let mut offset = 0;
    while let Some(rest) = datagram.get(offset..).filter(|rest| !rest.is_empty()) {
        let length = u32_at(rest, 0).map_or(rest.len(), |length| length as usize);
        let message = rest.get(..length).filter(|message| message.len() >= NLMSG_HEAD);
        let message = message.ok_or(ParseError::Length { offset, length, left: rest.len() })?;
        let body = message.get(NLMSG_HEAD..).unwrap_or_default();
        match u16_at(message, 4).unwrap_or_default() {
            NLMSG_DONE => return finished(body),
            NLMSG_ERROR => return Err(ParseError::Kernel { errno: errno(body) }),
            NLMSG_OVERRUN => return Err(ParseError::Overrun),
            SOCK_DIAG_BY_FAMILY => {
                if let Some(reading) = socket(body, offset + NLMSG_HEAD)? {
                    take(reading);
                }
            }
            _ => {}
        }
        offset = offset.saturating_add(aligned(length));
    }
    Ok(Step::More)
}

/// The address family of a dump; the kernel answers for one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`: also the IPv4 peers of a listener that accepts both, as mapped addresses.
    V6,
}

/// Writes the request for all established TCP sockets of `family` whose local port is one of `ports`, with `tcp_info`,
/// into `out` (emptied first). With more than [`MAX_FILTER_PORTS`] ports it requests all sockets and the caller
/// filters.
pub fn write_request(family: Family, ports: &[u16], sequence: u32, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    let family = if family == Family::V4 { AF_INET } else { AF_INET6 };
    out.extend_from_slice(&[family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    out.extend_from_slice(&(1_u32 << TCP_ESTABLISHED).to_ne_bytes());
    out.extend_from_slice(&[0; SOCKET_ID]);
    if ports.len() <= MAX_FILTER_PORTS {
        write_port_filter(ports, out);
    }
    let length = out.len() as u32;
    out[..4].copy_from_slice(&length.to_ne_bytes());
}

/// The most local ports in one kernel filter. With more of them the dump is not filtered in the kernel, which costs
/// time but loses nothing: the reader drops and counts other ports.
pub const MAX_FILTER_PORTS: usize = 128;

/// Appends the filter program `sport == a || sport == b …` (`INET_DIAG_REQ_BYTECODE`). Each port takes two comparisons,
/// because a single one for equality exists only since Linux 5.9. A comparison that fails jumps to the next port or, in
/// the last block, four bytes past the end, which rejects; one that succeeds continues to a jump to the end, which
/// accepts.
fn write_port_filter(ports: &[u16], out: &mut Vec<u8>) {
    let Some(blocks_after_first) = ports.len().checked_sub(1) else {
        return;
    };
    let program = ports.len() * PORT_BLOCK - BYTECODE_OP;
    out.extend_from_slice(&((ATTRIBUTE_HEAD + program) as u16).to_ne_bytes());
    out.extend_from_slice(&INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    let mut op = |code: u8, yes: usize, no: usize| {
        out.extend_from_slice(&[code, yes as u8]);
        out.extend_from_slice(&(no as u16).to_ne_bytes());
    };
    for (index, port) in ports.iter().enumerate() {
        op(INET_DIAG_BC_S_GE, 2 * BYTECODE_OP, PORT_BLOCK);
        op(0, 0, usize::from(*port));
        op(INET_DIAG_BC_S_LE, 2 * BYTECODE_OP, PORT_BLOCK - 2 * BYTECODE_OP);
        op(0, 0, usize::from(*port));
        let blocks_after = blocks_after_first - index;
        if blocks_after > 0 {
            op(INET_DIAG_BC_JMP, BYTECODE_OP, blocks_after * PORT_BLOCK);
        }
    }
}

/// Parses one `struct inet_diag_msg` and its attributes; `None` for a family without IP addresses.
fn socket(body: &[u8], offset: usize) -> Result<Option<TcpReading>, ParseError> {
    let short = ParseError::Length { offset, length: INET_DIAG_MSG, left: body.len() };
    let head = body.get(..INET_DIAG_MSG).ok_or(short)?;
    let Some((local, peer)) = ends(head) else {
        return Ok(None);
    };
    let cookie =
        u64::from(u32_at(head, 44).unwrap_or_default()) | u64::from(u32_at(head, 48).unwrap_or_default()) << 32;
    let mut reading = TcpReading::bare(local, peer, cookie);
    reading.rqueue_bytes = u32_at(head, 56).unwrap_or_default();
    reading.wqueue_bytes = u32_at(head, 60).unwrap_or_default();
    reading.inode = u32_at(head, 68).unwrap_or_default();

    let mut at = INET_DIAG_MSG;
    while let Some(rest) = body.get(at..).filter(|rest| rest.len() >= ATTRIBUTE_HEAD) {
        let length = usize::from(u16_at(rest, 0).unwrap_or_default());
        let attribute = rest.get(..length).filter(|attribute| attribute.len() >= ATTRIBUTE_HEAD);
        let attribute = attribute.ok_or(ParseError::Length { offset: offset + at, length, left: rest.len() })?;
        if u16_at(attribute, 2).unwrap_or_default() & NLA_TYPE_MASK == u16::from(INET_DIAG_INFO) {
            tcp_info(attribute.get(ATTRIBUTE_HEAD..).unwrap_or_default(), &mut reading);
        }
        at += aligned(length);
    }
    Ok(Some(reading))
}

/// Both ends of `struct inet_diag_msg`; ports and addresses are in network order.
fn ends(head: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let family = *head.first()?;
    let address = |at: usize| -> Option<IpAddr> {
        match family {
            AF_INET => Some(IpAddr::V4(Ipv4Addr::from(bytes_at::<4>(head, at)?))),
            AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes_at::<16>(head, at)?)).to_canonical()),
            _ => None,
        }
    };
    let port = |at: usize| bytes_at::<2>(head, at).map(u16::from_be_bytes);
    Some((SocketAddr::new(address(8)?, port(4)?), SocketAddr::new(address(24)?, port(6)?)))
}

/// Reads the fields of `struct tcp_info` that are present; offsets are those of `linux/tcp.h`, which only ever grows at
/// its end.
fn tcp_info(info: &[u8], reading: &mut TcpReading) {
    let micros_u32 = |at| u32_at(info, at).map(|value| Duration::from_micros(u64::from(value)));
    let millis = |at| u32_at(info, at).map(|value| Duration::from_millis(u64::from(value)));
    let micros = |at| u64_at(info, at).map(Duration::from_micros);
    reading.unacked_segments = u32_at(info, 24);
    reading.last_data_sent = millis(44);
    reading.last_ack_received = millis(56);
    reading.rtt = micros_u32(68).filter(|rtt| !rtt.is_zero());
    reading.retransmitted_segments = u32_at(info, 100);
    reading.bytes_acked = u64_at(info, 120);
    reading.bytes_received = u64_at(info, 128);
    reading.notsent_bytes = u32_at(info, 144);
    reading.min_rtt = micros_u32(148).filter(|rtt| *rtt != NO_MIN_RTT && !rtt.is_zero());
    reading.data_segments_sent = u32_at(info, 156);
    reading.delivery_bytes_per_second = u64_at(info, 160).filter(|rate| *rate > 0);
    reading.app_limited = u64_at(info, 160).and(info.get(7)).map(|flags| flags & APP_LIMITED != 0);
    reading.busy = micros(168);
    reading.rwnd_limited = micros(176);
    reading.sndbuf_limited = micros(184);
    reading.bytes_sent = u64_at(info, 200);
    reading.bytes_retransmitted = u64_at(info, 208);
    reading.dsack_segments = u32_at(info, 216);
    reading.send_window_bytes = u32_at(info, 228);
}

fn finished(body: &[u8]) -> Result<Step, ParseError> {
    match errno(body) {
        0 => Ok(Step::Done),
        errno => Err(ParseError::Kernel { errno }),
    }
}

/// The error number in `NLMSG_ERROR` and `NLMSG_DONE`, which the kernel sends negative; 0 if there is none.
fn errno(body: &[u8]) -> i32 {
    bytes_at::<4>(body, 0).map_or(0, i32::from_ne_bytes).saturating_neg()
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_ne_bytes)
}

/// Messages and attributes begin at multiples of four bytes (`NLMSG_ALIGN`, `NLA_ALIGN`).
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// Bytes of `struct nlmsghdr`: length, type, flags, sequence, port.
const NLMSG_HEAD: usize = 16;
/// Bytes of `struct inet_diag_msg`.
const INET_DIAG_MSG: usize = 72;
/// Bytes of `struct inet_diag_sockid`.
const SOCKET_ID: usize = 48;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEAD: usize = 4;
/// The bits of an attribute's type that are not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Bytes of `struct inet_diag_bc_op`.
const BYTECODE_OP: usize = 4;
/// Bytes of the filter for one port: two comparisons with their argument and a jump.
const PORT_BLOCK: usize = 5 * BYTECODE_OP;
/// `tcpi_min_rtt` before any measurement.
const NO_MIN_RTT: Duration = Duration::from_micros(u32::MAX as u64);

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
const INET_DIAG_INFO: u8 = 2;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;
/// The lowest bit of byte 7: `tcpi_delivery_rate_app_limited`, as compilers for little-endian machines lay bit fields
/// out.
#[cfg(target_endian = "little")]
const APP_LIMITED: u8 = 0x01;
/// The highest bit of byte 7: `tcpi_delivery_rate_app_limited`, as compilers for big-endian machines lay bit fields
/// out.
#[cfg(target_endian = "big")]
const APP_LIMITED: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: &[u8] = include_bytes!("fixtures/v4.bin");
    const V6: &[u8] = include_bytes!("fixtures/v6.bin");

    fn read(bytes: &[u8]) -> (Result<Step, ParseError>, Vec<TcpReading>) {
        let mut out = Vec::new();
        (parse(bytes, &mut out), out)
    }

    /// One message of `kind` with `body`.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((NLMSG_HEAD + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    /// The first socket of a saved dump, as from a kernel whose `tcp_info` has `info` bytes.
    fn with_info(info: usize) -> Vec<u8> {
        let head = &V4[NLMSG_HEAD..NLMSG_HEAD + INET_DIAG_MSG];
        let mut at = NLMSG_HEAD + INET_DIAG_MSG;
        while V4[at + 2] != INET_DIAG_INFO {
            at += aligned(usize::from(u16_at(V4, at).unwrap()));
        }
        let mut body = head.to_vec();
        body.extend_from_slice(&((ATTRIBUTE_HEAD + info) as u16).to_ne_bytes());
        body.extend_from_slice(&u16::from(INET_DIAG_INFO).to_ne_bytes());
        body.extend_from_slice(&V4[at + ATTRIBUTE_HEAD..at + ATTRIBUTE_HEAD + info]);
        message(SOCK_DIAG_BY_FAMILY, &body)
    }

    #[test]
    fn a_saved_dump_is_parsed_completely() {
        let (step, sockets) = read(V4);
        assert_eq!((step, sockets.len()), (Ok(Step::Done), 2));
        let [reader, stalled] = sockets.try_into().unwrap();
        assert_eq!(
            (reader.local, reader.peer),
            ("127.0.0.1:19350".parse().unwrap(), "127.0.0.1:56638".parse().unwrap())
        );
        assert_eq!((reader.identity, reader.inode, reader.rtt), (1, 36637, Some(Duration::from_micros(17))));
        assert_eq!(
            (reader.bytes_acked, reader.bytes_received, reader.bytes_sent),
            (Some(20_000), Some(300), Some(20_000))
        );
        assert_eq!((reader.min_rtt, reader.app_limited), (Some(Duration::from_micros(5)), Some(true)));
        assert_eq!((reader.wqueue_bytes, reader.notsent_bytes, reader.send_window_bytes), (0, Some(0), Some(106_496)));
        assert_eq!((stalled.wqueue_bytes, stalled.notsent_bytes), (3_916_560, Some(3_850_752)));
        assert_eq!(stalled.bytes_sent.unwrap() - stalled.bytes_acked.unwrap() + 3_850_752, 3_916_560);
        assert_eq!((stalled.unacked_segments, stalled.data_segments_sent), (Some(2), Some(5)));
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let (step, sockets) = read(V6);
        assert_eq!(step, Ok(Step::Done));
        let peers: Vec<IpAddr> = sockets.iter().map(|socket| socket.peer.ip()).collect();
        assert_eq!(peers, [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert!(sockets[1].local.is_ipv4());
    }

    #[test]
    fn a_dump_cut_anywhere_is_an_error_or_a_shorter_list() {
        for dump in [V4, V6] {
            let (_, whole) = read(dump);
            for length in 0..dump.len() {
                let (step, sockets) = read(&dump[..length]);
                assert!(whole.starts_with(&sockets), "cut at {length}");
                assert!(sockets.len() < whole.len() || step != Ok(Step::Done), "cut at {length}");
            }
        }
    }

    #[test]
    fn an_older_kernel_gives_fewer_values() {
        let parsed = |info: usize| {
            let (step, sockets) = read(&with_info(info));
            assert_eq!(step, Ok(Step::More));
            sockets[0]
        };
        let centos_7 = parsed(104);
        assert!(centos_7.rtt.is_some() && centos_7.retransmitted_segments.is_some());
        assert!(centos_7.bytes_acked.is_none() && centos_7.app_limited.is_none() && centos_7.min_rtt.is_none());
        let debian_9 = parsed(168);
        assert!(debian_9.delivery_bytes_per_second.is_some() && debian_9.app_limited.is_some());
        assert!(debian_9.busy.is_none() && debian_9.segment_totals().is_none());
        let debian_10 = parsed(224);
        assert!(debian_10.segment_totals().is_some() && debian_10.send_window_bytes.is_none());
        let bare = parsed(0);
        assert_eq!(bare, TcpReading { inode: bare.inode, ..TcpReading::bare(bare.local, bare.peer, bare.identity) });
    }

    #[test]
    fn a_refused_dump_is_an_error() {
        let error = |errno: i32| message(NLMSG_ERROR, &errno.to_ne_bytes());
        assert_eq!(read(&error(-1)).0, Err(ParseError::Kernel { errno: 1 }));
        assert_eq!(read(&error(i32::MIN)).0, Err(ParseError::Kernel { errno: i32::MAX }));
        assert_eq!(read(&message(NLMSG_DONE, &(-22_i32).to_ne_bytes())).0, Err(ParseError::Kernel { errno: 22 }));
        assert_eq!(read(&message(NLMSG_DONE, &0_i32.to_ne_bytes())).0, Ok(Step::Done));
        assert_eq!(read(&message(NLMSG_OVERRUN, &[])).0, Err(ParseError::Overrun));
        assert_eq!(read(&[]).0, Ok(Step::More));
    }

    /// Runs a filter program as `inet_diag_bc_run` of `net/ipv4/inet_diag.c` does.
    fn accepts(program: &[u8], port: u16) -> bool {
        let (mut at, mut left) = (0_usize, program.len().cast_signed());
        while left > 0 {
            let argument = || u16_at(program, at + 6).unwrap();
            let holds = match program[at] {
                INET_DIAG_BC_JMP => false,
                INET_DIAG_BC_S_GE => port >= argument(),
                INET_DIAG_BC_S_LE => port <= argument(),
                code => panic!("unknown operation {code}"),
            };
            let jump = if holds { usize::from(program[at + 1]) } else { usize::from(u16_at(program, at + 2).unwrap()) };
            assert!(jump >= BYTECODE_OP && jump % 4 == 0 && jump.cast_signed() <= left + 4);
            at += jump;
            left -= jump.cast_signed();
        }
        left == 0
    }

    const PROGRAM: usize = NLMSG_HEAD + 56 + ATTRIBUTE_HEAD;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _step = read(&bytes);
        }

        #[test]
        fn a_damaged_dump_never_panics_and_invents_no_socket(
            damage in proptest::collection::vec((0..V4.len(), any::<u8>()), 1..8),
        ) {
            let mut dump = V4.to_vec();
            for (at, byte) in damage {
                dump[at] = byte;
            }
            prop_assert!(read(&dump).1.len() <= dump.len() / (NLMSG_HEAD + INET_DIAG_MSG));
        }

        #[test]
        fn the_filter_accepts_the_wanted_ports_alone(
            ports in proptest::collection::vec(any::<u16>(), 1..=MAX_FILTER_PORTS), other in any::<u16>(),
        ) {
            let mut request = Vec::new();
            write_request(Family::V4, &ports, 7, &mut request);
            prop_assert_eq!(u32_at(&request, 0), Some(request.len() as u32));
            for port in ports.iter().copied().chain([other, 0, u16::MAX]) {
                prop_assert_eq!(accepts(&request[PROGRAM..], port), ports.contains(&port));
            }
        }
    }

    #[test]
    fn too_many_ports_omit_the_filter() {
        let mut request = Vec::new();
        write_request(Family::V6, &[1; MAX_FILTER_PORTS + 1], 7, &mut request);
        assert_eq!(request.len(), NLMSG_HEAD + 56);
    }
}
