//! The log that is measured: 10,000 viewers in 200 classes, CMCD v1 and v2, some malformed, written in three forms that
//! contain the same.

use std::io::{self, Write};

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `log_format liveqos`, CMCD in the query.
    Query,
    /// A combined format as text, CMCD in the request line's query.
    Text,
    /// JSON, CMCD in the four headers with the quotes of their strings escaped in one of three ways.
    Headers,
}

impl Form {
    /// The text format's variables.
    pub(crate) const TEXT: &str = r#"$remote_addr - $remote_user [$msec] "$request" $status $body_bytes_sent $request_time "$http_referer" "$http_user_agent""#;
}

/// Writes `lines` lines.
pub(crate) fn write(out: &mut impl Write, lines: u64, form: Form) -> io::Result<()> {
    let mut writer = Writer { form, payload: String::new(), encoded: String::new(), line: Vec::new() };
    let mut written = 0;
    for slot in 0.. {
        if written == lines {
            break;
        }
        let (pass, viewer) = (slot / VIEWERS, slot * STRIDE % VIEWERS);
        // A seventh of them is away for 40 s.
        if !(pass / 40 + viewer).is_multiple_of(7) {
            writer.line(slot, pass, viewer, written);
            out.write_all(&writer.line)?;
            written += 1;
        }
    }
    out.flush()
}

struct Writer {
    form: Form,
    payload: String,
    encoded: String,
    line: Vec<u8>,
}

/// One line's facts, the same in each form.
struct Facts {
    millis: u64,
    status: u16,
    bytes: u64,
    path: String,
    viewer: u64,
    time: bool,
}

impl Writer {
    /// One pass over all viewers takes a second: playlists in one, segments in the next.
    fn line(&mut self, slot: u64, pass: u64, viewer: u64, number: u64) {
        let class = viewer % CLASSES;
        let is_segment = pass % 2 == 1;
        let fault = number % 1_000;
        let ran_dry = (viewer * 31 + pass).is_multiple_of(97);
        self.cmcd(viewer, pass, ran_dry, fault);
        let served = fault != FAILED;
        let mut path = format!("/hls/class{class}/{}", pass / 2);
        path.push_str(if is_segment { ".ts" } else { ".m3u8" });
        if !is_segment {
            path = format!("/hls/class{class}/index.m3u8");
        }
        if fault == OTHER {
            "/favicon.ico".clone_into(&mut path);
        }
        let facts = Facts {
            millis: 1_800_000_000_000 + slot * 1_000 / VIEWERS,
            status: if served { 200 } else { 404 },
            bytes: if !served {
                153
            } else if is_segment {
                400_000 + number % 1_000
            } else {
                250
            },
            path,
            viewer,
            time: fault != NO_TIME,
        };
        self.line.clear();
        match self.form {
            Form::Query => self.json(&facts, fault, false),
            Form::Headers => self.json(&facts, fault, true),
            Form::Text => self.text(&facts),
        }
        match fault {
            CUT => self.line.truncate(self.line.len() / 2),
            NOISE => b"no line of an access log {"[..].clone_into(&mut self.line),
            LONG if (number / 1_000).is_multiple_of(100) => self.line.resize(70_000, b'x'),
            _ => {}
        }
        self.line.push(b'\n');
    }

