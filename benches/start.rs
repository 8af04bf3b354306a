//! A start beside what waits: opening the state folder, and the program from its exec to its first answer, with ever
//! more real records in the spool. `cargo bench --bench start`; `LIVEQOS_BENCH_BYTES=10000000000` for 10 GB; with `--
//! --test` one small pass.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use liveqos::otlp::{Record, Signal};
use liveqos::storage::disk::{Disk as _, Folder};
use liveqos::storage::spool::{HEADER, Mark, segment};
use liveqos::storage::{Opened, StateSettings};

/// Starts at each size, of which the median counts.
const ROUNDS: usize = 9;
/// Names the most bytes that are written.
const MOST: &str = "LIVEQOS_BENCH_BYTES";
/// As long as the product's.
const SEGMENT: u64 = 16 << 20;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let most = std::env::var(MOST).map_or(1_000_000_000, |text| text.parse().expect("bytes"));
    let sizes: &[u64] =
        if small { &[1_000_000, 40_000_000] } else { &[100_000_000, 1_000_000_000, 4_000_000_000, 10_000_000_000] };
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = Filled::new(folder.path());
    let mut first = None;
    println!(
        "{:>16} {:>10} {:>8} {:>8} {:>10} {:>8}",
        "bytes that wait", "records", "opened", "ratio", "answers", "ratio"
    );
    for size in sizes.iter().filter(|size| **size <= most) {
        spool.fill(*size);
        let opened = median(|| spool.open());
        let answers = median(|| spool.run());
        let (least_opened, least_answers) = *first.get_or_insert((opened, answers));
        let ratio = |time: Duration, least: Duration| time.as_secs_f64() / least.as_secs_f64();
        println!(
            "{:>16} {:>10} {opened:>8.1?} {:>8.2} {answers:>10.1?} {:>8.2}",
            spool.bytes,
            spool.ends.iter().map(|end| end.position).sum::<u64>(),
            ratio(opened, least_opened),
            ratio(answers, least_answers)
        );
    }
}

fn median(mut once: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS).map(|_| once()).collect();
    times.sort();
    times[ROUNDS / 2]
}

/// A state folder whose spool is filled, spans and log events alike.
struct Filled<'a> {
    folder: &'a Path,
    disk: Folder,
    bytes: u64,
    /// Where the queues of spans and log events end.
    ends: [Mark; 2],
}

impl<'a> Filled<'a> {
    fn new(folder: &'a Path) -> Self {
        let disk = Folder::open(&folder.join("state/spool/main")).expect("a folder");
        Self { folder, disk, bytes: 0, ends: [Mark::default(); 2] }
    }

    /// Writes segments until so many bytes wait.
    fn fill(&mut self, size: u64) {
        // What an earlier start has written down knows nothing of what comes now.
        std::fs::remove_dir_all(self.folder.join("state/journal")).unwrap_or_default();
        // Half of it differs from byte to byte, as encoded spans do.
        let bytes: Vec<u8> = (0..1_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        while self.bytes < size {
            for (signal, end) in [Signal::Traces, Signal::Logs].into_iter().zip(&mut self.ends) {
                let record = Record { signal, bytes: bytes.clone().into(), items: 1, urgent: false };
                let (first, mut buffer) = (*end, segment::header(signal));
                while (buffer.len() as u64) < SEGMENT.min(size / 2) {
                    segment::write(&mut buffer, signal, end.position, &record);
                    *end = end.after(1);
                }
                let mut file = self.disk.create(&segment::name(signal, first)).expect("a file");
                file.append(&buffer).expect("room");
                file.sync().expect("a good disk");
                self.bytes += buffer.len() as u64 - HEADER;
            }
        }
    }

    fn settings(&self) -> StateSettings {
        let bound = self.bytes * 2;
        StateSettings {
            dir: Some(self.folder.join("state")),
            traces_bytes: bound,
            metrics_bytes: bound,
            logs_bytes: bound,
        }
    }

    /// Opens the folder as the program does.
    fn open(&self) -> Duration {
        let began = Instant::now();
        let opened = Opened::open(&self.settings(), &[("main".to_owned(), [true; 3])]).expect("nobody else has it");
        let took = began.elapsed();
        let outbox = opened.export_queue("main").expect("opened for it");
        let waits = [Signal::Traces, Signal::Logs].map(|signal| outbox.backlog(signal).records);
        assert_eq!(waits, self.ends.map(|end| end.position), "all of it is there");
        took
    }

    /// The program until it answers.
    fn run(&self) -> Duration {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let settings = self.settings();
        let config = format!(
            "listen = \"127.0.0.1:{port}\"\ndiscover = false\n[kernel]\ntcp_info = false\n[otlp]\nendpoint = \"http://127.0.0.1:1\"\n\
             [state]\ndir = \"{}\"\ntraces_bytes = {}\nlogs_bytes = {}\n",
            settings.folder().expect("as set").display(),
            settings.traces_bytes,
            settings.logs_bytes
        );
        let file = self.folder.join("liveqos.toml");
        std::fs::write(&file, config).expect("room");
        let began = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "the program itself is measured")]
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_liveqos"));
        program.args(["run", "--config"]).arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        // A variable of this name is a setting to it, and none that it knows.
        program.env_remove(MOST);
        let mut running = Running(program.spawn().expect("the program starts"));
        while !answers(port) {
            let ended = running.0.try_wait().expect("it can be asked");
            assert!(
                ended.is_none(),
                "it ended at once, {ended:?}: see the output of `liveqos run`, or whether its port was taken"
            );
            assert!(began.elapsed() < Duration::from_mins(2), "it never answers");
            std::thread::sleep(Duration::from_millis(1));
        }
        began.elapsed()
    }
}

/// Killed with the guard.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
