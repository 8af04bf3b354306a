//! The network between two nodes: a UDP relay on 127.0.0.1 that loses and delays packets in each direction apart, by a
//! seed. The first sender that is not the far node is the near one.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use liveqos::demo::{Fate, Impairment, Shaper};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A relay to one far node; ends when dropped.
pub(crate) struct UdpRelay {
    pub(crate) address: SocketAddr,
    settings: watch::Sender<Settings>,
    counts: Arc<[Count; 2]>,
    task: AbortHandle,
}

/// Where the far node is, and the impairments on the way to it and back.
#[derive(Clone, Copy)]
struct Settings {
    far: SocketAddr,
    impairments: [Impairment; 2],
}

#[derive(Default)]
struct Count {
    seen: AtomicU64,
    lost: Mutex<Vec<usize>>,
}

impl UdpRelay {
    /// A relay to `far` without impairment.
    pub(crate) async fn start(far: SocketAddr, seed: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (settings, wanted) = watch::channel(Settings { far, impairments: [Impairment::default(); 2] });
        let counts: Arc<[Count; 2]> = Arc::default();
        let task = tokio::spawn(relay(socket, wanted, Arc::clone(&counts), seed)).abort_handle();
        Self { address, settings, counts, task }
    }

    /// Impairs the way to the far node and the way back, for packets that arrive from now on.
    pub(crate) fn set(&self, out: Impairment, back: Impairment) {
        self.settings.send_modify(|settings| settings.impairments = [out, back]);
    }

    /// The far node is at another address from now on.
    pub(crate) fn redirect(&self, far: SocketAddr) {
        self.settings.send_modify(|settings| settings.far = far);
    }

    /// Packets seen, and the length of each lost packet: on the way to the far node, on the way back.
    pub(crate) fn counts(&self) -> [(u64, Vec<usize>); 2] {
        [0, 1].map(|way| {
            let Count { seen, lost } = &self.counts[way];
            (seen.load(Ordering::Relaxed), lost.lock().unwrap().clone())
        })
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(socket: UdpSocket, mut wanted: watch::Receiver<Settings>, counts: Arc<[Count; 2]>, seed: u64) {
    let mut ways = [Shaper::new(seed), Shaper::new(!seed)];
    let (mut packet, mut near, mut far) = (vec![0; 2_048], None, wanted.borrow().far);
    loop {
        let wake = ways.iter().filter_map(Shaper::next).min();
        tokio::select! {
            received = socket.recv_from(&mut packet) => {
                // A port that was closed in the meantime shows as an error of the socket.
                let Ok((length, from)) = received else { continue };
                let way = usize::from(from == far);
                if way == 0 {
                    near = Some(from);
                }
                counts[way].seen.fetch_add(1, Ordering::Relaxed);
                if ways[way].push(Instant::now(), &packet[..length]) != Fate::Taken {
                    counts[way].lost.lock().unwrap().push(length);
                }
            }
            changed = wanted.changed() => {
                changed.unwrap();
                let settings = *wanted.borrow_and_update();
                far = settings.far;
                for (shaper, impairment) in ways.iter_mut().zip(settings.impairments) {
                    shaper.set(Instant::now(), impairment);
                }
            }
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
        }
        for (shaper, to) in ways.iter_mut().zip([Some(far), near]) {
            while let Some(packet) = shaper.pop(Instant::now()) {
                if let Some(to) = to {
                    socket.send_to(&packet, to).await.ok();
                }
            }
        }
    }
}
