//! Untrusted senders at every endpoint of the running program at once: slow, huge, cut off, compressed, random. Each is
//! refused and counted, the daemon goes on, and its memory does not grow with what it was sent.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use liveqos_testkit::daemon::{Daemon, file};
use liveqos_testkit::seed::seed;
use liveqos_testkit::wait::until_blocking;

use super::player_listener::KEY;

const SENDERS: usize = 24;
const POSTS: usize = 10_000;
/// Most of what it is sent that the daemon may keep.
const KEPT: f64 = 0.25;

#[test]
fn hostile_requests_are_shed_and_counted_and_the_daemon_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = seed("hostile_input");
    let (socket, key) = (folder.path().join("log.sock"), file(KEY));
    let daemon = Arc::new(Daemon::start(&format!(
        "[ingest]\nrate_per_second = 1000000\nburst = 1000000\n[beacon]\nkey_file = {:?}\n\
         [cmcd]\nwithout_token_from = [\"127.0.0.1\"]\n[[logs]]\nlisten = \"unix:{}\"\n\
         [[sources]]\nkind = \"srs\"\nurl = \"http://127.0.0.1:9\"\n",
        key.path(),
        socket.display()
    )));
    let sent = AtomicU64::new(0);
    let warm = flood(&daemon, POSTS / 10, seed, &sent);
    assert_eq!(warm.iter().sum::<usize>(), POSTS / 10, "each gets a response");
    let (before, _) = (resident_bytes(&daemon), sent.swap(0, Ordering::Relaxed));
    let slow = [thread::spawn(slow_heads(&daemon)), thread::spawn(slow_bodies(&daemon))];
    let [taken, refused, late] = flood(&daemon, POSTS, !seed, &sent);
    assert_eq!(taken + refused + late, POSTS, "each gets a response");
    assert!(taken > 0 && refused > POSTS / 4, "{taken} taken, {refused} refused, {late} over the rate");
    random_lines(&socket, seed);
    for broken in
        [&b"\x16\x03\x01\x00\xa5random"[..], b"POST /v1/cmcd HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nshort"]
    {
        let mut stream = TcpStream::connect(daemon.address).expect("it listens");
        stream.write_all(broken).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("cut off");
        stream.read_to_end(&mut Vec::new()).unwrap_or_default();
    }
    for slow in slow {
        slow.join().expect("slow requests are ended");
    }
    assert_eq!(daemon.ask("GET", "/readyz", "").0, 200);
    let (after, sent) = (resident_bytes(&daemon), sent.into_inner());
    let kept = after.saturating_sub(before) as f64 / sent as f64;
    println!(
        "{taken} taken, {refused} refused, {late} over the rate; {before} B before, {after} B after, {sent} B sent"
    );
    assert!(kept < KEPT, "{kept} of {sent} bytes: {before} bytes resident before, {after} after");
    for reason in [
        "body_slow",
        "body_broken",
        "body_too_large",
        "body_packed",
        "cmcd_unreadable",
        "cmcd_media_type",
        "syslog_form",
    ] {
        until_blocking(reason, || (daemon.shed(reason) >= 1.0).then_some(()));
    }
}

/// Posts of all kinds from many senders at once, their bytes added to `sent`. Returns how many were taken, refused, and
/// refused for their rate.
fn flood(daemon: &Arc<Daemon>, posts: usize, seed: u64, sent: &AtomicU64) -> [usize; 3] {
    let next = AtomicUsize::new(0);
    let sender = || {
        let mut counts = [0; 3];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= posts {
                return counts;
            }
            match one(daemon, number, seed, sent) {
                200 | 204 => counts[0] += 1,
                400 | 401 | 404 | 405 | 413 | 415 => counts[1] += 1,
                429 => counts[2] += 1,
                other => panic!("post {number}: {other}"),
            }
        }
    };
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(sender)).collect();
        let counts = senders.into_iter().map(|sender| sender.join().expect("each post gets a response"));
        counts.fold([0; 3], |sum, more| [sum[0] + more[0], sum[1] + more[1], sum[2] + more[2]])
    })
}

