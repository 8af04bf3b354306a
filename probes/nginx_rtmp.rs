//! nginx-rtmp-module 1.2.2, nginx-http-flv-module and the forks with more fields: the `/stat` XML and the notify hooks.
//! Reports bytes, viewers, dropped messages and the declared frame rate. This server does not know frames, round trips
//! and loss.

mod stat;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::model::descriptor::pairs;
use liveqos_core::model::{Descriptor, Fact, Name, Observation, Protocol, StreamKey};
use serde::Deserialize;

use self::stat::Stat;
use self::worker::{Part, Reading, Worker, merge};
use crate::probe::{Hook, Intake, Kind, Probe, ProbeError, Reply, Request, SettingsError, malformed, observed};

/// nginx with the RTMP module.
pub static KIND: Kind = Kind {
    name: "nginx-rtmp",
    about: "nginx-rtmp-module 1.2 and nginx-http-flv-module: the URL of a location with `rtmp_stat all`",
    intake: Intake::Poll,
    default_url: "http://127.0.0.1:8080/stat",
    default_interval: Duration::from_secs(1),
    media_ports: &[1935],
    processes: &["nginx"],
    status_paths: &["/rtmp_stat", "/status"],
    how_to_enable: &[
        "If it has the RTMP module, add to http { } in nginx.conf, then reload it:",
        "  server { listen 127.0.0.1:8080; location /stat { rtmp_stat all; allow 127.0.0.1; deny all; } }",
        "If it serves no live classes, nothing is to be done.",
    ],
    hook_success: "",
    build,
    schema: || schemars::schema_for!(Settings),
};

/// The settings of a source of this kind.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "NginxRtmpSettings")]
pub struct Settings {
    /// Addresses whose connections are not viewers: edges that pull, transcoders, synthetic viewers. Default: none.
    pub not_viewers: Vec<IpAddr>,
}

/// Polls `/stat`. Each answer covers only one worker process, so the latest answers of all workers are merged.
#[derive(Debug, Default)]
pub struct NginxRtmp {
    settings: Settings,
    round: u64,
    /// By process id, as listed.
    workers: BTreeMap<String, Worker>,
    /// Streams that a hook has reported gone and that are still in the latest answers.
    reported_gone: BTreeSet<StreamKey>,
}

impl NginxRtmp {
    /// A probe that has received nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes in one worker's answer; gives the streams that it may have changed.
    fn take(&mut self, stat: Stat, reading: Reading<'_>) -> BTreeSet<StreamKey> {
        let (pid, cut) = (stat.pid.clone(), stat.cut);
        let earlier = self.workers.remove(&pid);
        let mut touched: BTreeSet<StreamKey> = BTreeSet::new();
        if let Some(earlier) = earlier.as_ref().filter(|_| !cut) {
            touched.extend(earlier.streams.keys().cloned());
        }
        let is_new = earlier.is_none();
        let worker = Worker::next(earlier, stat, reading);
        touched.extend(worker.streams.keys().cloned());
        let replaces = is_new && self.workers.len() == 1;
        self.workers.retain(|_, other| {
            let stays = other.round + WORKER_ROUNDS >= reading.round && !(replaces && worker.younger_than(other));
            if !stays {
                touched.extend(std::mem::take(&mut other.streams).into_keys());
            }
            stays
        });
        if self.workers.len() >= MAX_WORKERS {
            let oldest = self.workers.iter().min_by_key(|(_, worker)| worker.round);
            let oldest = oldest.map(|(pid, _)| pid.clone());
            let lost = oldest.and_then(|pid| self.workers.remove(&pid));
            touched.extend(lost.into_iter().flat_map(|worker| worker.streams.into_keys()));
        }
        self.workers.insert(pid, worker);
        touched
    }

    /// The fact to report about `stream`; none where a hook reported it already.
    fn fact(&mut self, stream: &StreamKey) -> Option<Fact> {
        let of_stream = self.workers.values().filter_map(|worker| worker.streams.get(stream));
        let parts: Vec<&Part> = of_stream.flatten().collect();
        let reported_gone = self.reported_gone.remove(stream);
        if parts.is_empty() {
            return (!reported_gone).then_some(Fact::Gone);
        }
        Some(Fact::Server(Box::new(merge(&parts, self.workers.len() > 1))))
    }
}

