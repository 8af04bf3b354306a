//! The class: one teacher, one node and some viewers, each behind a link of its own. Decides when viewers join, and
//! ends everything together. The number of viewers is limited to what one machine can play.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use liveqos_core::model::Timestamp;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::clip::{Clip, ClipError};
use super::clock::Clock;
use super::external_viewer::ExternalViewer;
use super::ingest::TeacherIngest;
use super::link::{Link, LinkTotals};
use super::node::{EgressTotals, IngestTotals, Node};
use super::peer::PeerError;
use super::publisher::Sending;
use super::shaper::Impairment;
use super::viewer::{Viewer, ViewerTotals};

/// Options of a class.
#[derive(Clone, Copy, Debug)]
pub struct ClassOptions {
    /// Number of viewers: 1 to [`MAX_VIEWERS`].
    pub viewers: u32,
    /// Makes losses, sequence numbers and timestamps reproducible.
    pub seed: u64,
    /// The clock of every reported instant and latency.
    pub clock: Clock,
}

/// Why a class did not start.
#[derive(Debug, Error)]
pub enum DemoError {
    /// No viewer, or more than [`MAX_VIEWERS`].
    #[error("starting class: {0} viewers, must be 1 to {MAX_VIEWERS}")]
    Viewers(u32),
    /// The embedded clip is damaged.
    #[error("starting class: {0}")]
    Clip(#[from] ClipError),
    /// The teacher could not be connected to the node.
    #[error("starting class: {0}")]
    Peer(#[from] PeerError),
    /// A link's socket could not be opened.
    #[error("starting class: opening link: {0}")]
    Link(#[source] io::Error),
    /// The teacher's media did not reach the node in time.
    #[error("starting class: no media at the node within {} s", FIRST_MEDIA.as_secs())]
    NoMedia,
}

/// A running class. [`Class::stop`] ends it and waits; dropping it also ends it, shortly after.
pub struct Class {
    node: Arc<Node>,
    participants: Vec<Participant>,
    sending: watch::Sender<Sending>,
    stop: watch::Sender<bool>,
    ingest: JoinHandle<()>,
    external_viewers: AtomicU32,
}

/// A viewer, its link and its task.
struct Participant {
    viewer: Arc<Viewer>,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl Class {
    /// Starts a class; returns when the teacher's first packet has reached the node. Viewers join meanwhile and later.
    ///
    /// # Errors
    /// [`DemoError`]; nothing keeps running then.
    pub async fn start(options: ClassOptions) -> Result<Self, DemoError> {
        if !(1..=MAX_VIEWERS).contains(&options.viewers) {
            return Err(DemoError::Viewers(options.viewers));
        }
        let clip = Clip::embedded()?;
        let mut random = fastrand::Rng::with_seed(options.seed);
        let mut links = Vec::new();
        for _ in 0..options.viewers {
            links.push(Arc::new(Link::open(random.u64(..)).await.map_err(DemoError::Link)?));
        }
        let (stop, stopped) = watch::channel(false);
        let node = Arc::new(Node::new(options.clock));
        let (sending, sends) = watch::channel(Sending::default());
        let ingest = TeacherIngest::open(clip, random.u64(..)).await?.run(Arc::clone(&node), sends, stopped.clone());
        if timeout(FIRST_MEDIA, node.started()).await.is_err() {
            stop.send_replace(true);
            finish(ingest).await;
            return Err(DemoError::NoMedia);
        }
        let join_permits = Arc::new(Semaphore::new(MAX_JOINING));
        let participants = (0..).zip(links).map(|(number, link)| {
            let viewer = Arc::new(Viewer::new(number, options.clock));
            let joining = join_and_watch(
                Arc::clone(&viewer),
                Arc::clone(&node),
                Arc::clone(&link),
                Arc::clone(&join_permits),
                stopped.clone(),
            );
            Participant { viewer, link, task: tokio::spawn(joining) }
        });
        let participants = participants.collect();
        Ok(Self { node, participants, sending, stop, ingest, external_viewers: AtomicU32::new(0) })
    }

    /// Applies `impairment` to the links of the first `share` (0 to 1) of the viewers; the other links become good.
    pub fn impair(&self, share: f64, impairment: Impairment) {
        let bad = (share.clamp(0.0, 1.0) * self.participants.len() as f64).round() as usize;
        for (i, one) in self.participants.iter().enumerate() {
            one.link.set(if i < bad { impairment } else { Impairment::default() });
        }
    }

    /// Makes all links good again.
    pub fn heal(&self) {
        self.impair(0.0, Impairment::default());
    }

    /// Sets how the teacher sends from now on.
    pub fn send(&self, sending: Sending) {
        self.sending.send_replace(sending);
    }

    /// Limits the player of one viewer to one frame per `shows_every`, whatever it receives; `None` removes the limit.
    pub fn slow_player(&self, viewer: u32, shows_every: Option<Duration>) {
        if let Some(one) = self.participants.get(viewer as usize) {
            one.viewer.slow(shows_every);
        }
    }

    /// Admits a WebRTC player of another program by its offer to receive video; its link is good at first.
    ///
    /// # Errors
    /// [`DemoError::Link`] without a socket, [`DemoError::Peer`] if the offer does not fit.
    pub async fn invite(&self, offer: &str) -> Result<ExternalViewer, DemoError> {
        let number = MAX_VIEWERS + self.external_viewers.fetch_add(1, Ordering::Relaxed);
        let link = Link::open(u64::from(number)).await.map_err(DemoError::Link)?;
        Ok(ExternalViewer::admit(number, Arc::clone(&self.node), link, offer, self.stop.subscribe()).await?)
    }

    /// Totals of the teacher's stream at the node.
    #[must_use]
    pub fn ingest(&self) -> IngestTotals {
        self.node.ingest()
    }

    /// Totals of what the node sent to its viewers.
    #[must_use]
    pub fn egress(&self) -> EgressTotals {
        self.node.egress()
    }

    /// Totals of each viewer until `now`, in the order of their numbers; those of a viewer that is still joining are
    /// zero.
    #[must_use]
    pub fn viewers(&self, now: Timestamp) -> Vec<ViewerTotals> {
        self.participants.iter().map(|one| one.viewer.totals(now)).collect()
    }

    /// Totals of each viewer's link, in the order of the viewers' numbers.
    #[must_use]
    pub fn links(&self) -> Vec<LinkTotals> {
        self.participants.iter().map(|one| one.link.totals()).collect()
    }

    /// Ends the class and waits until all its tasks and sockets are closed.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for one in self.participants {
            finish(one.task).await;
            if let Some(link) = Arc::into_inner(one.link) {
                link.close().await;
            }
        }
        finish(self.ingest).await;
    }
}

async fn finish(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::warn!(%error, "demo task failed");
    }
}

/// Lets one viewer join when a permit is free, and watch until the class ends.
async fn join_and_watch(
    viewer: Arc<Viewer>,
    node: Arc<Node>,
    link: Arc<Link>,
    join_permits: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = viewer.watch_class(&node, &link, &join_permits, stop).await {
        tracing::warn!(%error, "demo viewer failed");
    }
}

/// Largest number of viewers: each costs two WebRTC peers and a link in this process.
pub const MAX_VIEWERS: u32 = 40;

/// Viewers that join at the same time; the others wait, so that handshakes do not delay the media.
const MAX_JOINING: usize = 4;

/// How long the teacher's first packet may take.
const FIRST_MEDIA: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Instant;

