//! SRS 5, 6, 7 and 8: the HTTP API and the HTTP hooks. Reports bytes, frames of the publisher, and viewers by protocol.
//! This server does not report round trips, loss and ports, and its `live_ms` is a clock, not a start time.

mod answer;
mod publisher;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::model::{Descriptor, Fact, Name, Observation, SourceName, StreamKey, Timestamp};
use serde::Deserialize;

use self::answer::{Answer, HookBody, Stream, Version};
use self::publisher::{Common, Listed, Publisher};
use crate::probe::{Hook, Intake, Kind, Probe, ProbeError, Reply, Request, SettingsError, malformed};

/// SRS (Simple Realtime Server).
pub static KIND: Kind = Kind {
    name: "srs",
    about: "SRS 5 to 8 with `http_api` on: the base URL of its API",
    intake: Intake::Poll,
    default_url: "http://127.0.0.1:1985",
    // Its byte totals step every 3 s: read every second, the phase of a step is known well enough for an exact rate.
    default_interval: Duration::from_secs(1),
    media_ports: &[1935, 8080],
    processes: &["srs"],
    status_paths: &[],
    how_to_enable: &[
        "Add to srs.conf, then reload it:",
        "  http_api { enabled on; listen 1985; }",
        "Where http_api.auth is set, give username and password_file to the source.",
    ],
    // SRS 5 and 6, `http_hooks`: an empty body means failure.
    hook_success: "0",
    build,
    schema: || schemars::schema_for!(Settings),
};

/// The settings of a source of this kind.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SrsSettings")]
pub struct Settings {
    /// Streams requested at once, 10 to 10000. Pages of one list are not stable, so one page should hold all streams.
    /// Default: 1000.
    #[schemars(range(min = 10, max = 10_000))]
    pub max_streams: u32,
    /// Most connections on the node for which the list of clients is requested, 0 to 10000. Above it viewers are
    /// reported as one number of all protocols, since the server makes the list on its only media thread. Default: 500.
    #[schemars(range(max = 10_000))]
    pub max_clients: u32,
    /// Addresses whose connections are not viewers: edges that pull, synthetic viewers. Applies only while the list of
    /// clients is requested. Default: none.
    pub not_viewers: Vec<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_streams: 1_000, max_clients: 500, not_viewers: Vec::new() }
    }
}

/// Polls the API. A round is the list of streams, then what that list requires: version, vhost names, clients.
#[derive(Debug, Default)]
pub struct Srs {
    settings: Settings,
    server: Server,
    round: Round,
    /// By stream id.
    publishers: HashMap<String, Publisher>,
    /// Streams reported as present and not yet as gone.
    known: BTreeSet<StreamKey>,
}

/// What holds for one run of the server.
#[derive(Debug, Default)]
struct Server {
    instance: String,
    version: Option<Version>,
    /// Whether the version was answered, or refused.
    version_asked: bool,
    /// Names by id; `None` where the server does not give the id's name.
    vhosts: HashMap<String, Option<String>>,
}

/// One round: open from its first request to the last needed reply.
#[derive(Debug, Default)]
struct Round {
    number: u32,
    open: bool,
    /// The previous round was never finished: this one requests only the streams, so that one dead path does not hide
    /// them all.
    alone: bool,
    pages: u32,
    streams: Vec<(Timestamp, Stream)>,
    ids: HashSet<String>,
    /// Pages overlapped, were too many, or one of them failed.
    incomplete: bool,
    waiting: Vec<u32>,
    clients: Option<Listed>,
}