impl Probe for NginxRtmp {
    fn ask(&mut self) -> Vec<Request> {
        self.round += 1;
        let requests = if self.workers.len() > 1 { (self.workers.len() * 2).min(MAX_ASKS) } else { 1 };
        vec![Request { path: String::new(), tag: 0 }; requests]
    }

    fn read(&mut self, reply: &Reply<'_>, out: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError> {
        let stat = Stat::read(reply.body)?;
        let not_viewers = self.settings.not_viewers.clone();
        let reading = Reading { asked_at: reply.asked_at, round: self.round, not_viewers: &not_viewers };
        for stream in self.take(stat, reading) {
            if let Some(fact) = self.fact(&stream) {
                out.push(observed(reply, stream, fact));
            }
        }
        Ok(Vec::new())
    }

    fn read_hook(&mut self, hook: &Hook<'_>, out: &mut Vec<Observation>) -> Result<(), ProbeError> {
        let body = String::from_utf8_lossy(hook.body);
        let form = if body.trim().is_empty() { hook.query } else { body.trim() };
        let first = |wanted: &str| pairs(form).find(|(key, _)| *key == wanted).map(|(_, value)| value);
        let call = first("call").ok_or_else(|| malformed(HOOK, &"no call"))?;
        let of_publisher = ["publish", "update_publish", "publish_done"].contains(&call.as_str());
        if !of_publisher || first("addr").is_some_and(|address| address.starts_with("unix:")) {
            return Ok(());
        }
        let app = first("app").ok_or_else(|| malformed(HOOK, &format_args!("{call} without app")))?;
        let name = first("name").ok_or_else(|| malformed(HOOK, &format_args!("{call} without name")))?;
        let stream = StreamKey::new(None, &app, &name)
            .map_err(|error| malformed(HOOK, &format_args!("stream of {call}: {error}")))?;
        let fact = if call == "publish_done" {
            if self.workers.values().any(|worker| worker.streams.contains_key(&stream)) {
                self.reported_gone.insert(stream.clone());
            }
            Fact::Gone
        } else {
            self.reported_gone.remove(&stream);
            let (mut class, _) = Descriptor::from_query(after_name(form));
            class.stream_type = Some(Protocol::Rtmp);
            class.connection_id = first("clientid").and_then(|id| Name::new(&id).ok());
            Fact::Described(Box::new(class))
        };
        out.push(Observation { source: hook.source.clone(), stream, at: hook.at, fact });
        Ok(())
    }
}

/// What follows the stream's name: the publisher's own query, which the module appends unescaped at the end.
fn after_name(form: &str) -> &str {
    let form = form.trim_start_matches('?');
    let name = if form.starts_with("name=") { Some(0) } else { form.find("&name=").map(|at| at + 1) };
    name.and_then(|at| form[at..].split_once('&')).map_or("", |(_, query)| query)
}

fn build(table: toml::Table) -> Result<Box<dyn Probe>, SettingsError> {
    let settings: Settings = table.try_into().map_err(|error: toml::de::Error| SettingsError(error.to_string()))?;
    Ok(Box::new(NginxRtmp::new(settings)))
}

/// Most worker processes remembered; the one silent longest is dropped for a new one.
const MAX_WORKERS: usize = 32;
/// Rounds after which a worker that did not answer is dropped: with several workers, any of them may answer.
const WORKER_ROUNDS: u64 = 6;
/// Most requests of one round where several workers answer.
const MAX_ASKS: usize = 8;
const HOOK: &str = "nginx-rtmp notify";

#[cfg(test)]
mod tests {
    use liveqos_core::model::{ServerView, Timestamp};

    use super::*;

    /// An answer of worker `pid`, `uptime` seconds old, with `streams` in application `live`.
    fn stat(pid: u32, uptime: u32, streams: &str) -> String {
        format!(
            "<rtmp><pid>{pid}</pid><uptime>{uptime}</uptime><server><application><name>live</name><live>{streams}</live>\
             </application></server></rtmp>"
        )
    }

    fn stream(bytes: u32, clients: &str) -> String {
        format!("<stream><name>c1</name><bytes_in>{bytes}</bytes_in><bytes_out>{bytes}</bytes_out>{clients}</stream>")
    }

