//! The network between two nodes: a UDP relay on 127.0.0.1 that loses and delays each way for itself, by a seed.
//! Decides nothing else: whoever speaks first and is not the far node is the near one.

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
    ways: watch::Sender<[Impairment; 2]>,
    counts: Arc<[Count; 2]>,
    task: AbortHandle,
}

#[derive(Default)]
struct Count {
    seen: AtomicU64,
    lost: Mutex<Vec<usize>>,
}

impl UdpRelay {
    /// A good relay to `far`.
    pub(crate) async fn start(far: SocketAddr, seed: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (ways, wanted) = watch::channel([Impairment::default(); 2]);
        let counts: Arc<[Count; 2]> = Arc::default();
        let task = tokio::spawn(relay(socket, far, wanted, Arc::clone(&counts), seed)).abort_handle();
        Self { address, ways, counts, task }
    }

    /// Makes the way there and the way back as bad as told, for packets that come from now on.
    pub(crate) fn set(&self, out: Impairment, back: Impairment) {
        self.ways.send_replace([out, back]);
    }

    /// Packets seen, and the length of each that was lost: on the way there, on the way back.
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

async fn relay(
    socket: UdpSocket,
    far: SocketAddr,
    mut wanted: watch::Receiver<[Impairment; 2]>,
    counts: Arc<[Count; 2]>,
    seed: u64,
) {
    let mut ways = [Shaper::new(seed), Shaper::new(!seed)];
    let (mut packet, mut near) = (vec![0; 2_048], None);
    loop {
        let wake = ways.iter().filter_map(Shaper::next).min();
        tokio::select! {
            came = socket.recv_from(&mut packet) => {
                // A port that was closed meanwhile shows as an error of the socket.
                let Ok((length, from)) = came else { continue };
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
                for (shaper, impairment) in ways.iter_mut().zip(*wanted.borrow_and_update()) {
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