impl Srs {
    /// A probe that has received nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    fn request(&self, part: u32) -> Request {
        let streams = self.settings.max_streams;
        let path = match part {
            STREAMS => format!("/api/v1/streams/?start={}&count={streams}", self.round.pages * streams),
            VERSION => "/api/v1/versions".to_owned(),
            VHOSTS => "/api/v1/vhosts/".to_owned(),
            _ => format!("/api/v1/clients/?start=0&count={}", self.settings.max_clients.max(MIN_COUNT)),
        };
        let tag = self.round.number.wrapping_mul(PARTS).wrapping_add(part);
        Request { path, tag }
    }

    /// Takes in a page of streams; gives the next requests.
    fn take_streams(&mut self, reply: &Reply<'_>) -> Result<Vec<Request>, ProbeError> {
        let answer = Answer::read("srs streams", reply.body)?;
        let instance = answer.instance();
        let streams = answer.streams.ok_or_else(|| malformed("srs streams", &"no streams"))?;
        if instance != self.server.instance {
            self.round.incomplete |= self.round.pages > 0;
            self.publishers.clear();
            self.server = Server { instance, ..Server::default() };
        }
        self.round.pages += 1;
        let asked = self.settings.max_streams.max(MIN_COUNT) as usize;
        let full = streams.len() >= asked;
        self.round.incomplete |= streams.len() > asked;
        for stream in streams.into_iter().take(asked) {
            if self.round.ids.insert(stream.id.clone()) {
                self.round.streams.push((reply.asked_at, stream));
            } else {
                self.round.incomplete = true;
            }
        }
        if full && self.round.pages < MAX_PAGES {
            return Ok(vec![self.request(STREAMS)]);
        }
        self.round.incomplete |= full;
        self.round.waiting = self.needed();
        Ok(self.round.waiting.iter().map(|part| self.request(*part)).collect())
    }

    /// The parts that this round needs beside the streams, the clients last.
    fn needed(&self) -> Vec<u32> {
        let streams = || self.round.streams.iter().map(|(_, stream)| stream);
        let new_vhost = |stream: &Stream| !stream.vhost.is_empty() && !self.server.vhosts.contains_key(&stream.vhost);
        let clients = streams().fold(0_u32, |sum, stream| sum.saturating_add(stream.clients.unwrap_or(0)));
        if self.round.alone || streams().next().is_none() {
            return Vec::new();
        }
        let wanted = [
            (VERSION, !self.server.version_asked),
            (VHOSTS, self.server.vhosts.len() < MAX_VHOSTS && streams().any(new_vhost)),
            (CLIENTS, clients > 0 && clients <= self.settings.max_clients),
        ];
        wanted.into_iter().filter_map(|(part, wanted)| wanted.then_some(part)).collect()
    }

    /// Takes in one of the other replies. Any reply counts, whatever it contains: what it lacks is not requested again
    /// in this run of the server.
    fn take_part(&mut self, part: u32, reply: &Reply<'_>) -> Result<(), ProbeError> {
        self.round.waiting.retain(|waiting| *waiting != part);
        match part {
            VERSION => {
                self.server.version_asked = true;
                let answer = Answer::read("srs versions", reply.body)?;
                self.server.version = answer.data.filter(|_| answer.instance() == self.server.instance);
            }
            VHOSTS => {
                let answer = Answer::read("srs vhosts", reply.body);
                let listed = answer.as_ref().map_or(&[][..], |answer| answer.vhosts.as_deref().unwrap_or_default());
                let names = listed.iter().map(|vhost| (vhost.id.clone(), Some(vhost.name.clone())));
                let used = self.round.streams.iter().map(|(_, stream)| (stream.vhost.clone(), None));
                for (id, name) in names.chain(used).take(MAX_VHOSTS) {
                    self.server.vhosts.entry(id).or_insert(name);
                }
                answer?;
            }
            _ => {
                let answer = Answer::read("srs clients", reply.body)?;
                let same = answer.instance() == self.server.instance;
                let clients = answer.clients.ok_or_else(|| malformed("srs clients", &"no clients"))?;
                let asked = self.settings.max_clients.max(MIN_COUNT) as usize;
                let cut = clients.len() >= asked;
                let mut by_stream: BTreeMap<String, Vec<_>> = BTreeMap::new();
                for client in clients.into_iter().take(asked) {
                    by_stream.entry(client.stream.clone()).or_default().push(client);
                }
                self.round.clients = same.then_some(Listed { asked_at: reply.asked_at, by_stream, cut });
            }
        }
        Ok(())
    }

    /// Reports every stream of the round, and which are gone.
    fn report(&mut self, source: &SourceName, now: Timestamp, out: &mut Vec<Observation>) {
        let round = Round { number: self.round.number, ..Round::default() };
        let round = std::mem::replace(&mut self.round, round);
        let common = Common {
            instance: &self.server.instance,
            version: self.server.version,
            clients: round.clients.as_ref(),
            not_viewers: &self.settings.not_viewers,
            partial: round.incomplete,
        };
        let mut before = std::mem::take(&mut self.publishers);
        let mut present: BTreeMap<StreamKey, (Timestamp, &Stream)> = BTreeMap::new();
        for (at, stream) in &round.streams {
            let vhost = self.server.vhosts.get(&stream.vhost).and_then(Option::as_deref);
            let Ok(key) = stream.key(vhost) else { continue };
            let better = present.get(&key).is_none_or(|(_, other)| stream.active() && !other.active());
            if better {
                present.insert(key, (*at, stream));
            }
        }
        let observation = |stream, at, fact| Observation { source: source.clone(), stream, at, fact };
        let gone: Vec<StreamKey> = self.known.iter().filter(|key| !present.contains_key(*key)).cloned().collect();
        if !round.incomplete || self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        if !round.incomplete {
            out.extend(gone.into_iter().map(|key| observation(key, now, Fact::Gone)));
        }
        for (key, (at, stream)) in present {
            let mut publisher = before.remove(&stream.id).unwrap_or_default();
            let view = publisher.view(stream, &common);
            self.publishers.insert(stream.id.clone(), publisher);
            self.known.insert(key.clone());
            out.push(observation(key, at, Fact::Server(Box::new(view))));
        }
        if round.incomplete && before.len() <= MAX_KNOWN {
            self.publishers.extend(before);
        }
    }
}

