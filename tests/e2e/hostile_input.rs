//! Strangers at every door of the running program at once: slow, huge, cut off, packed, random. Each is told no and
//! counted, the daemon goes on, and its memory does not grow.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::cli::Daemon;
use super::player_listener::{KEY, file, shed, until};

const SENDERS: usize = 24;
const POSTS: usize = 10_000;
const MOST_GROWTH_KIB: u64 = 48 * 1024;

#[test]
fn strangers_are_shed_and_counted_and_the_daemon_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, key) = (folder.path().join("log.sock"), file(KEY));
    let daemon = Arc::new(Daemon::start_with(&format!(
        "[ingest]\nrate_per_second = 1000000\nburst = 1000000\n[beacon]\nkey_file = {:?}\n\
         [cmcd]\nwithout_token_from = [\"127.0.0.1\"]\n[[logs]]\nlisten = \"unix:{}\"\n\
         [[sources]]\nkind = \"srs\"\nurl = \"http://127.0.0.1:9\"\n",
        key.path(),
        socket.display()
    )));
    assert_eq!(flood(&daemon, POSTS / 10).iter().sum::<usize>(), POSTS / 10, "all its buffers are warm");
    let before = resident_kib(&daemon);
    let slow = [thread::spawn(slow_heads(&daemon)), thread::spawn(slow_bodies(&daemon))];
    let [taken, refused, late] = flood(&daemon, POSTS);
    assert_eq!(taken + refused + late, POSTS, "each has an answer");
    assert!(taken > 0 && refused > POSTS / 4, "{taken} taken, {refused} refused, {late} told to wait");
    random_lines(&socket);
    for broken in
        [&b"\x16\x03\x01\x00\xa5random"[..], b"POST /v1/cmcd HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nshort"]
    {
        let mut stream = TcpStream::connect(&daemon.address).expect("it listens");
        stream.write_all(broken).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("cut off");
        stream.read_to_end(&mut Vec::new()).unwrap_or_default();
    }
    for slow in slow {
        slow.join().expect("the slow ones were shown the door");
    }
    assert_eq!(daemon.ask("GET", "/readyz", "").0, 200);
    let after = resident_kib(&daemon);
    println!("{taken} taken, {refused} refused, {late} told to wait; {before} KiB before, {after} KiB after");
    assert!(after < before + MOST_GROWTH_KIB, "{before} KiB before, {after} KiB after");
    for reason in [
        "body_slow",
        "body_broken",
        "body_too_large",
        "body_packed",
        "cmcd_unreadable",
        "cmcd_media_type",
        "syslog_form",
    ] {
        until(reason, || (shed(&daemon, reason) >= 1.0).then_some(()));
    }
}

/// Posts of all kinds from many at once. Gives how many were taken, refused, and told to come later.
fn flood(daemon: &Arc<Daemon>, posts: usize) -> [usize; 3] {
    let next = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (daemon, next) = (Arc::clone(daemon), Arc::clone(&next));
            thread::spawn(move || {
                let mut counts = [0; 3];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= posts {
                        return counts;
                    }
                    match one(&daemon, number) {
                        200 | 204 => counts[0] += 1,
                        400 | 401 | 404 | 405 | 413 | 415 => counts[1] += 1,
                        429 => counts[2] += 1,
                        other => panic!("post {number}: {other}"),
                    }
                }
            })
        })
        .collect();
    let counts = senders.into_iter().map(|sender| sender.join().expect("each post is answered"));
    counts.fold([0; 3], |sum, more| [sum[0] + more[0], sum[1] + more[1], sum[2] + more[2]])
}

/// One post of the `number`th kind.
fn one(daemon: &Daemon, number: usize) -> u16 {
    let cmcd = "content-type: application/cmcd\r\n";
    let good = format!("e=ps,sid=\"v{number}\",sn=0,sta=p,ts=1795405192553,v=2\n");
    let noise = noise(number, 2_000);
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
    if number % 500 == 8 {
        return daemon.ask_with("POST", "/v1/cmcd", cmcd, &"x".repeat(70_000)).0;
    }
    daemon.ask_with("POST", path, lines, body).0
}

/// Connections that send their request's head a byte at a time, and never its end.
fn slow_heads(daemon: &Arc<Daemon>) -> impl FnOnce() + Send + 'static {
    let address = daemon.address.clone();
    move || {
        let mut open: Vec<_> = (0..50).map(|_| TcpStream::connect(&address).expect("it listens")).collect();
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

/// Posts whose bodies stop coming: each is told so.
fn slow_bodies(daemon: &Arc<Daemon>) -> impl FnOnce() + Send + 'static {
    let address = daemon.address.clone();
    move || {
        let open: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = TcpStream::connect(&address).expect("it listens");
                let head = "POST /v1/cmcd HTTP/1.1\r\nhost: x\r\ncontent-type: application/cmcd\r\ncontent-length: 900\r\n\r\ne=t";
                stream.write_all(head.as_bytes()).expect("it reads");
                stream
            })
            .collect();
        for mut stream in open {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer and the end");
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_slow"), "{answer}");
        }
    }
}

fn random_lines(socket: &std::path::Path) {
    let sender = UnixDatagram::unbound().expect("a socket");
    for number in 0..500 {
        let head = ["", "<190>", "<190>1 - - - - - [", "<190>Nov 23 15:04:05 nginx: {"][number % 4];
        sender.send_to((head.to_owned() + &noise(number, 300)).as_bytes(), socket).expect("it is read all the time");
    }
}

/// Text without sense, the same for the same seed.
fn noise(seed: usize, length: usize) -> String {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from_u32((state >> 40) as u32 % 0x250).unwrap_or('\n')
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// Memory of the daemon (`VmRSS` of proc(5)).
fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
