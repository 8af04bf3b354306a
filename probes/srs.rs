//! SRS 5, 6, 7 and 8: the HTTP API and the HTTP hooks. Tells bytes, frames of the publisher and viewers by protocol; round trips,
//! loss and ports this server does not tell, and its `live_ms` is a clock, not a start.

mod answer;
mod track;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use liveqos_core::descriptor::Descriptor;
use liveqos_core::observation::{Fact, Observation, SourceName};
use liveqos_core::session::{Name, StreamKey};
use liveqos_core::time::Timestamp;
use serde::Deserialize;

use self::answer::{Answer, HookBody, Stream, Version};
use self::track::{Common, Listed, Track};
use crate::probe::{Hook, Intake, Kind, Probe, ProbeError, Reply, Request, SettingsError, malformed};

/// SRS (Simple Realtime Server).
pub static KIND: Kind = Kind {
    name: "srs",
    about: "SRS 5 to 8 with `http_api` on: the base URL of its API",
    intake: Intake::Poll,
    default_url: "http://127.0.0.1:1985",
    default_interval: Duration::from_secs(5),
    media_ports: &[1935, 8080],
    processes: &["srs"],
    build,
    schema: || schemars::schema_for!(Settings),
};

/// What may be set for a source of this kind.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SrsSettings")]
pub struct Settings {
    /// Streams asked for at once, 10 to 10000; pages of one list are not stable, so it should hold all. Default: 1000.
    #[schemars(range(min = 10, max = 10_000))]
    pub max_streams: u32,
    /// Most connections on the node for which the list of clients is asked, 0 to 10000: above it viewers are told as one number
    /// of all protocols, since the list is made on the server's only media thread. Default: 500.
    #[schemars(range(max = 10_000))]
    pub max_clients: u32,
    /// Addresses whose connections are no viewers: edges that pull, synthetic viewers. Only kept to while the list of clients is
    /// asked. Default: none.
    pub not_viewers: Vec<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_streams: 1_000,
            max_clients: 500,
            not_viewers: Vec::new(),
        }
    }
}

/// Polls the API. A round is the list of streams, then what it showed to be needed: version, vhost names, clients.
#[derive(Debug, Default)]
pub struct Srs {
    settings: Settings,
    server: Server,
    round: Round,
    /// By stream id.
    tracks: HashMap<String, Track>,
    /// Streams told as present and not yet as gone.
    known: BTreeSet<StreamKey>,
}

/// What holds for one run of the server.
#[derive(Debug, Default)]
struct Server {
    instance: String,
    version: Option<Version>,
    /// The version was answered, or refused.
    version_asked: bool,
    /// Names by id; nothing where the server does not tell the id's name.
    vhosts: HashMap<String, Option<String>>,
}

