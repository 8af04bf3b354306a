//! nginx-rtmp-module 1.2.2, nginx-http-flv-module and the forks with more fields: the `/stat` XML and the notify hooks. Tells
//! bytes, viewers, dropped messages and the declared frame rate; frames, round trips and loss this server does not know.

mod stat;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::descriptor::{Descriptor, pairs};
use liveqos_core::observation::{Fact, Observation};
use liveqos_core::session::{Name, Protocol, StreamKey};
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
    default_interval: Duration::from_secs(5),
    media_ports: &[1935],
    processes: &["nginx"],
    build,
    schema: || schemars::schema_for!(Settings),
};

/// What may be set for a source of this kind.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "NginxRtmpSettings")]
pub struct Settings {
    /// Addresses whose connections are no viewers: edges that pull, transcoders, synthetic viewers. Default: none.
    pub not_viewers: Vec<IpAddr>,
}

/// Polls `/stat`. One answer speaks for one worker process only, so the latest answers of all workers seen are put together.
#[derive(Debug, Default)]
pub struct NginxRtmp {
    settings: Settings,
    round: u64,
    /// By process id, as listed.
    workers: BTreeMap<String, Worker>,
    /// Streams a hook has already called gone that are still in the latest answers.
    told_gone: BTreeSet<StreamKey>,
}

impl NginxRtmp {
    /// A probe that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
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

    /// What is now to be said of `stream`; nothing where a hook said it already.
    fn fact(&mut self, stream: &StreamKey) -> Option<Fact> {
        let of_stream = self.workers.values().filter_map(|worker| worker.streams.get(stream));
        let parts: Vec<&Part> = of_stream.flatten().collect();
        let told_gone = self.told_gone.remove(stream);
        if parts.is_empty() {
            return (!told_gone).then_some(Fact::Gone);
        }
        Some(Fact::Server(Box::new(merge(&parts, self.workers.len() > 1))))
    }
}

impl Probe for NginxRtmp {
    fn ask(&mut self) -> Vec<Request> {
        self.round += 1;
        let requests = if self.workers.len() > 1 {
            (self.workers.len() * 2).min(MAX_ASKS)
        } else {
            1
        };
        vec![
            Request {
                path: String::new(),
                tag: 0
            };
            requests
        ]
    }

    fn read(&mut self, reply: &Reply<'_>, out: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError> {
        let stat = Stat::read(reply.body)?;
        let not_viewers = self.settings.not_viewers.clone();
        let reading = Reading {
            asked_at: reply.asked_at,
            round: self.round,
            not_viewers: &not_viewers,
        };
        for stream in self.take(stat, reading) {
            if let Some(fact) = self.fact(&stream) {
                out.push(observed(reply, stream, fact));
            }
        }
        Ok(Vec::new())
    }

    fn read_hook(&mut self, hook: &Hook<'_>, out: &mut Vec<Observation>) -> Result<(), ProbeError> {
        let body = String::from_utf8_lossy(hook.body);
        let form = if body.trim().is_empty() {
            hook.query
        } else {
            body.trim()
        };
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
                self.told_gone.insert(stream.clone());
            }
            Fact::Gone
        } else {
            self.told_gone.remove(&stream);
            let (mut class, _) = Descriptor::from_query(after_name(form));
            class.stream_type = Some(Protocol::Rtmp);
            class.connection_id = first("clientid").and_then(|id| Name::new(&id).ok());
            Fact::Described(Box::new(class))
        };
        out.push(Observation {
            source: hook.source.clone(),
            stream,
            at: hook.at,
            fact,
        });
        Ok(())
    }
}

/// What stands after the stream's name: the publisher's own query, which the module appends unescaped at the end.
fn after_name(form: &str) -> &str {
    let form = form.trim_start_matches('?');
    let name = if form.starts_with("name=") {
        Some(0)
    } else {
        form.find("&name=").map(|at| at + 1)
    };
    name.and_then(|at| form[at..].split_once('&'))
        .map_or("", |(_, query)| query)
}

fn build(table: toml::Table) -> Result<Box<dyn Probe>, SettingsError> {
    let settings: Settings = table
        .try_into()
        .map_err(|error: toml::de::Error| SettingsError(error.to_string()))?;
    Ok(Box::new(NginxRtmp::new(settings)))
}

/// Worker processes remembered at once; the one silent longest makes room.
const MAX_WORKERS: usize = 32;
/// Rounds after which a worker that did not answer is forgotten: with several workers each answer comes from any of them.
const WORKER_ROUNDS: u64 = 6;
/// Most requests of one round where several workers answer.
const MAX_ASKS: usize = 8;
const HOOK: &str = "nginx-rtmp notify";
