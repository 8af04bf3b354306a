//! A poll of the kernel's sockets at an edge: the plain dump of its connections, beside the dump with the join to
//! classes by the access log and the sums per class, in CPU time of one thread. `cargo bench --bench edge_look`; with
//! `-- --test` one small pass.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use liveqos::intake::kernel::{Dump, EdgeWatch, HttpEdge};
use liveqos::platform::{SelfMetrics, clock};
use liveqos_core::access_log::{ClassRule, LogFold, LogFormat};

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    // Both ends of a connection need a descriptor, and 20,000 are a usual limit.
    let (count, passes) = if smoke { (50, 2) } else { (9_900, 20) };
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let connect = |_| Some((TcpStream::connect(("127.0.0.1", port)).ok()?, listener.accept().ok()?.0));
    let held: Vec<(TcpStream, TcpStream)> = (0..count).map_while(connect).collect();

    let edge = HttpEdge::new([1, 2]);
    let mut folds = [false, true].map(|_| {
        let format = LogFormat::json([]).expect("plain");
        LogFold::new(format, ClassRule::Path(None), "log".into(), edge.key())
    });
    folds[1].connections().keep_reports([1, 2]);
    let (mut dump, mut sockets) = (Dump::open().expect("a netlink socket"), Vec::new());
    let (mut watch, meters) =
        (EdgeWatch::default(), SelfMetrics::new(&prometheus::Registry::new()).expect("instruments"));
    let [mut plain, mut joined, mut bare, mut attributed] = [Duration::ZERO; 4];
    let mut classes = 0;
    // The first pass shows every socket for the first time, so that later lines can be of it; it is not measured.
    for pass in 0..=passes {
        let [without, with] = lines(&held, port);
        let mut times = Vec::with_capacity(6);
        times.push(spent());
        read(&mut folds[0], &without);
        times.push(spent());
        read(&mut folds[1], &with);
        edge.take(&"log".into(), clock::now(), &[], folds[1].connections());
        times.push(spent());
        dump.read(&[port], &mut sockets).expect("a dump");
        times.push(spent());
        classes = watch.look(clock::now(), &sockets, &edge, (&[port], &meters)).len();
        times.push(spent());
        for fold in &mut folds {
            drop(fold.drain(clock::now()));
        }
        if pass > 0 {
            for (sum, pair) in [&mut bare, &mut attributed, &mut plain, &mut joined].into_iter().zip(times.windows(2)) {
                *sum += pair[1].saturating_sub(pair[0]) / passes;
            }
        }
    }
    assert_eq!(classes, CLASSES.min(held.len()), "every class is reported");
    let ratio = |time: Duration, beside: Duration| time.as_secs_f64() / beside.as_secs_f64();
    println!("{} connections of {classes} classes, mean of {passes} polls, CPU of one thread", held.len());
    println!("plain dump                     {plain:>10.3?}");
    println!("join and fold                  {joined:>10.3?}  {:.2} x the dump", ratio(joined, plain));
    println!("as many log lines              {bare:>10.3?}");
    println!("the same with their connection {attributed:>10.3?}  {:.2} x without", ratio(attributed, bare));
}

fn read(fold: &mut LogFold, lines: &[String]) {
    for line in lines {
        fold.line(line.as_bytes()).expect("a good line");
    }
}

/// A line of each connection, without and with the fields of the connection.
fn lines(held: &[(TcpStream, TcpStream)], port: u16) -> [Vec<String>; 2] {
    let now = clock::now().seconds();
    let line = |(index, (client, _)): (usize, &(TcpStream, TcpStream)), with: bool| {
        let (class, peer) = (index % CLASSES, client.local_addr().expect("connected").port());
        let wire = if with { format!(r#","rp":"{peer}","sp":"{port}","rtt_us":"900","uh":"""#) } else { String::new() };
        format!(
            r#"{{"t":{now:.3},"rt":0.010,"st":200,"b":9,"u":"/live/c{class}/1.ts","q":"bl%3D3000%2Cd%3D2000%2Cot%3Dav%2Csid%3D%22{index}%22","ip":"127.0.0.1","ua":"Mozilla/5.0"{wire}}}"#
        )
    };
    [false, true].map(|with| held.iter().enumerate().map(|viewer| line(viewer, with)).collect())
}

/// CPU time of this thread, by the scheduler's own count in nanoseconds.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the scheduler counts");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

const CLASSES: usize = 20;
