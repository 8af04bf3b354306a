//! `liveqos demo`: the whole daemon on an embedded class, without a server or a network. The faults follow a script
//! (healthy, loss, healthy, limited bandwidth, healthy); media, losses and measurements are real.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use liveqos_core::model::{Fact, Notice, NoticeState, Observation, SourceName, StreamKey, Subject, Timestamp};
use liveqos_probes::probe::{Intake, Kind, Probe, ProbeError, Reply, Request};
use tokio::time::Instant;

use super::config_file::ConfigFile;
use super::output::{bad_config, fail, print};
use super::run::runtime;
use super::style::{Colour, paint, stdout_supports_colour};
use crate::app::App;
use crate::config::Config;
use crate::demo::{Class, ClassOptions, Impairment, MAX_VIEWERS, ViewerTotals, viewer_report};
use crate::engine::{RecordTo, Snapshot};
use crate::intake::{RoundReport, SourceSettings};
use crate::platform::{clock, log, rfc3339};
use crate::players::Key;

/// Options of the demonstration.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Length of the class in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// Number of viewers in the class
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
    // The class is inside this process: no server on the host is polled, and the terminal is for the demonstration.
    config.sources = vec![SourceSettings { kind: KIND.name.to_owned(), ..SourceSettings::default() }];
    config.discover = false;
    config.logs.clear();
    // A demonstration must not notify anybody.
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
        .map_err(|_| anyhow::anyhow!("the system has no randomness for the class's key"))?
        .expose();
    let key = Key::new(&key_bytes)?;
    let app = App::start_with(config, Some(key.clone()), &[&KIND], &options.record, || {}).await?;
    let screen = Screen { colour: stdout_supports_colour(), began: Instant::now() };
    screen.print(
        &format!("the status page is at http://{}/, metrics at http://{}/metrics", app.address(), app.address()),
        None,
    );
    let options_of_class = ClassOptions { viewers: options.viewers, seed: clock::now().nanos(), clock: clock::now };
    let class = Class::start(options_of_class).await.context("starting the class")?;
    screen.print(&format!("class {SESSION}: {} viewers over WebRTC, each behind its own link", options.viewers), None);
    let token = key.sign(SESSION, clock::now() + Duration::from_secs(options.seconds + 60));
    let mut demonstration = Demonstration {
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
        outcome = demonstration.run(options.seconds, &screen) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    drop(demonstration);
    class.stop().await;
    app.stop().await;
    screen.print("the class has ended", None);
    outcome
}

/// The class and its reports: the node as a media server would report, each viewer as a player would.
struct Demonstration<'a> {
    class: &'a Class,
    app: &'a App,
    source: SourceName,
    stream: StreamKey,
    client: reqwest::Client,
    beacon: String,
    token: String,
    reported: BTreeMap<u32, (Timestamp, ViewerTotals)>,
}

impl Demonstration<'_> {
    async fn run(&mut self, seconds: u64, screen: &Screen) -> Result<()> {
        let mut steps = script(seconds).into_iter().peekable();
        let mut known: Vec<Notice> = Vec::new();
        let mut cut = None;
        let mut ticks = tokio::time::interval(TICK);
        let mut count = 0_u64;
        while screen.began.elapsed() < Duration::from_secs(seconds) {
            ticks.tick().await;
            if let Some(step) = steps.next_if(|step| screen.began.elapsed() >= step.at) {
                step.apply(self.class);
                screen.print(&step.text, Some(Colour::Yellow));
            }
            if count.is_multiple_of(REPORT_EVERY_TICKS) {
                self.observe_server();
            }
            self.report_viewers(count).await?;
            let snapshot = self.app.snapshot();
            screen.print_notices(&snapshot, &mut known);
            screen.print_sample(&snapshot, &mut cut);
            count += 1;
        }
        Ok(())
    }

    fn observe_server(&self) {
        let started = Instant::now();
        let fact = Fact::Server(Box::new(self.class.view()));
        let observation =
            Observation { source: self.source.clone(), stream: self.stream.clone(), at: clock::now(), fact };
        // When the engine is busy, the next view replaces this one.
        self.app.observations().try_send(vec![observation]).unwrap_or_default();
        if let Some(entry) = self.app.source(KIND.name) {
            entry.round(&RoundReport {
                at: clock::now(),
                duration: started.elapsed(),
                gap: TICK * REPORT_EVERY_TICKS as u32,
                observations: 1,
                streams: 1,
                failures: Vec::new(),
            });
        }
    }

    /// Each viewer reports once a second, spread over the second like real players.
    async fn report_viewers(&mut self, count: u64) -> Result<()> {
        let now = clock::now();
        for totals in self.class.viewers(now) {
            if u64::from(totals.viewer) % REPORT_EVERY_TICKS != count % REPORT_EVERY_TICKS {
                continue;
            }
            let was = self.reported.insert(totals.viewer, (now, totals)).map(|(_, was)| was).unwrap_or_default();
            let request = self.client.post(&self.beacon).bearer_auth(&self.token).json(&viewer_report(
                SESSION,
                count / REPORT_EVERY_TICKS,
                &was,
                &totals,
            ));
            let status = request.send().await.context("a viewer's report")?.status();
            anyhow::ensure!(status.is_success(), "a viewer's report was rejected with {status}");
        }
        Ok(())
    }
}