    fn client(id: u32, more: &str) -> String {
        format!(
            "<client><id>{id}</id><address>192.0.2.{id}</address><time>1000</time><dropped>0</dropped>{more}</client>"
        )
    }

    fn publisher(id: u32) -> String {
        client(id, "<publishing/>")
    }

    fn probe() -> NginxRtmp {
        NginxRtmp::new(Settings::default())
    }

    /// One round at `second` with one answer.
    fn poll(probe: &mut NginxRtmp, second: u64, body: &str) -> Vec<Fact> {
        probe.ask();
        let mut out = Vec::new();
        let source = "n".into();
        let asked_at = Timestamp::from_secs(second);
        let body = body.as_bytes();
        let reply = Reply { source: &source, tag: 0, asked_at, body };
        probe.read(&reply, &mut out).expect("a good answer");
        out.into_iter().map(|observation| observation.fact).collect()
    }

    fn view(facts: Vec<Fact>) -> ServerView {
        match <[Fact; 1]>::try_from(facts) {
            Ok([Fact::Server(view)]) => *view,
            other => panic!("one view expected: {other:?}"),
        }
    }

    fn hook(probe: &mut NginxRtmp, query: &str, body: &str) -> Result<Vec<Observation>, ProbeError> {
        let mut out = Vec::new();
        let source = "n".into();
        let at = Timestamp::from_secs(1);
        let body = body.as_bytes();
        probe.read_hook(&Hook { source: &source, at, query, body }, &mut out)?;
        Ok(out)
    }

    #[test]
    fn answers_of_several_workers_are_merged_and_marked() {
        let mut probe = probe();
        let first = view(poll(&mut probe, 100, &stat(1, 50, &stream(10, &publisher(1)))));
        assert_eq!((first.publishing, first.partial, first.viewers), (Some(true), false, Some(vec![])));
        let both = view(poll(&mut probe, 105, &stat(2, 55, &stream(70, &client(2, "")))));
        assert_eq!((both.publishing, both.partial), (Some(true), true));
        assert_eq!(both.viewers, Some(vec![(Protocol::Rtmp, 1)]));
        assert_eq!(both.clients.len(), 2);
        assert_eq!(both.ingest_bytes, first.ingest_bytes, "only the publisher's worker receives");
        assert_eq!(both.egress_bytes.map(|total| total.value), Some(80));
        assert_ne!(both.egress_bytes.map(|total| total.base), first.egress_bytes.map(|total| total.base));
        assert_eq!(both.bytes_step, Duration::from_secs(5), "one part is as old as that");
        assert_eq!(probe.ask().len(), 4);
        let mut facts = Vec::new();
        for round in 1..=WORKER_ROUNDS {
            facts = poll(&mut probe, 105 + 5 * round, &stat(2, 55 + 5 * round as u32, &stream(70, &client(2, ""))));
        }
        let alone = view(facts);
        assert_eq!((alone.publishing, alone.partial), (Some(false), false), "the silent worker is forgotten");
    }

    #[test]
    fn without_a_publisher_in_a_part_publishing_is_unknown() {
        let mut probe = probe();
        poll(&mut probe, 100, &stat(1, 50, ""));
        let view = view(poll(&mut probe, 105, &stat(2, 55, &stream(70, &client(2, "")))));
        assert_eq!((view.publishing, view.partial), (None, true));
    }

    #[test]
    fn a_restarted_server_replaces_the_old_one() {
        let mut probe = probe();
        let old = view(poll(&mut probe, 100, &stat(1, 50, &stream(1_000, &publisher(1)))));
        let new = view(poll(&mut probe, 105, &stat(9, 2, &stream(2_000, &publisher(1)))));
        assert!(!new.partial && new.clients.len() == 1);
        assert_ne!(old.ingest_bytes.map(|total| total.base), new.ingest_bytes.map(|total| total.base));
        // In a container a restarted server has the same process id.
        let same_pid = view(poll(&mut probe, 110, &stat(9, 1, &stream(3_000, &publisher(1)))));
        assert_ne!(new.ingest_bytes.map(|total| total.base), same_pid.ingest_bytes.map(|total| total.base));
        let later = view(poll(&mut probe, 115, &stat(9, 7, &stream(4_000, &publisher(1)))));
        assert_eq!(same_pid.ingest_bytes.map(|total| total.base), later.ingest_bytes.map(|total| total.base));
        let soon = view(poll(&mut probe, 117, &stat(9, 6, &stream(5_000, &publisher(1)))));
        assert_ne!(later.ingest_bytes.map(|total| total.base), soon.ingest_bytes.map(|total| total.base));
        assert_eq!(poll(&mut probe, 120, &stat(11, 1, "")), [Fact::Gone]);
    }

