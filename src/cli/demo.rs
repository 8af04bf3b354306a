//! `liveqos demo`: the whole daemon on an embedded class, so that anyone sees it work without a server or a network.
//! Decides the script (healthy, loss, healthy, squeeze, healthy); the media, the losses and the measurements are real.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use liveqos_core::model::{Fact, Notice, NoticeState, Observation, SourceName, StreamKey, Subject, Timestamp};
use liveqos_probes::probe::{Intake, Kind, Probe, ProbeError, Reply, Request};
use tokio::time::Instant;

use super::arguments::{ConfigFile, bad_config, fail, print};
use super::run::runtime;
use super::style::{Colour, paint, stdout_takes_colour};
use crate::app::App;
use crate::config::Config;
use crate::demo::{Class, ClassOptions, Impairment, MAX_VIEWERS, ViewerTotals, viewer_report};
use crate::engine::{RecordTo, Snapshot};
use crate::intake::{RoundReport, SourceSettings};
use crate::platform::{clock, log, rfc3339};
use crate::players::Key;

/// What the demonstration may be told.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Length of the class in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// Viewers in the class
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VIEWERS)))]
    viewers: u32,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    record: RecordTo,
}

/// Runs the demonstration.
pub(super) fn run(options: &Options) -> ExitCode {
    let mut config = match options.file.load_only() {
        Ok(config) => config,
        Err(error) => return bad_config(&error),
    };
    // The class is inside this process: nothing on the host is asked, and the screen belongs to the story.
    config.sources = vec![SourceSettings { kind: KIND.name.to_owned(), ..SourceSettings::default() }];
    config.discover = false;
    config.logs.clear();
    // Nobody is woken by a demonstration.
    config.alerts.webhooks.clear();
    config.kernel.tcp_info = false;
    if options.file.log.is_none() && config.log.level == "info" {
        "error".clone_into(&mut config.log.level);
    }
    if let Err(error) = log::start(&config.log) {
        return bad_config(&error);
    }
    match runtime().and_then(|runtime| runtime.block_on(class(options, &config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

async fn class(options: &Options, config: &Config) -> Result<()> {
    let key_bytes: [u8; 32] = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| anyhow::anyhow!("no randomness for the class's key"))?
        .expose();
    let key = Key::new(&key_bytes)?;
    let app = App::start_with(config, Some(key.clone()), &[&KIND], &options.record, || {}).await?;
    let screen = Screen { colour: stdout_takes_colour(), began: Instant::now() };
    screen.say(&format!("the page is at http://{}/, metrics at http://{}/metrics", app.address(), app.address()), None);
    let options_of_class = ClassOptions { viewers: options.viewers, seed: clock::now().nanos(), clock: clock::now };
    let class = Class::start(options_of_class).await.context("starting the class")?;
    screen.say(&format!("class {SESSION}: {} viewers by WebRTC, each behind a link of its own", options.viewers), None);
    let token = key.sign(SESSION, clock::now() + Duration::from_secs(options.seconds + 60));
    let mut play = Play {
        class: &class,
        app: &app,
        source: SourceName::from(KIND.name),
        stream: StreamKey::parse(SESSION).context("the class's name")?,
        client: reqwest::Client::builder().no_proxy().build().context("building the viewers' http client")?,
        beacon: format!("http://{}/v1/beacon", app.address()),
        token,
        reported: BTreeMap::new(),
    };
    let outcome = tokio::select! {
        outcome = play.run(options.seconds, &screen) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    drop(play);
    class.stop().await;
    app.stop().await;
    screen.say("the class is over", None);
    outcome
}

/// The class as its parts report it: the node as a media server would, each viewer as a player would.
struct Play<'a> {
    class: &'a Class,
    app: &'a App,
    source: SourceName,
    stream: StreamKey,
    client: reqwest::Client,
    beacon: String,
    token: String,
    reported: BTreeMap<u32, (Timestamp, ViewerTotals)>,
}

impl Play<'_> {
    async fn run(&mut self, seconds: u64, screen: &Screen) -> Result<()> {
        let mut acts = script(seconds).into_iter().peekable();
        let mut known: Vec<Notice> = Vec::new();
        let mut cut = None;
        let mut ticks = tokio::time::interval(TICK);
        let mut count = 0_u64;
        while screen.began.elapsed() < Duration::from_secs(seconds) {
            ticks.tick().await;
            if let Some(act) = acts.next_if(|act| screen.began.elapsed() >= act.at) {
                act.play(self.class);
                screen.say(&act.text, Some(Colour::Yellow));
            }
            if count.is_multiple_of(SERVER_EVERY) {
                self.observe_server();
            }
            self.report_viewers(count).await?;
            let snapshot = self.app.snapshot();
            screen.tell_notices(&snapshot, &mut known);
            screen.tell_sample(&snapshot, &mut cut);
            count += 1;
        }
        Ok(())
    }

    fn observe_server(&self) {
        let started = Instant::now();
        let fact = Fact::Server(Box::new(self.class.view()));
        let observation =
            Observation { source: self.source.clone(), stream: self.stream.clone(), at: clock::now(), fact };
        // When the engine is that busy, the next view says the same and more.
        self.app.observations().try_send(vec![observation]).unwrap_or_default();
        if let Some(entry) = self.app.source(KIND.name) {
            entry.round(&RoundReport {
                at: clock::now(),
                duration: started.elapsed(),
                gap: TICK * SERVER_EVERY as u32,
                observations: 1,
                streams: 1,
                failures: Vec::new(),
            });
        }
    }

    /// Each viewer reports once a second, spread over the second as players are.
    async fn report_viewers(&mut self, count: u64) -> Result<()> {
        let now = clock::now();
        for totals in self.class.viewers(now) {
            if u64::from(totals.viewer) % SERVER_EVERY != count % SERVER_EVERY {
                continue;
            }
            let was = self.reported.insert(totals.viewer, (now, totals)).map(|(_, was)| was).unwrap_or_default();
            let request = self.client.post(&self.beacon).bearer_auth(&self.token).json(&viewer_report(
                SESSION,
                count / SERVER_EVERY,
                &was,
                &totals,
            ));
            let status = request.send().await.context("a viewer's report")?.status();
            anyhow::ensure!(status.is_success(), "a viewer's report was answered with {status}");
        }
        Ok(())
    }
}

/// One turn of the story.
struct Act {
    at: Duration,
    text: String,
    impairment: Option<Impairment>,
}

impl Act {
    fn play(&self, class: &Class) {
        match self.impairment {
            Some(impairment) => class.impair(1.0, impairment),
            None => class.heal(),
        }
    }
}

/// Loss in the second quarter, a squeeze in the last third, healthy before, between and after.
fn script(seconds: u64) -> Vec<Act> {
    let at = |share: f64| Duration::from_secs_f64(seconds as f64 * share);
    let loss = Impairment { loss_ratio: LOSS, ..Impairment::default() };
    let squeeze =
        Impairment { rate_bits_per_second: Some(SQUEEZE), queue_bytes: SQUEEZE_QUEUE, ..Impairment::default() };
    vec![
        Act {
            at: at(0.25),
            text: format!("fault: every link loses {:.0} % of its packets", LOSS * 100.0),
            impairment: Some(loss),
        },
        Act { at: at(0.45), text: "the links are good again".to_owned(), impairment: None },
        Act {
            at: at(0.65),
            text: format!("fault: every link is squeezed to {} kbit/s", SQUEEZE / 1_000),
            impairment: Some(squeeze),
        },
        Act { at: at(0.85), text: "the links are good again".to_owned(), impairment: None },
    ]
}

/// What the person at the terminal sees.
struct Screen {
    colour: bool,
    began: Instant,
}

impl Screen {
    fn say(&self, text: &str, colour: Option<Colour>) {
        let at = paint(format!("{:6.1} s", self.began.elapsed().as_secs_f64()), Colour::Dim, self.colour);
        let text = colour.map_or_else(|| text.to_owned(), |colour| paint(text, colour, self.colour));
        print(&format!("{at}  {text}\n"));
    }

    fn tell_notices(&self, snapshot: &Snapshot, known: &mut Vec<Notice>) {
        let is_of = |a: &Notice, b: &Notice| a.alert == b.alert && a.subject.key() == b.subject.key();
        for notice in snapshot.alerts.iter().filter(|notice| matches!(notice.subject, Subject::Session(_))) {
            if !known.iter().any(|old| is_of(old, notice)) {
                let onset = rfc3339::text(notice.started_at);
                self.say(
                    &format!("ALERT {} {} (onset {onset})", notice.alert.as_str(), notice.summary()),
                    Some(Colour::Red),
                );
                known.push(notice.clone());
            }
        }
        known.retain(|old| {
            let holds = snapshot.alerts.iter().any(|notice| is_of(old, notice) && notice.state == NoticeState::Firing);
            if !holds {
                self.say(&format!("resolved {}", old.alert.as_str()), Some(Colour::Green));
            }
            holds
        });
    }

    fn tell_sample(&self, snapshot: &Snapshot, cut: &mut Option<Timestamp>) {
        if snapshot.cut_at == *cut {
            return;
        }
        *cut = snapshot.cut_at;
        if let Some(sample) = snapshot.sessions.get(SESSION).and_then(|state| state.sample.as_ref()) {
            self.say(&super::top::line(sample), None);
        }
    }
}

/// The class's node as a source: it is read inside this process, nothing is asked over the network.
static KIND: Kind = Kind {
    name: "demo",
    about: "the embedded class",
    intake: Intake::Push,
    default_url: "http://127.0.0.1/",
    default_interval: Duration::from_secs(1),
    media_ports: &[],
    processes: &[],
    status_paths: &[],
    how_to_enable: &[],
    hook_success: "",
    build: |_| Ok(Box::new(Silent)),
    schema: || schemars::Schema::default(),
};

/// Asks nothing and is told nothing: the demonstration observes its node directly.
struct Silent;

impl Probe for Silent {
    fn ask(&mut self) -> Vec<Request> {
        Vec::new()
    }

    fn read(&mut self, _: &Reply<'_>, _: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError> {
        Ok(Vec::new())
    }
}

const SESSION: &str = "demo";
/// Ticks of the story: a quarter of a second.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two views of the node, and between two reports of one viewer.
const SERVER_EVERY: u64 = 4;
const LOSS: f64 = 0.08;
/// Less than half of what the clip needs.
const SQUEEZE: u64 = 150_000;
const SQUEEZE_QUEUE: usize = 16 * 1024;