    /// As hls.js writes it: in v1 and, every second viewer, in v2.
    fn cmcd(&mut self, viewer: u64, pass: u64, ran_dry: bool, fault: u64) {
        use std::fmt::Write as _;
        self.payload.clear();
        if fault == SILENT {
            return;
        }
        let (is_v2, is_segment) = (viewer % 2 == 1, pass % 2 == 1);
        let class = viewer % CLASSES;
        let bl = if ran_dry { 100 } else { 4_300 };
        let out = &mut self.payload;
        let text = |out: &mut String, text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a String takes all");
        match (fault == MALFORMED, is_v2) {
            (true, _) => text(out, format_args!("bl=x,")),
            (_, true) => text(out, format_args!("bl=({bl}),")),
            (_, false) => text(out, format_args!("bl={bl},")),
        }
        text(out, format_args!("{}", if is_v2 { "br=(1503;v 96;a)," } else { "br=1503," }));
        text(out, format_args!("{}cid=\"class{class}\",", if ran_dry { "bs," } else { "" }));
        if is_segment {
            text(out, format_args!("d=2000,dl={bl},"));
        }
        if is_v2 {
            text(out, format_args!("lb=(0),mtp=(37400),"));
            if is_segment {
                text(out, format_args!("nor=(\"{}.ts\"),", pass / 2 + 1));
            }
        } else {
            text(out, format_args!("mtp=37500,"));
        }
        text(out, format_args!("{}rtp=0,sf=h,", if is_segment { "" } else { "ot=m," }));
        if fault == OPEN {
            // The string has no end, so the rest has no form and this viewer no name.
            return text(out, format_args!("sid=\"{viewer}"));
        }
        text(out, format_args!("sid=\"{:08x}-0000-4000-8000-{viewer:012}\",", viewer * 2_654_435_761 % (1 << 32)));
        if is_v2 {
            let version = if fault == NEWER { 9 } else { 2 };
            text(out, format_args!("sn={pass},st=l,sta=p,tpb=(1503;v 96;a),v={version}"));
        } else {
            text(out, format_args!("st=l{}", if fault == NEWER { ",v=9" } else { "" }));
        }
    }

    fn json(&mut self, facts: &Facts, fault: u64, headers: bool) {
        let Facts { millis, status, bytes, path, viewer, time } = facts;
        let at = if *time { format!("{}.{:03}", millis / 1_000, millis % 1_000) } else { "-".to_owned() };
        let out = &mut self.line;
        write!(out, "{{\"t\":{at},\"rt\":0.00{},\"st\":{status},\"b\":{bytes},\"u\":\"{path}\",\"q\":\"", viewer % 7)
            .expect("a Vec takes all");
        if headers {
            let quote = ["\\\"", "\\u0022", "\\x22"][(fault % 3) as usize];
            let sid = self.payload.find("sid=").unwrap_or(self.payload.len());
            let (request, session) = self.payload.split_at(sid);
            write!(out, "\",\"s\":\"{}\",", session.replace('"', quote)).expect("a Vec takes all");
            write!(out, "\"r\":\"{}\",\"o\":\"\",\"a\":\"\"", request.trim_end_matches(',').replace('"', quote))
                .expect("a Vec takes all");
        } else {
            percent(&self.payload, &mut self.encoded);
            write!(out, "{}\",\"s\":\"\",\"r\":\"\",\"o\":\"\",\"a\":\"\"", self.encoded).expect("a Vec takes all");
        }
        write!(out, ",\"ip\":\"10.{}.{}.7\",\"ua\":\"{AGENT}\"}}", viewer / 250, viewer % 250)
            .expect("a Vec takes all");
    }

    fn text(&mut self, facts: &Facts) {
        let Facts { millis, status, bytes, path, viewer, time } = facts;
        let at = if *time { format!("{}.{:03}", millis / 1_000, millis % 1_000) } else { "-".to_owned() };
        percent(&self.payload, &mut self.encoded);
        let query = if self.encoded.is_empty() { "" } else { "?token=1&CMCD=" };
        write!(
            self.line,
            "10.{}.{}.7 - - [{at}] \"GET {path}{query}{} HTTP/1.1\" {status} {bytes} 0.00{} \"-\" \"{AGENT}\"",
            viewer / 250,
            viewer % 250,
            self.encoded,
            viewer % 7,
        )
        .expect("a Vec takes all");
    }
}

/// As `URLSearchParams` encodes it.
fn percent(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    out.clear();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => write!(out, "%{other:02X}").expect("a String takes all"),
        }
    }
}

pub(crate) const CLASSES: u64 = 200;
pub(crate) const VIEWERS: u64 = 10_000;
/// Prime to [`VIEWERS`], so that neighbouring lines are of other viewers and classes.
const STRIDE: u64 = 7_919;
const AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";

/// Of 1,000 lines, which is wrong in what way.
const CUT: u64 = 100;
const NOISE: u64 = 200;
const NO_TIME: u64 = 300;
const NEWER: u64 = 400;
const MALFORMED: u64 = 500;
const FAILED: u64 = 600;
const SILENT: u64 = 700;
const OTHER: u64 = 800;
const OPEN: u64 = 900;
const LONG: u64 = 950;