impl Probe for Srs {
    fn ask(&mut self) -> Vec<Request> {
        self.round = Round {
            number: self.round.number.wrapping_add(1),
            open: true,
            alone: self.round.open && !self.round.alone && self.round.pages > 0,
            ..Round::default()
        };
        vec![self.request(STREAMS)]
    }

    fn read(&mut self, reply: &Reply<'_>, out: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError> {
        let part = reply.tag.wrapping_sub(self.round.number.wrapping_mul(PARTS));
        let expected = if part == STREAMS { self.round.waiting.is_empty() } else { self.round.waiting.contains(&part) };
        if !self.round.open || !expected {
            return Ok(Vec::new());
        }
        let result = if part == STREAMS {
            let result = self.take_streams(reply);
            self.round.incomplete |= result.is_err();
            result
        } else {
            self.take_part(part, reply).map(|()| Vec::new())
        };
        let has_more = result.as_ref().is_ok_and(|more| !more.is_empty());
        if !has_more && self.round.waiting.is_empty() {
            self.report(reply.source, reply.asked_at, out);
        }
        result
    }

    fn read_hook(&mut self, hook: &Hook<'_>, out: &mut Vec<Observation>) -> Result<(), ProbeError> {
        let body: HookBody = serde_json::from_slice(hook.body).map_err(|error| malformed(HOOK, &error))?;
        let begins = body.action == "on_publish";
        if !begins && body.action != "on_unpublish" {
            return Ok(());
        }
        let stream = Some(&body)
            .filter(|body| !body.app.is_empty())
            .ok_or_else(|| malformed(HOOK, &format_args!("{} without app", body.action)))
            .and_then(|body| {
                StreamKey::new(Some(&body.vhost), &body.app, &body.stream)
                    .map_err(|error| malformed(HOOK, &format_args!("stream of {}: {error}", body.action)))
            })?;
        let fact = if begins {
            let (mut class, _) = Descriptor::from_query(&body.param);
            let known = self.publishers.values().find_map(|publisher| publisher.protocol_of(&body.client_id));
            class.stream_type = known.or_else(|| body.protocol());
            class.connection_id = Name::new(&body.client_id).ok();
            Fact::Described(Box::new(class))
        } else {
            self.known.remove(&stream);
            Fact::Gone
        };
        out.push(Observation { source: hook.source.clone(), stream, at: hook.at, fact });
        Ok(())
    }
}