/// One step of the script.
struct Step {
    at: Duration,
    text: String,
    impairment: Option<Impairment>,
}

impl Step {
    fn apply(&self, class: &Class) {
        match self.impairment {
            Some(impairment) => class.impair(1.0, impairment),
            None => class.heal(),
        }
    }
}

/// Loss from 25 to 45 % of the class, limited bandwidth from 65 to 85 %, healthy otherwise.
fn script(seconds: u64) -> Vec<Step> {
    let at = |share: f64| Duration::from_secs_f64(seconds as f64 * share);
    let loss = Impairment { loss_ratio: LOSS_RATIO, ..Impairment::default() };
    let limit = Impairment {
        rate_bits_per_second: Some(LIMITED_BITS_PER_SECOND),
        queue_bytes: LIMITED_QUEUE_BYTES,
        ..Impairment::default()
    };
    vec![
        Step {
            at: at(0.25),
            text: format!("fault: every link loses {:.0} % of its packets", LOSS_RATIO * 100.0),
            impairment: Some(loss),
        },
        Step { at: at(0.45), text: "all links are good again".to_owned(), impairment: None },
        Step {
            at: at(0.65),
            text: format!("fault: every link is limited to {} kbit/s", LIMITED_BITS_PER_SECOND / 1_000),
            impairment: Some(limit),
        },
        Step { at: at(0.85), text: "all links are good again".to_owned(), impairment: None },
    ]
}

/// The output on the terminal.
struct Screen {
    colour: bool,
    began: Instant,
}

impl Screen {
    fn print(&self, text: &str, colour: Option<Colour>) {
        let at = paint(format!("{:6.1} s", self.began.elapsed().as_secs_f64()), Colour::Dim, self.colour);
        let text = colour.map_or_else(|| text.to_owned(), |colour| paint(text, colour, self.colour));
        print(&format!("{at}  {text}\n"));
    }

    fn print_notices(&self, snapshot: &Snapshot, known: &mut Vec<Notice>) {
        let is_of = |a: &Notice, b: &Notice| a.alert == b.alert && a.subject.key() == b.subject.key();
        for notice in snapshot.alerts.iter().filter(|notice| matches!(notice.subject, Subject::Session(_))) {
            if !known.iter().any(|old| is_of(old, notice)) {
                let onset = rfc3339::text(notice.started_at);
                self.print(
                    &format!("ALERT {} {} (onset {onset})", notice.alert.as_str(), notice.summary()),
                    Some(Colour::Red),
                );
                known.push(notice.clone());
            }
        }
        known.retain(|old| {
            let holds = snapshot.alerts.iter().any(|notice| is_of(old, notice) && notice.state == NoticeState::Firing);
            if !holds {
                self.print(&format!("resolved {}", old.alert.as_str()), Some(Colour::Green));
            }
            holds
        });
    }

    fn print_sample(&self, snapshot: &Snapshot, cut: &mut Option<Timestamp>) {
        if snapshot.cut_at == *cut {
            return;
        }
        *cut = snapshot.cut_at;
        if let Some(sample) = snapshot.sessions.get(SESSION).and_then(|state| state.sample.as_ref()) {
            self.print(&super::top::line(sample), None);
        }
    }
}

/// The class's node as a source: it is read inside this process, without any request.
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
    build: |_| Ok(Box::new(NoRequests)),
    schema: || schemars::Schema::default(),
};

/// A probe without requests: the demonstration observes its node directly.
struct NoRequests;

impl Probe for NoRequests {
    fn ask(&mut self) -> Vec<Request> {
        Vec::new()
    }

    fn read(&mut self, _: &Reply<'_>, _: &mut Vec<Observation>) -> Result<Vec<Request>, ProbeError> {
        Ok(Vec::new())
    }
}

const SESSION: &str = "demo";
/// The interval at which the demonstration runs its script and reports.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two views of the node, and between two reports of one viewer.
const REPORT_EVERY_TICKS: u64 = 4;
const LOSS_RATIO: f64 = 0.08;
/// Less than half of the bandwidth that the clip needs.
const LIMITED_BITS_PER_SECOND: u64 = 150_000;
const LIMITED_QUEUE_BYTES: usize = 16 * 1024;
