//! A look of the kernel's witness at an edge: the plain dump of its connections, beside the dump with the join to classes by the access
//! log's word and the fold per class, in CPU time of one thread. `cargo bench --bench edge_look`; with `-- --test` one small pass.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use liveqos::clock;
use liveqos::intake::edge::{Edge, EdgeWatch};
use liveqos::intake::kernel::sock_diag::Dump;
use liveqos::meters::Meters;
use liveqos_core::log_fold::{ClassRule, LogFold};
use liveqos_core::log_format::LogFormat;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let (count, passes) = if smoke { (50, 2) } else { (10_000, 20) };
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let connect = |_| Some((TcpStream::connect(("127.0.0.1", port)).ok()?, listener.accept().ok()?.0));
    let held: Vec<(TcpStream, TcpStream)> = (0..count).map_while(connect).collect();

    let edge = Edge::new([1, 2]);
    let rule = ClassRule::Path(None);
    let mut fold = LogFold::new(LogFormat::json([]).expect("plain"), rule, "log".into(), edge.key());
    fold.claims().keep_words();
    let (mut dump, mut sockets) = (Dump::open().expect("a netlink socket"), Vec::new());
    let (mut watch, meters) = (EdgeWatch::default(), Meters::new(&prometheus::Registry::new()).expect("instruments"));
    let (mut plain, mut joined, mut lines, mut told) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
    for pass in 0..=passes {
        // The first pass shows every socket for the first time, so that later lines can be of it; it is not measured.
        let begun = spent();
        for (index, (client, _)) in held.iter().enumerate() {
            let peer = client.local_addr().expect("connected").port();
            let (now, class) = (clock::now().seconds(), index % CLASSES);
            let line = format!(
                r#"{{"t":{now:.3},"rt":0.010,"st":200,"b":9,"u":"/live/c{class}/1.ts","q":"d%3D2000%2Csid%3D%22{index}%22","ip":"127.0.0.1","rp":"{peer}","sp":"{port}","rtt_us":"900"}}"#
            );
            fold.line(line.as_bytes()).expect("a good line");
        }
        edge.take(&"log".into(), clock::now(), &[], fold.claims());
        let written = spent();
        dump.read(&[port], &mut sockets).expect("a dump");
        let dumped = spent();
        let out = watch.look(clock::now(), &sockets, &edge, (&[port], &meters));
        let looked = spent();
        told = out.len();
        if pass > 0 {
            (lines, plain, joined) = (
                lines + written.saturating_sub(begun),
                plain + dumped.saturating_sub(written),
                joined + looked.saturating_sub(dumped),
            );
        }
    }
    assert_eq!(told, CLASSES.min(held.len()), "every class is told of");
    let (plain, joined, lines) = (plain / passes, joined / passes, lines / passes);
    println!("{} connections of {told} classes, mean of {passes} looks, CPU of one thread", held.len());
    println!("plain dump        {plain:>10.3?}");
    println!("join and fold     {joined:>10.3?}  {:.2} x the dump", joined.as_secs_f64() / plain.as_secs_f64());
    println!("their log lines   {lines:>10.3?}  written and folded, one a connection");
}

/// CPU time of this thread, by the scheduler's own count in nanoseconds.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the scheduler counts");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

const CLASSES: usize = 20;