fn build(table: toml::Table) -> Result<Box<dyn Probe>, SettingsError> {
    let settings: Settings = table.try_into().map_err(|error: toml::de::Error| SettingsError(error.to_string()))?;
    if !(MIN_COUNT..=MAX_COUNT).contains(&settings.max_streams) {
        let text = format!("max_streams is {}, must be {MIN_COUNT} to {MAX_COUNT}", settings.max_streams);
        return Err(SettingsError(text));
    }
    if settings.max_clients > MAX_COUNT {
        let text = format!("max_clients is {}, must be at most {MAX_COUNT}", settings.max_clients);
        return Err(SettingsError(text));
    }
    Ok(Box::new(Srs::new(settings)))
}

/// The parts of a round, as in the tag: `round * PARTS + part`, so that a reply of an earlier round is recognised.
const STREAMS: u32 = 0;
const VERSION: u32 = 1;
const VHOSTS: u32 = 2;
const CLIENTS: u32 = 3;
const PARTS: u32 = 4;
/// The server gives at least this many entries, whatever was requested.
const MIN_COUNT: u32 = 10;
/// Most entries that may be requested at once.
const MAX_COUNT: u32 = 10_000;
/// Most pages of streams in a round; what is beyond is missed and the views are marked partial.
const MAX_PAGES: u32 = 8;
/// Most vhost names remembered; streams of further vhosts are named by their URL alone.
const MAX_VHOSTS: usize = 1_024;
/// Most streams remembered while lists are truncated or fail and none can be called gone.
const MAX_KNOWN: usize = 2 * (MAX_PAGES * MAX_COUNT) as usize;
const HOOK: &str = "srs hook";

#[cfg(test)]
mod tests {
    use liveqos_core::model::{Protocol, ServerView};

    use super::*;

    /// A server that answers from memory.
    struct Fake {
        service: &'static str,
        version: (u32, u32, u32),
        streams: String,
        clients: String,
        vhosts: String,
        /// Parts whose reply is replaced.
        instead: HashMap<u32, String>,
        /// Parts that never answer.
        dead: Vec<u32>,
    }

    impl Fake {
        fn new(streams: &str) -> Self {
            Self {
                service: "s1",
                version: (6, 0, 157),
                streams: streams.to_owned(),
                clients: String::new(),
                vhosts: r#"{"id":"v1","name":"__defaultVhost__"}"#.to_owned(),
                instead: HashMap::new(),
                dead: Vec::new(),
            }
        }