/// One round: open from its question to the last needed reply.
#[derive(Debug, Default)]
struct Round {
    number: u32,
    open: bool,
    /// The round before was never finished: this one asks for the streams alone, so that one dead path does not hide them all.
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
    /// A probe that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    fn request(&self, part: u32) -> Request {
        let streams = self.settings.max_streams;
        let path = match part {
            STREAMS => format!("/api/v1/streams/?start={}&count={streams}", self.round.pages * streams),
            VERSION => "/api/v1/versions".to_owned(),
            VHOSTS => "/api/v1/vhosts/".to_owned(),
            _ => format!(
                "/api/v1/clients/?start=0&count={}",
                self.settings.max_clients.max(MIN_COUNT)
            ),
        };
        let tag = self.round.number.wrapping_mul(PARTS).wrapping_add(part);
        Request { path, tag }
    }

    /// Takes in a page of streams; gives what is to be asked next.
    fn take_streams(&mut self, reply: &Reply<'_>) -> Result<Vec<Request>, ProbeError> {
        let answer = Answer::read("srs streams", reply.body)?;
        let instance = answer.instance();
        let streams = answer.streams.ok_or_else(|| malformed("srs streams", &"no streams"))?;
        if instance != self.server.instance {
            self.round.incomplete |= self.round.pages > 0;
            self.tracks.clear();
            self.server = Server {
                instance,
                ..Server::default()
            };
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

    /// What this round needs beside the streams, the clients last.
    fn needed(&self) -> Vec<u32> {
        let streams = || self.round.streams.iter().map(|(_, stream)| stream);
        let new_vhost = |stream: &Stream| !stream.vhost.is_empty() && !self.server.vhosts.contains_key(&stream.vhost);
        let clients = streams().fold(0_u32, |sum, stream| sum.saturating_add(stream.clients.unwrap_or(0)));
        if self.round.alone || streams().next().is_none() {
            return Vec::new();
        }
        let wanted = [
            (VERSION, !self.server.version_asked),
            (
                VHOSTS,
                self.server.vhosts.len() < MAX_VHOSTS && streams().any(new_vhost),
            ),
            (CLIENTS, clients > 0 && clients <= self.settings.max_clients),
        ];
        wanted
            .into_iter()
            .filter_map(|(part, wanted)| wanted.then_some(part))
            .collect()
    }

    /// Takes in one of the other replies. That it came counts, whatever it says: what it lacks is not asked for again in this run.
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
                let listed = answer
                    .as_ref()
                    .map_or(&[][..], |answer| answer.vhosts.as_deref().unwrap_or_default());
                let names = listed.iter().map(|vhost| (vhost.id.clone(), Some(vhost.name.clone())));
                let used = self
                    .round
                    .streams
                    .iter()
                    .map(|(_, stream)| (stream.vhost.clone(), None));
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
                self.round.clients = same.then_some(Listed {
                    asked_at: reply.asked_at,
                    by_stream,
                    cut,
                });
            }
        }
        Ok(())
    }

    /// Tells every stream of the round, and which are gone.
    fn tell(&mut self, source: &SourceName, now: Timestamp, out: &mut Vec<Observation>) {
        let round = Round {
            number: self.round.number,
            ..Round::default()
        };
        let round = std::mem::replace(&mut self.round, round);
        let common = Common {
            instance: &self.server.instance,
            version: self.server.version,
            clients: round.clients.as_ref(),
            not_viewers: &self.settings.not_viewers,
            partial: round.incomplete,
        };
        let mut before = std::mem::take(&mut self.tracks);
        let mut present: BTreeMap<StreamKey, (Timestamp, &Stream)> = BTreeMap::new();
        for (at, stream) in &round.streams {
            let vhost = self.server.vhosts.get(&stream.vhost).and_then(Option::as_deref);
            let Ok(key) = stream.key(vhost) else { continue };
            let better = present
                .get(&key)
                .is_none_or(|(_, other)| stream.active() && !other.active());
            if better {
                present.insert(key, (*at, stream));
            }
        }
        let tell = |stream, at, fact| Observation {
            source: source.clone(),
            stream,
            at,
            fact,
        };
        let gone: Vec<StreamKey> = self
            .known
            .iter()
            .filter(|key| !present.contains_key(*key))
            .cloned()
            .collect();
        if !round.incomplete || self.known.len() > MAX_KNOWN {
            self.known.clear();
        }
        if !round.incomplete {
            out.extend(gone.into_iter().map(|key| tell(key, now, Fact::Gone)));
        }
        for (key, (at, stream)) in present {
            let mut track = before.remove(&stream.id).unwrap_or_default();
            let view = track.view(stream, &common);
            self.tracks.insert(stream.id.clone(), track);
            self.known.insert(key.clone());
            out.push(tell(key, at, Fact::Server(Box::new(view))));
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
        let expected = if part == STREAMS {
            self.round.waiting.is_empty()
        } else {
            self.round.waiting.contains(&part)
        };
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
        let asks_on = result.as_ref().is_ok_and(|more| !more.is_empty());
        if !asks_on && self.round.waiting.is_empty() {
            self.tell(reply.source, reply.asked_at, out);
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
            let known = self
                .tracks
                .values()
                .find_map(|track| track.protocol_of(&body.client_id));
            class.stream_type = known.or_else(|| body.protocol());
            class.connection_id = Name::new(&body.client_id).ok();
            Fact::Described(Box::new(class))
        } else {
            self.known.remove(&stream);
            Fact::Gone
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

fn build(table: toml::Table) -> Result<Box<dyn Probe>, SettingsError> {
    let settings: Settings = table
        .try_into()
        .map_err(|error: toml::de::Error| SettingsError(error.to_string()))?;
    if !(MIN_COUNT..=MAX_COUNT).contains(&settings.max_streams) {
        let text = format!(
            "max_streams is {}, must be {MIN_COUNT} to {MAX_COUNT}",
            settings.max_streams
        );
        return Err(SettingsError(text));
    }
    if settings.max_clients > MAX_COUNT {
        let text = format!("max_clients is {}, must be at most {MAX_COUNT}", settings.max_clients);
        return Err(SettingsError(text));
    }
    Ok(Box::new(Srs::new(settings)))
}

/// The parts of a round, as they stand in the tag: `round * PARTS + part`, so that a reply of an earlier round is known as such.
const STREAMS: u32 = 0;
const VERSION: u32 = 1;
const VHOSTS: u32 = 2;
const CLIENTS: u32 = 3;
const PARTS: u32 = 4;
/// The server gives at least this many entries, whatever was asked.
const MIN_COUNT: u32 = 10;
/// Most entries that may be asked for at once.
const MAX_COUNT: u32 = 10_000;
/// Most pages of streams in a round; what is beyond is missed and the views are marked partial.
const MAX_PAGES: u32 = 8;
/// Vhost names remembered; streams of further vhosts are named by their URL alone.
const MAX_VHOSTS: usize = 1_024;
/// Streams remembered as present while lists come cut short and nothing can be called gone.
const MAX_KNOWN: usize = 2 * (MAX_PAGES * MAX_COUNT) as usize;
const HOOK: &str = "srs hook";