    #[test]
    fn relays_are_no_viewers_and_copies_no_ingest() {
        let relays = client(3, "<flashver>ngx-local-relay</flashver>")
            + "<client><id>4</id><address>unix:/tmp/nginx-rtmp.1</address></client>"
            + "<client><id>5</id><address>origin.example/live</address></client>";
        let view_of = |streams: &str| view(poll(&mut probe(), 100, &stat(1, 50, streams)));
        let pushing = view_of(&stream(9, &(publisher(1) + &client(2, "") + &relays)));
        assert_eq!(pushing.viewers, Some(vec![(Protocol::Rtmp, 1)]));
        assert_eq!((pushing.clients.len(), pushing.egress_bytes), (2, None), "bytes to relays cannot be distinguished");
        let copy =
            "<client><id>4</id><address>unix:</address><flashver>ngx-local-relay</flashver><publishing/></client>";
        let copied = view_of(&stream(9, copy));
        assert_eq!((copied.publishing, copied.ingest_bytes), (Some(true), None));
        let pull = "<client><id>4</id><address>origin.example/live</address><flashver>ngx-local-relay</flashver><publishing/></client>";
        let pulled = view_of(&stream(9, pull));
        assert_eq!(pulled.ingest_bytes.map(|total| total.value), Some(9));
    }

    #[test]
    fn excluded_addresses_are_no_viewers() {
        let table = toml::toml! { not_viewers = ["192.0.2.2"] };
        let mut probe = NginxRtmp::new(table.try_into().expect("good settings"));
        let streams = stream(9, &(publisher(1) + &client(2, "") + &client(3, "")));
        assert_eq!(view(poll(&mut probe, 100, &stat(1, 50, &streams))).viewers, Some(vec![(Protocol::Rtmp, 1)]));
        assert!(build(toml::toml! { not_viewer = [] }).is_err());
    }

    #[test]
    fn the_frame_rate_is_only_declared() {
        let meta = publisher(1) + "<meta><video><frame_rate>29.970</frame_rate></video></meta>";
        let view = view(poll(&mut probe(), 100, &stat(1, 50, &stream(9, &meta))));
        assert_eq!((view.declared_fps, view.ingest_frames), (Some(29.97), None));
    }

    #[test]
    fn dropped_messages_never_fall_when_a_slow_viewer_leaves() {
        let slow = |id: u32, age: u32, dropped: u32| {
            format!(
                "<client><id>{id}</id><address>192.0.2.9</address><time>{age}</time><dropped>{dropped}</dropped></client>"
            )
        };
        let mut probe = probe();
        let mut dropped = |second: u64, clients: String| {
            let body = stat(1, second as u32 - 50, &stream(9, &(publisher(1) + &clients)));
            view(poll(&mut probe, second, &body)).dropped_messages.expect("reported")
        };
        let first = dropped(100, slow(7, 1_000, 5));
        assert_eq!(dropped(105, slow(7, 6_000, 12)).value, 12);
        assert_eq!(dropped(110, String::new()).value, 12);
        assert_eq!(dropped(115, slow(7, 500, 3)).value, 15, "the number is another connection's now");
        let last = dropped(120, slow(7, 5_500, 3));
        assert_eq!((last.base, last.value), (first.base, 15));
    }

    #[test]
    fn forks_report_viewers_bytes_and_protocol() {
        let clients = publisher(1)
            + &client(2, "<flashver>flv_live 1.1</flashver><bytes_out>50</bytes_out><port>4711</port>")
            + &client(3, "<flashver>ngx-local-relay</flashver><bytes_out>900</bytes_out>");
        let view = view(poll(&mut probe(), 100, &stat(1, 50, &stream(9, &clients))));
        assert_eq!(view.viewers, Some(vec![(Protocol::HttpFlv, 1)]));
        assert_eq!(view.egress_bytes.map(|total| total.value), Some(50));
    }