        fn body(&self, part: u32) -> String {
            let (major, minor, revision) = self.version;
            let payload = match part {
                STREAMS => format!(r#""streams":[{}]"#, self.streams),
                VERSION => format!(r#""data":{{"major":{major},"minor":{minor},"revision":{revision}}}"#),
                VHOSTS => format!(r#""vhosts":[{}]"#, self.vhosts),
                _ => format!(r#""clients":[{}]"#, self.clients),
            };
            let usual = format!(r#"{{"code":0,"service":"{}","pid":"7",{payload}}}"#, self.service);
            self.instead.get(&part).cloned().unwrap_or(usual)
        }

        /// One round at `second`: the facts reported, the parts requested, the errors.
        fn round(&self, probe: &mut Srs, second: u64) -> (Vec<Fact>, Vec<u32>, Vec<ProbeError>) {
            let (mut out, mut asked, mut errors) = (Vec::new(), Vec::new(), Vec::new());
            let source = "srs".into();
            let mut requests = probe.ask();
            while !requests.is_empty() {
                for request in std::mem::take(&mut requests) {
                    let part = request.tag % PARTS;
                    asked.push(part);
                    if self.dead.contains(&part) {
                        continue;
                    }
                    let body = self.body(part);
                    let (tag, asked_at, body) = (request.tag, Timestamp::from_secs(second), body.as_bytes());
                    match probe.read(&Reply { source: &source, tag, asked_at, body }, &mut out) {
                        Ok(more) => requests.extend(more),
                        Err(error) => errors.push(error),
                    }
                }
            }
            (out.into_iter().map(|observation| observation.fact).collect(), asked, errors)
        }

        fn view(&self, probe: &mut Srs, second: u64) -> ServerView {
            match self.round(probe, second).0.as_slice() {
                [Fact::Server(view)] => (**view).clone(),
                other => panic!("one view expected: {other:?}"),
            }
        }
    }

    /// A stream `live/c1` with `more` fields.
    fn stream(active: bool, more: &str) -> String {
        format!(
            r#"{{"id":"st1","name":"c1","vhost":"v1","app":"live","url":"/live/c1","live_ms":1795405440051,
            "send_bytes":20,"recv_bytes":10,"publish":{{"active":{active},"cid":"{}"}},{more}}}"#,
            if active { "p1" } else { "" }
        )
    }

    fn client(id: &str, kind: &str, more: &str) -> String {
        let publish = kind.ends_with("publish");
        format!(
            r#"{{"id":"{id}","stream":"st1","ip":"192.0.2.1","type":"{kind}","publish":{publish},"alive":10.5{more}}}"#
        )
    }

    fn probe() -> Srs {
        Srs::new(Settings::default())
    }

    fn hook(probe: &mut Srs, body: &str) -> Result<Vec<Observation>, ProbeError> {
        let mut out = Vec::new();
        let source = "srs".into();
        let (at, query, body) = (Timestamp::from_secs(1), "", body.as_bytes());
        probe.read_hook(&Hook { source: &source, at, query, body }, &mut out)?;
        Ok(out)
    }

    #[test]
    fn the_publisher_is_no_viewer() {
        let mut fake = Fake::new(&stream(true, r#""clients":3"#));
        let mut few = Srs::new(Settings { max_clients: 2, ..Settings::default() });
        let (facts, asked, _) = fake.round(&mut few, 100);
        assert_eq!(asked, [STREAMS, VERSION, VHOSTS], "too many clients to ask for their list");
        assert!(matches!(&facts[..], [Fact::Server(view)] if view.viewers == Some(vec![(Protocol::Mixed, 2)])));
        fake.clients =
            [client("p1", "fmle-publish", ""), client("a", "flv-play", ""), client("b", "new-play", "")].join(",");
        let view = fake.view(&mut probe(), 100);
        assert_eq!(view.viewers, Some(vec![(Protocol::HttpFlv, 1), (Protocol::Mixed, 1)]));
        assert_eq!(view.ingest_protocol, Some(Protocol::Rtmp));
        assert_eq!(view.clients.iter().filter(|client| client.publisher).count(), 1);
        let not_viewers = vec!["192.0.2.1".parse().expect("an address")];
        let view = fake.view(&mut Srs::new(Settings { not_viewers, ..Settings::default() }), 100);
        assert_eq!(view.viewers, Some(vec![]));
    }

    #[test]
    fn the_servers_clock_is_no_start() {
        let mut fake = Fake::new(&stream(true, r#""clients":1"#));
        fake.instead.insert(CLIENTS, r#"{"code":1061}"#.to_owned());
        let mut probe = probe();
        assert_eq!(fake.view(&mut probe, 100).started, None);
        fake.instead.clear();
        fake.clients = client("p1", "fmle-publish", "");
        let started = Some(Timestamp::from_millis(89_500));
        assert_eq!(fake.view(&mut probe, 100).started, started);
        assert_eq!(fake.view(&mut probe, 105).started, started, "reported once, it stays");
    }

    #[test]
    fn frames_that_nobody_counts_are_not_measured() {
        let mut fake = Fake::new("");
        let mut probe = probe();
        let mut frames = |second: u64, active: bool, cid: &str, frames: u32| {
            let stream = stream(active, &format!(r#""frames":{frames}"#));
            fake.streams = stream.replace("p1", cid);
            fake.view(&mut probe, second).ingest_frames.map(|total| total.value)
        };
        assert_eq!(frames(100, true, "p1", 0), None, "not counted for the first 20 s");
        assert_eq!(frames(105, true, "p1", 500), Some(500));
        assert_eq!(frames(110, true, "p1", 500), Some(500), "once it has moved, a standing counter means something");
        assert_eq!(frames(115, false, "", 500), None);
        assert_eq!(frames(120, true, "p2", 500), None, "not counted again while viewers wait");
        assert_eq!(frames(125, true, "p2", 625), Some(625));
        fake.instead.insert(STREAMS, "too busy".to_owned());
        assert_eq!(fake.round(&mut probe, 130).2.len(), 1);
        fake.instead.clear();
        let after = fake.view(&mut probe, 135).ingest_frames.map(|total| total.value);
        assert_eq!(after, Some(625), "a failed round drops nothing");
    }

    #[test]
    fn the_version_decides_what_frames_are() {
        let frames = |version, kind: &str| {
            let mut fake = Fake::new("");
            fake.version = version;
            fake.clients = client("p1", kind, "");
            let mut probe = probe();
            for (second, count) in [(100, 0), (105, 50)] {
                fake.streams = stream(true, &format!(r#""clients":1,"frames":{},"video_frames":{count}"#, count * 3));
                if let Some(total) = fake.view(&mut probe, second).ingest_frames {
                    return Some(total.value);
                }
            }
            None
        };
        assert_eq!(frames((7, 0, 121), "fmle-publish"), Some(150));
        assert_eq!(frames((7, 0, 122), "fmle-publish"), Some(50));
        assert_eq!(frames((7, 0, 122), "rtc-publish"), None, "these are packets");
        assert_eq!(frames((8, 0, 18), "what-publish"), None, "these may be packets");
        assert_eq!(frames((8, 0, 19), "rtc-publish"), Some(50));
    }

    #[test]
    fn an_error_with_status_200_is_refused() {
        let mut fake = Fake::new("");
        fake.instead.insert(STREAMS, r#"{"code":1061,"streams":"none","data":7}"#.to_owned());
        let (facts, _, errors) = fake.round(&mut probe(), 100);
        assert!(facts.is_empty());
        assert!(matches!(errors[..], [ProbeError::Refused { code: 1061, .. }]));
    }

    #[test]
    fn the_text_of_a_redirect_is_malformed_and_ends_no_stream() {
        let mut fake = Fake::new(&stream(true, "\"clients\":0"));
        let mut probe = probe();
        fake.view(&mut probe, 100);
        fake.instead.insert(STREAMS, "<a href=\"/api/v1/streams/\">Found</a>".to_owned());
        let (facts, _, errors) = fake.round(&mut probe, 105);
        assert!(facts.is_empty());
        assert!(matches!(errors[..], [ProbeError::Malformed { what: "srs streams", .. }]));
        fake.instead.clear();
        fake.streams.clear();
        assert_eq!(fake.round(&mut probe, 110).0, [Fact::Gone]);
        assert_eq!(fake.round(&mut probe, 115).0, []);
    }

    #[test]
    fn a_failed_part_does_not_hide_the_streams() {
        for part in [VERSION, VHOSTS, CLIENTS] {
            for body in [r#"{"code":2000}"#, "{\"code\":0,\"clie"] {
                let mut fake = Fake::new(&stream(true, r#""clients":2"#));
                fake.instead.insert(part, body.to_owned());
                let mut probe = probe();
                let (facts, _, errors) = fake.round(&mut probe, 100);
                assert_eq!((facts.len(), errors.len()), (1, 1), "part {part}");
            }
        }
    }

    #[test]
    fn after_an_unfinished_round_only_streams_are_requested() {
        let mut fake = Fake::new(&stream(true, r#""clients":2"#));
        fake.dead = vec![CLIENTS];
        let mut probe = probe();
        assert_eq!(fake.round(&mut probe, 100).0, [], "the clients may still come");
        let stale = probe.round.number * PARTS + CLIENTS;
        let (facts, asked, _) = fake.round(&mut probe, 105);
        assert_eq!((facts.len(), asked), (1, vec![STREAMS]));
        let (facts, asked, _) = fake.round(&mut probe, 110);
        assert_eq!((facts.len(), asked), (0, vec![STREAMS, CLIENTS]), "asked again in between");
        let source = "srs".into();
        let (asked_at, body) = (Timestamp::from_secs(111), fake.body(CLIENTS));
        let late = Reply { source: &source, tag: stale, asked_at, body: body.as_bytes() };
        let mut out = Vec::new();
        assert_eq!(probe.read(&late, &mut out), Ok(vec![]));
        assert_eq!(out, [], "a reply of an earlier round is not of this one");
    }

    #[test]
    fn a_restart_changes_every_base() {
        let mut fake = Fake::new(&stream(true, "\"clients\":0"));
        let mut probe = probe();
        let before = fake.view(&mut probe, 100);
        assert_eq!(fake.round(&mut probe, 105).1, [STREAMS]);
        fake.service = "s2";
        let (facts, asked, _) = fake.round(&mut probe, 110);
        assert_eq!(asked, [STREAMS, VERSION, VHOSTS]);
        let [Fact::Server(after)] = &facts[..] else { panic!("one view expected") };
        assert_ne!(before.ingest_bytes.map(|total| total.base), after.ingest_bytes.map(|total| total.base));
    }

    #[test]
    fn viewers_may_wait_without_a_publisher() {
        let mut fake = Fake::new(&stream(false, r#""clients":1,"frames":7"#));
        fake.clients = client("a", "rtc-play", "");
        let view = fake.view(&mut probe(), 100);
        assert_eq!((view.publishing, view.started, view.ingest_bytes), (Some(false), None, None));
        assert_eq!(view.viewers, Some(vec![(Protocol::Webrtc, 1)]));
    }

    #[test]
    fn vhosts_are_named_once() {
        let other =
            stream(true, "\"clients\":0").replace("\"/live/c1\"", "\"v.example/live/c1\"").replace("\"v1\"", "\"v2\"");
        let mut fake = Fake::new(&other);
        fake.vhosts = r#"{"id":"v2","name":"w.example"}"#.to_owned();
        let mut probe = probe();
        fake.view(&mut probe, 100);
        assert!(probe.known.iter().any(|key| key.as_str() == "w.example/live/c1"));
        fake.streams = other.replace("\"v2\"", "\"v3\"");
        fake.round(&mut probe, 105);
        assert!(probe.known.iter().any(|key| key.as_str() == "v.example/live/c1"), "by its URL");
        assert_eq!(fake.round(&mut probe, 110).1, [STREAMS], "an id the server does not name is not asked for again");
    }

    /// One round whose pages hold the streams of these numbers: how many observations were made, and how many of them
    /// are partial views.
    fn pages(probe: &mut Srs, pages: &[(u32, u32)]) -> (usize, usize) {
        let one =
            |id: u32| stream(true, "\"clients\":1").replace("st1", &format!("st{id}")).replace("c1", &format!("c{id}"));
        let source = "srs".into();
        let asked_at = Timestamp::from_secs(100);
        let mut out = Vec::new();
        let mut requests = probe.ask();
        let mut pages = pages.iter();
        while let Some(request) = requests.pop() {
            let tag = request.tag;
            let streams = match (tag % PARTS, pages.next()) {
                (STREAMS, Some((from, to))) => (*from..*to).map(one).collect::<Vec<_>>().join(","),
                _ => String::new(),
            };
            let body = Fake::new(&streams).body(tag % PARTS);
            let body = body.as_bytes();
            let reply = Reply { source: &source, tag, asked_at, body };
            requests.extend(probe.read(&reply, &mut out).expect("a good reply"));
        }
        assert_eq!(pages.next(), None, "every page is asked for");
        let partial = |observation: &&Observation| matches!(&observation.fact, Fact::Server(view) if view.partial);
        (out.len(), out.iter().filter(partial).count())
    }

    #[test]
    fn full_pages_are_followed_and_overlap_is_marked() {
        let mut probe = Srs::new(Settings { max_streams: 10, max_clients: 0, ..Settings::default() });
        assert_eq!(pages(&mut probe, &[(0, 10), (10, 13)]), (13, 0));
        assert_eq!(
            pages(&mut probe, &[(0, 10), (8, 12)]),
            (12, 12),
            "some may be missed between pages, nobody is gone"
        );
        assert_eq!(pages(&mut probe, &[(0, 3)]), (13, 0), "ten are gone, three are present");
        let most: Vec<(u32, u32)> = (0..MAX_PAGES).map(|page| (page * 10, page * 10 + 10)).collect();
        assert_eq!(pages(&mut probe, &most), (80, 80), "the last page was full too");
    }

    #[test]
    fn a_publisher_describes_the_class_in_every_protocol() {
        let protocol = |tc_url: &str, param: &str| {
            let body = format!(
                r#"{{"action":"on_publish","client_id":42,"vhost":"__defaultVhost__","app":"live","stream":"c1","tcUrl":"{tc_url}","param":"{param}"}}"#
            );
            let observed = hook(&mut probe(), &body).expect("a good hook");
            assert_eq!(observed[0].stream.as_str(), "live/c1");
            let Fact::Described(class) = &observed[0].fact else { panic!("described") };
            assert_eq!(class.session_id.as_ref().map(Name::as_str), Some("s1"));
            assert_eq!(class.connection_id.as_ref().map(Name::as_str), Some("42"));
            class.stream_type
        };
        assert_eq!(protocol("rtmp://h/live", "?session_id=s1&session_id=evil"), Some(Protocol::Rtmp));
        assert_eq!(protocol("", "app=live&stream=c1&session_id=s1"), Some(Protocol::Webrtc));
        assert_eq!(protocol("srt://h/live", "session_id=s1"), Some(Protocol::Srt));
        assert_eq!(protocol("", "session_id=s1"), None);
    }

    #[test]
    fn hooks_of_viewers_are_ignored_and_broken_ones_are_errors() {
        for action in ["on_play", "on_stop", "on_hls", "on_dvr", "on_connect"] {
            let body = format!(r#"{{"action":"{action}","app":"live","stream":"c1","param":"?session_id=viewer-1"}}"#);
            assert_eq!(hook(&mut probe(), &body), Ok(vec![]), "{action}");
        }
        let broken = [
            "",
            "action=on_publish",
            "{}",
            r#"{"action":"on_publish"}"#,
            r#"{"action":"on_publish","app":"live"}"#,
            r#"{"action":"on_unpublish","stream":"c1"}"#,
        ];
        for body in broken {
            assert!(matches!(hook(&mut probe(), body), Err(ProbeError::Malformed { .. })), "{body}");
        }
        let deep = format!("{{\"action\":\"on_publish\",\"x\":{}", "[".repeat(100_000));
        assert!(hook(&mut probe(), &deep).is_err());
    }

    #[test]
    fn settings_are_checked() {
        assert!(build(toml::Table::new()).is_ok());
        assert!(build(toml::toml! { max_streams = 9 }).is_err());
        assert!(build(toml::toml! { max_clients = 10001 }).is_err());
        assert!(build(toml::toml! { max_stream = 10 }).is_err());
    }
}
