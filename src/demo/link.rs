//! The network between the node and one viewer: a UDP relay on 127.0.0.1 that can be impaired while it runs. Packets
//! that come from neither end are rejected.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::shaper::{Fate, Impairment, Shaper};

/// Totals of a link since it was opened. `media` is RTP towards the viewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTotals {
    /// Media packets forwarded to the viewer's socket.
    pub media_forwarded: u64,
    /// Media packets lost at random.
    pub media_lost: u64,
    /// Media packets dropped because the queue before the bottleneck was full.
    pub media_overflowed: u64,
    /// Other packets to the viewer (ICE, DTLS, RTCP) that were forwarded.
    pub other_forwarded: u64,
    /// Other packets to the viewer that were dropped for either reason.
    pub other_dropped: u64,
    /// Packets from the viewer that were forwarded.
    pub returned: u64,
    /// Packets from the viewer that were dropped because the queue was full.
    pub return_dropped: u64,
    /// Packets from neither end, or from before the ends were known.
    pub refused: u64,
}

impl LinkTotals {
    /// Media packets that do not reach the viewer.
    #[must_use]
    pub const fn media_dropped(&self) -> u64 {
        self.media_lost + self.media_overflowed
    }
}

/// A running link. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Link {
    address: SocketAddr,
    ends: watch::Sender<Ends>,
    impairment: watch::Sender<Impairment>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Link {
    /// Opens a good link on a free port; `seed` makes later losses reproducible.
    pub(super) async fn open(seed: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let (ends, known_ends) = watch::channel(Ends::default());
        let (impairment, wanted) = watch::channel(Impairment::default());
        let counters = Arc::new(Counters::default());
        let relay = Relay {
            socket,
            ends: known_ends,
            impairment: wanted,
            counters: Arc::clone(&counters),
            down: Shaper::new(seed),
            up: Shaper::new(!seed),
            learned: None,
            refusals: 0,
        };
        Ok(Self { address, ends, impairment, counters, task: tokio::spawn(relay.run()) })
    }

    /// The address to which both ends send.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the viewer's real address.
    pub(super) fn viewer_is(&self, viewer: SocketAddr) {
        self.ends.send_modify(|ends| ends.viewer = Some(viewer));
    }

    /// Takes the first sender that is not the node as the viewer: a browser hides its address until it sends.
    pub(super) fn learn_viewer(&self) {
        self.ends.send_modify(|ends| ends.learn = true);
    }

    /// Sets the node's real address.
    pub(super) fn node_is(&self, node: SocketAddr) {
        self.ends.send_modify(|ends| ends.node = Some(node));
    }

    /// Applies `impairment` to packets that arrive from now on.
    pub(super) fn set(&self, impairment: Impairment) {
        self.impairment.send_replace(impairment);
    }

    /// The totals so far.
    pub(super) fn totals(&self) -> LinkTotals {
        self.counters.read()
    }

    /// Stops the link and waits until it has stopped.
    pub(super) async fn close(mut self) {
        self.task.abort();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::warn!(%error, "demo link failed");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The real addresses of both ends, as far as known.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    node: Option<SocketAddr>,
    viewer: Option<SocketAddr>,
    learn: bool,
}

impl Ends {
    fn viewer(self, learned: Option<SocketAddr>) -> Option<SocketAddr> {
        if self.learn { learned } else { self.viewer }
    }
}

struct Relay {
    socket: UdpSocket,
    ends: watch::Receiver<Ends>,
    impairment: watch::Receiver<Impairment>,
    counters: Arc<Counters>,
    down: Shaper,
    up: Shaper,
    learned: Option<SocketAddr>,
    refusals: u32,
}

impl Relay {
    /// Runs until aborted, or until its socket fails [`MAX_RECEIVE_ERRORS`] times in a row.
    async fn run(mut self) {
        let mut packet = vec![0; MAX_PACKET];
        while self.refusals < MAX_RECEIVE_ERRORS {
            let wake = self.down.next().into_iter().chain(self.up.next()).min();
            tokio::select! {
                came = self.socket.recv_from(&mut packet) => match came {
                    Ok((length, from)) => self.take(packet.get(..length).unwrap_or_default(), from),
                    Err(_) => self.refusals += 1,
                },
                changed = self.impairment.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.apply();
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            }
            self.hand_on().await;
        }
    }

    /// The media direction gets the whole impairment, the direction back only the delay.
    fn apply(&mut self) {
        let impairment = *self.impairment.borrow_and_update();
        let now = Instant::now();
        self.down.set(now, impairment);
        self.up.set(now, Impairment { delay: impairment.delay, ..Impairment::default() });
    }

    fn take(&mut self, packet: &[u8], from: SocketAddr) {
        self.refusals = 0;
        let ends = *self.ends.borrow();
        let now = Instant::now();
        if ends.learn && ends.node.is_some_and(|node| node != from) {
            self.learned.get_or_insert(from);
        }
        let counters = &self.counters;
        if Some(from) == ends.node {
            let media = is_media(packet);
            match (self.down.push(now, packet), media) {
                (Fate::Taken, _) => {}
                (Fate::Lost, true) => add(&counters.media_lost),
                (Fate::Full, true) => add(&counters.media_overflowed),
                (Fate::Lost | Fate::Full, false) => add(&counters.other_dropped),
            }
        } else if Some(from) == ends.viewer(self.learned) {
            if self.up.push(now, packet) != Fate::Taken {
                add(&counters.return_dropped);
            }
        } else {
            add(&counters.refused);
        }
    }

    async fn hand_on(&mut self) {
        let ends = *self.ends.borrow();
        let now = Instant::now();
        while let Some(packet) = self.down.pop(now) {
            let sent = send(&self.socket, &packet, ends.viewer(self.learned)).await;
            match (sent, is_media(&packet)) {
                (true, true) => add(&self.counters.media_forwarded),
                (true, false) => add(&self.counters.other_forwarded),
                (false, true) => add(&self.counters.media_overflowed),
                (false, false) => add(&self.counters.other_dropped),
            }
        }
        while let Some(packet) = self.up.pop(now) {
            let sent = send(&self.socket, &packet, ends.node).await;
            add(if sent { &self.counters.returned } else { &self.counters.return_dropped });
        }
    }
}

async fn send(socket: &UdpSocket, packet: &[u8], to: Option<SocketAddr>) -> bool {
    match to {
        Some(to) => socket.send_to(packet, to).await.is_ok(),
        None => false,
    }
}

/// Whether a datagram is RTP rather than RTCP, DTLS or STUN (RFC 7983, 7; RFC 5761, 4).
fn is_media(packet: &[u8]) -> bool {
    matches!(packet, [128..=191, kind, ..] if !(192..=223).contains(kind))
}

#[derive(Debug, Default)]
struct Counters {
    media_forwarded: AtomicU64,
    media_lost: AtomicU64,
    media_overflowed: AtomicU64,
    other_forwarded: AtomicU64,
    other_dropped: AtomicU64,
    returned: AtomicU64,
    return_dropped: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    fn read(&self) -> LinkTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkTotals {
            media_forwarded: read(&self.media_forwarded),
            media_lost: read(&self.media_lost),
            media_overflowed: read(&self.media_overflowed),
            other_forwarded: read(&self.other_forwarded),
            other_dropped: read(&self.other_dropped),
            returned: read(&self.returned),
            return_dropped: read(&self.return_dropped),
            refused: read(&self.refused),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Longest datagram that is relayed completely; the class sends none over 1,300 bytes.
const MAX_PACKET: usize = 2_048;

/// A socket that fails this often in a row is closed.
const MAX_RECEIVE_ERRORS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    const RTP: [u8; 12] = [0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    const RTCP: [u8; 8] = [0x80, 200, 0, 1, 0, 0, 0, 1];

    async fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    async fn comes(socket: &UdpSocket) -> Vec<u8> {
        let mut packet = [0; 64];
        let length = timeout(Duration::from_secs(10), socket.recv(&mut packet)).await.unwrap().unwrap();
        packet[..length].to_vec()
    }

    /// Waits until the link's totals are `wanted`.
    async fn counts(link: &Link, wanted: LinkTotals) {
        for _ in 0..500 {
            if link.totals() == wanted {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}, wanted {wanted:?}", link.totals());
    }

    #[tokio::test]
    async fn a_link_relays_between_its_ends_only_and_counts_by_kind() {
        let ((node, node_at), (viewer, viewer_at), (other, _)) = (socket().await, socket().await, socket().await);
        let link = Link::open(1).await.unwrap();
        node.send_to(&RTP, link.address()).await.unwrap();
        counts(&link, LinkTotals { refused: 1, ..LinkTotals::default() }).await;
        link.node_is(node_at);
        link.viewer_is(viewer_at);
        other.send_to(&RTP, link.address()).await.unwrap();
        for packet in [&RTP[..], &RTCP] {
            node.send_to(packet, link.address()).await.unwrap();
            assert_eq!(comes(&viewer).await, packet);
        }
        viewer.send_to(&RTCP, link.address()).await.unwrap();
        assert_eq!(comes(&node).await, RTCP);
        let good =
            LinkTotals { media_forwarded: 1, other_forwarded: 1, returned: 1, refused: 2, ..LinkTotals::default() };
        counts(&link, good).await;

        link.set(Impairment { loss_ratio: 1.0, ..Impairment::default() });
        while link.totals().media_lost == 0 {
            node.send_to(&RTP, link.address()).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
        node.send_to(&RTCP, link.address()).await.unwrap();
        viewer.send_to(&RTCP, link.address()).await.unwrap();
        assert_eq!(comes(&node).await, RTCP, "the direction back has no loss");
        let before = link.totals();
        counts(&link, LinkTotals { other_dropped: 1, returned: 2, ..before }).await;
        link.close().await;
    }
}