/// Sends the `number`th post, of one of ten kinds. Returns the status of the response.
fn one(daemon: &Daemon, number: usize, seed: u64, sent: &AtomicU64) -> u16 {
    let cmcd = "content-type: application/cmcd\r\n";
    let good = format!("e=ps,sid=\"v{number}\",sn=0,sta=p,ts=1795405192553,v=2\n");
    let noise = noise(seed ^ number as u64, 2_000);
    let zeros = "\0".repeat(60_000);
    let (path, lines, body): (&str, &str, &str) = match number % 10 {
        0 => ("/v1/cmcd", cmcd, good.as_str()),
        1 => ("/v1/cmcd?session_id=s1", cmcd, &good),
        2 => ("/v1/cmcd?session_id=s1&token=99999999999.00", cmcd, &good),
        3 => ("/v1/cmcd", cmcd, noise.as_str()),
        4 => ("/v1/cmcd", "content-type: text/plain\r\n", &good),
        5 => ("/v1/cmcd", "content-type: application/cmcd\r\ncontent-encoding: gzip\r\n", &zeros),
        6 => ("/v1/beacon", "authorization: Bearer 1.00\r\n", &noise),
        7 => ("/v1/hooks/srs", "content-type: application/json\r\n", &noise),
        8 => ("/v1/cmcd", "content-type: application/cmcd\r\nexpect: 100-continue\r\n", ""),
        _ => ("/api/v1/sessions/%00%ff", "", noise.as_str()),
    };
    let long = "x".repeat(70_000);
    let (path, lines, body) = if number % 500 == 8 { ("/v1/cmcd", cmcd, long.as_str()) } else { (path, lines, body) };
    sent.fetch_add(body.len() as u64, Ordering::Relaxed);
    daemon.ask_with("POST", path, lines, body).0
}

/// Connections that send the head of their request a byte at a time, and never its end.
fn slow_heads(daemon: &Arc<Daemon>) -> impl FnOnce() + Send + 'static {
    let address = daemon.address;
    move || {
        let mut open: Vec<_> = (0..50).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let mut head = b"GET /livez HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'a'));
        while !open.is_empty() {
            let byte = [*head.next().expect("without end")];
            open.retain_mut(|stream| {
                stream.set_nonblocking(true).expect("a socket");
                let ended = matches!(stream.read(&mut [0; 512]), Ok(0));
                !ended && stream.write_all(&byte).is_ok()
            });
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Posts whose bodies stop in the middle: each gets a 408.
fn slow_bodies(daemon: &Arc<Daemon>) -> impl FnOnce() + Send + 'static {
    let address = daemon.address;
    move || {
        let open: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = TcpStream::connect(address).expect("it listens");
                let head = "POST /v1/cmcd HTTP/1.1\r\nhost: x\r\ncontent-type: application/cmcd\r\ncontent-length: 900\r\n\r\ne=t";
                stream.write_all(head.as_bytes()).expect("it reads");
                stream
            })
            .collect();
        for mut stream in open {
            let mut response = String::new();
            stream.read_to_string(&mut response).expect("a response and the end");
            assert!(response.starts_with("HTTP/1.1 408") && response.contains("body_slow"), "{response}");
        }
    }
}

fn random_lines(socket: &std::path::Path, seed: u64) {
    let sender = UnixDatagram::unbound().expect("a socket");
    for number in 0..500_usize {
        let head = ["", "<190>", "<190>1 - - - - - [", "<190>Nov 23 15:04:05 nginx: {"][number % 4];
        sender
            .send_to((head.to_owned() + &noise(seed ^ number as u64, 300)).as_bytes(), socket)
            .expect("the daemon reads");
    }
}

/// Characters without sense, the same for the same seed.
fn noise(seed: u64, length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| char::from_u32(random.u32(..0x250)).unwrap_or('\n')).take(length).collect()
}

/// Resident memory of the daemon (`VmRSS` of proc(5)).
fn resident_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.program.child.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kib: u64 = line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1_024
}
