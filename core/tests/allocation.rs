//! Reading a log line allocates nothing in the steady state: every allocation of the test's thread is counted while
//! lines of all forms are read.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use liveqos_core::access_log::{ClassRule, LogFold, LogFormat};

struct Counted;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more.
    CALLS.try_with(|calls| calls.set(calls.get() + 1)).unwrap_or_default();
}

#[expect(unsafe_code, reason = "only a global allocator sees every call; each goes on to the system's unchanged")]
// SAFETY: every method hands its arguments on to `System` as they are and gives back what that gives.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise on `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above with this `layout`, hence from `System`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`, and the caller's promise on `size` is the one that `System` asks for.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const TEXT: &str = r#"$remote_addr [$msec] "$request" $status $body_bytes_sent "$http_user_agent" "$http_cmcd_session" "$request_body""#;

/// One second of ten viewers in two classes: v1 and v2 by query, headers, event posts, and malformed lines.
fn json(second: u64) -> Vec<String> {
    let at = 1_800_000_000 + second;
    let line = |rest: String| format!("{{\"t\":{at}.250,\"rt\":0.004,\"st\":200,\"b\":4000,{rest}}}");
    let mut lines: Vec<_> = (0..10)
        .map(|viewer| {
            let path = format!("\"u\":\"/hls/c{}/{second}.ts\"", viewer % 2);
            line(match viewer % 4 {
                0 => format!("{path},\"q\":\"bl%3D4000%2Cbs%2Ccid%3D%22c%22%2Cd%3D2000%2Csid%3D%22v{viewer}%22\""),
                1 => format!(
                    "{path},\"q\":\"bl%3D%284000%3Bv+900%3Ba%29%2Cd%3D2000%2Cnor%3D%28%22a%2Cb%22%29%2Csid%3D%22v+{viewer}%22%2Csta%3Dp%2Cv%3D2\""
                ),
                2 => format!("{path},\"s\":\"sid=\\\"v{viewer}\\\"\",\"r\":\"bl=4000\",\"o\":\"d=2000\",\"a\":\"\""),
                _ => format!("{path},\"q\":\"\",\"ip\":\"10.0.0.{viewer}\",\"xff\":\"192.0.{viewer}.1\",\"region\":\"r{viewer}\",\"ua\":\"Chrome/9 \\\"b\\\"\""),
            })
        })
        .collect();
    let ts = at * 1_000;
    lines.push(line(format!(
        "\"u\":\"/cmcd\",\"e\":\"bsda=(0),e=t,sid=\\\"v0\\\",sn={second},sta=p,ts={ts},v=2\\ne=t,sid=\\\"nobody\\\",ts={ts},v=2\\n\""
    )));
    lines.push(line("\"u\":\"/favicon.ico\"".to_owned()));
    lines.push(line("\"u\":\"/hls/c0/1.ts\",\"q\":\"bl%3Dx%2Csid%3D%22open\"".to_owned()));
    lines.push(line("\"u\":\"/hls/c0/1.ts\",\"q\":\"sid%3D%22v0%22%2Cv%3D7\"".to_owned()));
    lines.extend(
        ["{\"t\":1", "no line", "{\"t\":-,\"u\":\"/hls/c0/1.ts\"}", "", "{\"t\":1.5,\"x\":{\"y\":1}}"]
            .map(str::to_owned),
    );
    lines
}

fn text(second: u64) -> Vec<String> {
    let at = 1_800_000_000 + second;
    let mut lines: Vec<_> = (0..10)
        .map(|viewer| {
            format!(
                "10.0.0.{viewer} [{at}.250] \"GET /hls/c{}/{second}.ts?t=1&CMCD=bl%3D4000%2Cd%3D2000%2Csid%3D%22v{viewer}%22 HTTP/1.1\" 200 4000 \"a\" \"-\" \"-\"",
                viewer % 2
            )
        })
        .collect();
    lines.push(format!("10.0.0.9 [{at}.250] \"GET /hls/c1/1.ts HTTP/1.1\" 200 4000 \"a\" \"sid=\\x22v9\\x22\" \"-\""));
    lines.push("dirt".to_owned());
    lines
}

/// Reads two minutes of lines; returns the allocations by lines in the second one, and their number.
fn allocations_in_steady_state(format: LogFormat, rule: ClassRule, lines: fn(u64) -> Vec<String>) -> (u64, u64) {
    let mut fold = LogFold::new(format, rule, "log".into(), [1, 2]);
    let (mut taken, mut count) = (0, 0);
    for second in 0..120 {
        let lines = lines(second);
        let before = CALLS.get();
        let mut now = None;
        for line in &lines {
            now = fold.line(line.as_bytes()).unwrap_or_default().or(now);
        }
        if second >= 60 {
            taken += CALLS.get() - before;
            count += lines.len() as u64;
        }
        // Observations are handed over and do allocate.
        drop(fold.drain(now.expect("a good line")));
    }
    let (_, _, dirty, counts) = fold.counts();
    assert!(dirty.form > 0 && counts.requests > 1_000, "{dirty:?} {counts:?}");
    (taken, count)
}

#[test]
fn no_line_allocates_in_the_steady_state() {
    let json_format = || LogFormat::json([]).expect("the default names");
    for rule in [ClassRule::Path(None), ClassRule::ContentId, ClassRule::Argument("class".to_owned())] {
        assert_eq!(allocations_in_steady_state(json_format(), rule, json), (0, 60 * 19));
    }
    let text_format = LogFormat::text(TEXT).expect("good");
    assert_eq!(allocations_in_steady_state(text_format, ClassRule::Path(None), text), (0, 60 * 12));
    assert!(CALLS.get() > 1_000, "the counter counts");
}
