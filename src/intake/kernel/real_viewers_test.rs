//! Real viewers on loopback, whose sockets are dumped, joined and folded as in the daemon.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use liveqos_core::connection::{Client, Folds, JOIN_BURST, Join, PathFold, PathTable, Role, SessionIndex, TcpReading};
use liveqos_core::model::{TICK, Timestamp};

use super::sock_diag::Dump;

const CLASS: SessionIndex = SessionIndex(4);
const BYTES_PER_SECOND: f64 = 200_000.0;
const WRITE_INTERVAL: Duration = Duration::from_millis(20);
const WRITE_BYTES: usize = 4_000;
/// When the test stops waiting for a condition; far longer than the slowest machine needs.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// A class of three viewers on loopback, fed at a steady rate; the last one stops reading while `stall` is set.
struct Class {
    port: u16,
    stall: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Class {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stall, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        let mut served = Vec::new();
        for viewer in 0..3 {
            let stream = TcpStream::connect(address).unwrap();
            served.push(listener.accept().unwrap().0);
            let (stall, end) = (Arc::clone(&stall), Arc::clone(&end));
            threads.push(thread::spawn(move || {
                watch(stream, &end, || viewer == 2 && stall.load(Ordering::Relaxed));
            }));
        }
        let over = Arc::clone(&end);
        threads.push(thread::spawn(move || serve(&served, &over)));
        Self { port: address.port(), stall, end, threads }
    }

    fn stop(self) {
        self.end.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A media server: data that the socket does not accept is dropped, as servers do for slow viewers.
fn serve(viewers: &[TcpStream], end: &AtomicBool) {
    for viewer in viewers {
        viewer.set_nonblocking(true).unwrap();
    }
    while !end.load(Ordering::Relaxed) {
        for mut viewer in viewers {
            if let Err(failure) = viewer.write(&[0; WRITE_BYTES]) {
                assert_eq!(failure.kind(), ErrorKind::WouldBlock);
            }
        }
        thread::sleep(WRITE_INTERVAL);
    }
}

/// A player: reads what arrives unless it hangs.
fn watch(mut stream: TcpStream, end: &AtomicBool, hangs: impl Fn() -> bool) {
    stream.set_read_timeout(Some(WRITE_INTERVAL)).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    while !end.load(Ordering::Relaxed) {
        if hangs() {
            thread::sleep(WRITE_INTERVAL);
        } else if let Err(failure) = stream.read(&mut buffer) {
            assert!(matches!(failure.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        }
    }
}

/// The daemon's tick in short: dump, step, join.
struct Poller {
    dump: Dump,
    sockets: Vec<TcpReading>,
    table: PathTable,
    folds: Folds,
    epoch: Instant,
}

impl Poller {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000) + self.epoch.elapsed()
    }

    /// One tick; returns the fold of the class, if it has one, and the join of the sockets.
    fn tick(&mut self, port: u16) -> (Option<PathFold>, Join) {
        self.dump.read(&[port], &mut self.sockets).unwrap();
        let at = self.now();
        self.table.step(at, &self.sockets, |_| Some(BYTES_PER_SECOND), &mut self.folds);
        let mut candidates = Vec::new();
        self.table.candidates(&self.sockets, &mut candidates);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client = Client { address, role: Role::Viewer, started: Some(Timestamp::from_secs(1_000)), session: CLASS };
        let join = Join::of(&[client; 3], &candidates, at, TICK);
        self.table.assign(&join.assignments);
        thread::sleep(TICK / 5);
        (self.folds.get(&CLASS).cloned(), join)
    }

    /// Ticks until `is_enough` holds.
    fn tick_until(&mut self, port: u16, mut is_enough: impl FnMut(&PathFold) -> bool) -> PathFold {
        let begun = Instant::now();
        loop {
            if let (Some(fold), _) = self.tick(port)
                && is_enough(&fold)
            {
                return fold;
            }
            assert!(begun.elapsed() < MAX_WAIT, "the condition never held: {:?}", self.folds);
        }
    }
}

#[test]
fn a_viewer_that_stops_reading_is_distinguished_from_those_that_read() {
    let class = Class::start();
    let mut poller = Poller {
        dump: Dump::open().unwrap(),
        sockets: Vec::new(),
        table: PathTable::default(),
        folds: Folds::new(),
        epoch: Instant::now(),
    };

    // All read: after the join burst, every dump gives three latencies of half a loopback round trip.
    let healthy =
        poller.tick_until(class.port, |fold| fold.latencies().len() == 3 && fold.latencies().max_millis() < Some(100));
    assert_eq!((healthy.viewers, healthy.joining, healthy.unmeasured), (3, 0, 0));
    assert!(healthy.segments_sent.unwrap() > 0);
    assert!(poller.now().since(Timestamp::from_secs(1_000)) >= JOIN_BURST);

    // One stops reading: its latency exceeds 200 ms and grows, that of the two others stays the same.
    class.stall.store(true, Ordering::Relaxed);
    let mut worst = Vec::new();
    let stalled = poller.tick_until(class.port, |fold| {
        worst.push(fold.latencies().max_millis());
        fold.latencies().max_millis() > Some(3_000) && fold.latencies().quantile_millis(0.6) < Some(100)
    });
    let late: Vec<u64> = worst.iter().flatten().copied().filter(|millis| *millis > 200).collect();
    assert!(late.len() >= 10 && late.is_sorted(), "{worst:?}");
    assert_eq!(stalled.latencies().len(), 3);
    assert!(stalled.latencies().quantile_millis(0.6) < Some(100), "two of three are as before");
    assert!(stalled.backlog_bytes > 500_000);
    let (_, join) = poller.tick(class.port);
    assert_eq!((join.assignments.len(), join.unmatched, join.ambiguous), (3, 0, 0));

    // It reads again: the backlog drains and all recover.
    class.stall.store(false, Ordering::Relaxed);
    poller.tick_until(class.port, |fold| fold.latencies().len() == 3 && fold.latencies().max_millis() < Some(100));
    class.stop();
}