    #[test]
    fn without_client_blocks_only_a_number_is_known() {
        let counted = "<nclients>3</nclients><publishing/>";
        let view = view(poll(&mut probe(), 100, &stat(1, 50, &stream(9, counted))));
        assert_eq!((view.viewers, view.dropped_messages), (Some(vec![(Protocol::Mixed, 2)]), None));
        assert_eq!(view.ingest_bytes.map(|total| total.value), Some(9));
    }

    #[test]
    fn a_new_publisher_is_a_new_base() {
        let mut probe = probe();
        let mut base = |second: u64, id: u32| {
            let body = stat(1, second as u32 - 50, &stream(9, &publisher(id)));
            view(poll(&mut probe, second, &body)).ingest_bytes.map(|total| total.base)
        };
        assert_eq!(base(100, 1), base(105, 1));
        assert_ne!(base(110, 1), base(115, 2));
    }

    #[test]
    fn a_stream_is_reported_gone_once() {
        let mut probe = probe();
        poll(&mut probe, 100, &stat(1, 50, &stream(9, &publisher(1))));
        assert_eq!(poll(&mut probe, 105, &stat(1, 55, "")), [Fact::Gone]);
        assert_eq!(poll(&mut probe, 110, &stat(1, 60, "")), []);
        poll(&mut probe, 115, &stat(1, 65, &stream(9, &publisher(2))));
        let observed = hook(&mut probe, "", "app=live&call=publish_done&name=c1").expect("a good hook");
        assert_eq!(observed[0].fact, Fact::Gone);
        assert_eq!(poll(&mut probe, 120, &stat(1, 70, "")), [], "the hook reported it");
    }

    #[test]
    fn a_hostile_query_cannot_rename_its_stream() {
        let body = "app=live&addr=192.0.2.1&clientid=4&call=publish&name=c1&type=live&session_id=s1&name=c2&app=x&clientid=9&call=play";
        let observed = hook(&mut probe(), "", body).expect("a good hook");
        assert_eq!(observed[0].stream.as_str(), "live/c1");
        let Fact::Described(class) = &observed[0].fact else { panic!("described") };
        assert_eq!(class.connection_id.as_ref().map(Name::as_str), Some("4"));
        assert_eq!(class.session_id.as_ref().map(Name::as_str), Some("s1"));
        assert_eq!(class.stream_type, Some(Protocol::Rtmp));
        let early = "session_id=forged&app=live&call=publish&name=c1&course_id=c9";
        let observed = hook(&mut probe(), early, "").expect("a good hook by GET");
        let Fact::Described(class) = &observed[0].fact else { panic!("described") };
        assert_eq!(class.session_id, None, "only what follows the name is the publisher's query");
        assert_eq!(class.course_id.as_ref().map(Name::as_str), Some("c9"));
    }

    #[test]
    fn hooks_of_viewers_describe_no_class() {
        for call in ["play", "update_play", "play_done", "done", "connect", "disconnect", "record_done"] {
            let body = format!("app=live&clientid=8&call={call}&name=c1&session_id=viewer-1");
            assert_eq!(hook(&mut probe(), "", &body), Ok(vec![]), "{call}");
        }
        let copy = "app=live&addr=unix:&call=publish_done&name=c1";
        assert_eq!(hook(&mut probe(), "", copy), Ok(vec![]), "another worker's copy ended");
    }

    #[test]
    fn incomplete_hooks_are_errors() {
        for body in
            ["", "app=live&name=c1", "call=publish&name=c1", "call=publish&app=live", "call=publish&app=live&name="]
        {
            assert!(matches!(hook(&mut probe(), "", body), Err(ProbeError::Malformed { .. })), "{body}");
        }
    }

    #[test]
    fn the_number_of_workers_is_bounded() {
        let mut probe = probe();
        for pid in 0..2 * MAX_WORKERS as u32 {
            let reply = stat(pid, 50, &stream(9, &client(2, "")));
            let source = "n".into();
            let asked_at = Timestamp::from_secs(100);
            let reply = Reply { source: &source, tag: 0, asked_at, body: reply.as_bytes() };
            probe.read(&reply, &mut Vec::new()).expect("a good answer");
        }
        assert_eq!(probe.workers.len(), MAX_WORKERS);
        assert_eq!(probe.ask().len(), MAX_ASKS);
    }
}