    use tokio::time::sleep;

    use super::*;

    const VIEWERS: u32 = 4;

    fn clock() -> Timestamp {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        Timestamp::from_secs(1_700_000_000) + EPOCH.get_or_init(Instant::now).elapsed()
    }

    async fn class() -> Class {
        Class::start(ClassOptions { viewers: VIEWERS, seed: 7, clock }).await.unwrap()
    }

    /// Calls `seen` every 20 ms until it returns a value; fails after 15 s.
    async fn until<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
        for _ in 0..750 {
            if let Some(found) = seen() {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("timed out: {what}");
    }

    async fn everyone_watches(class: &Class) {
        let all = || class.viewers(clock()).iter().all(|viewer| viewer.frames > 0).then_some(());
        until("every viewer shows a frame", all).await;
    }

    /// Watches for `span`; returns the totals of each viewer before and after.
    async fn watch(class: &Class, span: Duration) -> Vec<(ViewerTotals, ViewerTotals)> {
        let before = class.viewers(clock());
        sleep(span).await;
        before.into_iter().zip(class.viewers(clock())).collect()
    }

    /// Waits until no packet is in flight: the viewers have counted every packet that the links forwarded.
    async fn settled(class: &Class) -> Vec<(ViewerTotals, LinkTotals)> {
        until("viewers have all packets that their links forwarded", || {
            let links = class.links();
            let pairs: Vec<_> = class.viewers(clock()).into_iter().zip(links).collect();
            pairs.iter().all(|(viewer, link)| viewer.packets_received == link.media_forwarded).then_some(pairs)
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_healthy_class_plays_25_frames_a_second_without_loss_or_freeze() {
        let class = class().await;
        everyone_watches(&class).await;
        let mut healthy = false;
        for _ in 0..10 {
            // A machine too busy to play 3 s smoothly gets another try; loss always fails the test.
            let spans = watch(&class, Duration::from_secs(3)).await;
            assert!(spans.iter().all(|(_, after)| after.packets_lost == 0), "{spans:?}");
            let rates = spans.iter().map(|(before, after)| {
                (after.frames - before.frames) as f64 / after.exposure.saturating_sub(before.exposure).as_secs_f64()
            });
            healthy = rates.into_iter().all(|fps| (fps - 25.0).abs() <= 2.0)
                && spans.iter().all(|(before, after)| after.freezes == before.freezes);
            if healthy {
                break;
            }
        }
        assert!(healthy, "{:?}", class.viewers(clock()));
        let (ingest, egress) = (class.ingest(), class.egress());
        assert!(ingest.frames > 75 && ingest.packets > ingest.frames && ingest.bytes > 100 * ingest.packets);
        assert_eq!(egress.viewers, VIEWERS);
        assert!(egress.packets <= ingest.packets * u64::from(VIEWERS) && egress.bytes > ingest.bytes);
        for viewer in class.viewers(clock()) {
            assert!(viewer.connected < viewer.first_frame && viewer.first_frame.is_some(), "{viewer:?}");
            assert!(viewer.delivery_latency.is_some() && viewer.rtt.is_some(), "{viewer:?}");
        }
        class.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn viewers_lose_exactly_what_their_links_drop() {
        let class = class().await;
        everyone_watches(&class).await;
        class.impair(0.5, Impairment { loss_ratio: 0.1, ..Impairment::default() });
        until("enough packets", || (class.links()[0].media_forwarded > 250).then_some(())).await;
        class.heal();
        until("packets after the last loss", || (class.links()[0].media_forwarded > 270).then_some(())).await;
        let connected = settled(&class).await;
        for (viewer, link) in &connected {
            assert_eq!(viewer.packets_lost, link.media_dropped().cast_signed(), "{connected:?}");
        }
        let lost: Vec<u64> = connected.iter().map(|(_, link)| link.media_lost).collect();
        assert!(lost[0] > 5 && lost[1] > 5 && lost[2..] == [0, 0], "{lost:?}");
        class.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_class_with_limited_bandwidth_freezes_and_recovers() {
        let class = class().await;
        everyone_watches(&class).await;
        until("enough gaps to judge", || class.viewers(clock()).iter().all(|v| v.frames > 12).then_some(())).await;
        let third = Impairment { rate_bits_per_second: Some(130_000), queue_bytes: 6_000, ..Impairment::default() };
        class.impair(1.0, third);
        let frozen = |least: Duration| {
            let class = &class;
            move || class.viewers(clock()).iter().all(|viewer| viewer.frozen > least).then_some(())
        };
        until("every viewer froze", frozen(Duration::ZERO)).await;
        until("frozen time grows", frozen(Duration::from_secs(1))).await;
        assert!(class.links().iter().all(|link| link.media_overflowed > 0), "{:?}", class.links());
        class.heal();
        let thawed = |spans: &[(ViewerTotals, ViewerTotals)]| {
            spans.iter().all(|(before, after)| after.freezes == before.freezes && after.frames >= before.frames + 20)
        };
        let mut plays = false;
        for _ in 0..20 {
            plays = thawed(&watch(&class, Duration::from_secs(1)).await);
            if plays {
                break;
            }
        }
        assert!(plays, "{:?}", class.viewers(clock()));
        class.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn delay_shows_in_latency_and_round_trip() {
        let class = class().await;
        everyone_watches(&class).await;
        class.impair(1.0, Impairment { delay: Duration::from_millis(60), ..Impairment::default() });
        until("latency and round trip", || {
            let late = |viewer: &ViewerTotals| {
                viewer.delivery_latency >= Some(Duration::from_millis(60))
                    && viewer.rtt >= Some(Duration::from_millis(120))
            };
            class.viewers(clock()).iter().all(late).then_some(())
        })
        .await;
        class.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stopped_dropped_or_cancelled_class_leaves_no_task() {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert!(timeout(Duration::from_millis(50), class()).await.is_err());
        until("no task after cancelling", || (tasks() == 0).then_some(())).await;
        let class_at_once = class().await;
        assert!(tasks() > 0);
        class_at_once.stop().await;
        until("no task after stop", || (tasks() == 0).then_some(())).await;
        let class_joined = class().await;
        everyone_watches(&class_joined).await;
        drop(class_joined);
        until("no task after drop", || (tasks() == 0).then_some(())).await;
    }

    #[tokio::test]
    async fn the_number_of_viewers_is_bounded() {
        for viewers in [0, MAX_VIEWERS + 1] {
            let refused = Class::start(ClassOptions { viewers, seed: 1, clock }).await.err().unwrap();
            assert!(matches!(refused, DemoError::Viewers(count) if count == viewers));
        }
    }
}
