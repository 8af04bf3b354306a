//! The class: one teacher, one node, some viewers, each behind a link of its own. Decides who joins when and that all of
//! it ends together; refuses more viewers than one machine should play.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use liveqos_core::time::Timestamp;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use super::clip::{Clip, ClipError};
use super::link::{Link, LinkTotals};
use super::node::{EgressTotals, IngestTotals, Node};
use super::peer::{Peer, PeerError, introduce, video_track};
use super::publisher::{Packets, publish};
use super::shaper::{Impairment, Random};
use super::viewer::{Viewer, ViewerTotals};

/// Tells the time; the class reads no other clock for what it reports.
pub(super) type Clock = fn() -> Timestamp;

/// How a class is made.
#[derive(Clone, Copy, Debug)]
pub struct ClassOptions {
    /// How many viewers: 1 to [`MAX_VIEWERS`].
    pub viewers: u32,
    /// Makes losses, sequence numbers and timestamps repeatable.
    pub seed: u64,
    /// The clock behind every instant and latency reported.
    pub clock: fn() -> Timestamp,
}

/// Why a class did not start.
#[derive(Debug, Error)]
pub enum DemoError {
    /// No viewer, or too many.
    #[error("starting class: {0} viewers, must be 1 to {MAX_VIEWERS}")]
    Viewers(u32),
    /// The clip inside the program is damaged.
    #[error("starting class: {0}")]
    Clip(#[from] ClipError),
    /// The teacher could not be connected to the node.
    #[error("starting class: {0}")]
    Peer(#[from] PeerError),
    /// No socket for a link.
    #[error("starting class: opening link: {0}")]
    Link(#[source] io::Error),
    /// The teacher's media did not reach the node in time.
    #[error("starting class: no media at the node within {} s", FIRST_MEDIA.as_secs())]
    NoMedia,
}

/// A running class. [`Class::stop`] ends it and waits; dropping it ends it too, a moment later.
pub struct Class {
    node: Arc<Node>,
    seats: Vec<Seat>,
    stop: watch::Sender<bool>,
    stage: JoinHandle<()>,
}

/// A viewer, its link and its task.
struct Seat {
    viewer: Arc<Viewer>,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl Class {
    /// Starts a class: returns when the teacher's first packet reached the node. Viewers join in the meantime and after.
    ///
    /// # Errors
    /// See [`DemoError`]; nothing keeps running then.
    pub async fn start(options: ClassOptions) -> Result<Self, DemoError> {
        if !(1..=MAX_VIEWERS).contains(&options.viewers) {
            return Err(DemoError::Viewers(options.viewers));
        }
        let clip = Clip::embedded()?;
        let mut random = Random(options.seed);
        let mut links = Vec::new();
        for _ in 0..options.viewers {
            links.push(Arc::new(Link::open(random.next()).await.map_err(DemoError::Link)?));
        }
        let packets = Packets::new(TEACHER_SSRC, clip.fps, random.next());
        let (stop, stopped) = watch::channel(false);
        let node = Arc::new(Node::new(options.clock));
        let stage = Stage::open(clip, packets).await?.run(Arc::clone(&node), stopped.clone());
        if timeout(FIRST_MEDIA, node.started()).await.is_err() {
            stop.send_replace(true);
            finish(stage).await;
            return Err(DemoError::NoMedia);
        }
        let door = Arc::new(Semaphore::new(MAX_JOINING));
        let seats = (0..).zip(links).map(|(number, link)| {
            let viewer = Arc::new(Viewer::new(number, options.clock));
            let joining = seat(Arc::clone(&viewer), Arc::clone(&node), Arc::clone(&link), Arc::clone(&door), stopped.clone());
            Seat { viewer, link, task: tokio::spawn(joining) }
        });
        let seats = seats.collect();
        Ok(Self { node, seats, stop, stage })
    }

    /// Makes the links of the first `share` (0 to 1) of the viewers as bad as told, those of the others good.
    pub fn impair(&self, share: f64, impairment: Impairment) {
        let bad = (share.clamp(0.0, 1.0) * self.seats.len() as f64).round() as usize;
        for (i, seat) in self.seats.iter().enumerate() {
            seat.link.set(if i < bad { impairment } else { Impairment::default() });
        }
    }

    /// Makes all links good again.
    pub fn heal(&self) {
        self.impair(0.0, Impairment::default());
    }

    /// What the teacher's stream brought to the node.
    #[must_use]
    pub fn ingest(&self) -> IngestTotals {
        self.node.ingest()
    }

    /// What the node sent to its viewers.
    #[must_use]
    pub fn egress(&self) -> EgressTotals {
        self.node.egress()
    }

    /// What each viewer got until `now`, in order of their numbers; those still joining have seen nothing.
    #[must_use]
    pub fn viewers(&self, now: Timestamp) -> Vec<ViewerTotals> {
        self.seats.iter().map(|seat| seat.viewer.totals(now)).collect()
    }

    /// What each viewer's link carried and dropped, in order of the viewers' numbers.
    #[must_use]
    pub fn links(&self) -> Vec<LinkTotals> {
        self.seats.iter().map(|seat| seat.link.totals()).collect()
    }

    /// Ends the class and waits until every task and socket of it is gone.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for seat in self.seats {
            finish(seat.task).await;
            if let Some(link) = Arc::into_inner(seat.link) {
                link.close().await;
            }
        }
        finish(self.stage).await;
    }
}

async fn finish(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::warn!(%error, "demo task failed");
    }
}

/// Lets one viewer in when the door is free, and watch until the class ends.
async fn seat(
    viewer: Arc<Viewer>,
    node: Arc<Node>,
    link: Arc<Link>,
    door: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = viewer.attend(&node, &link, &door, stop).await {
        tracing::warn!(%error, "demo viewer left");
    }
}

/// The teacher and the node's side of the teacher, connected.
struct Stage {
    teacher: Peer,
    receiver: Peer,
    clip: Clip,
    packets: Packets,
    track: Arc<TrackLocalStaticRTP>,
}

impl Stage {
    async fn open(clip: Clip, packets: Packets) -> Result<Self, PeerError> {
        let teacher = Peer::open().await?;
        let receiver = match Peer::open().await {
            Ok(receiver) => receiver,
            Err(error) => {
                teacher.close().await;
                return Err(error);
            }
        };
        let mut stage = Self { teacher, receiver, clip, packets, track: video_track(TEACHER_SSRC) };
        match stage.connect().await {
            Ok(()) => Ok(stage),
            Err(error) => {
                stage.close().await;
                Err(error)
            }
        }
    }

    async fn connect(&mut self) -> Result<(), PeerError> {
        let track: Arc<dyn TrackLocal> = self.track.clone();
        let added = self.teacher.connection.add_track(track).await;
        added.map_err(|source| PeerError::Stack { doing: "adding track", source })?;
        introduce(&mut self.teacher, &mut self.receiver).await?;
        self.teacher.connected().await?;
        self.receiver.connected().await
    }

    /// Publishes and forwards until told to stop; closes both peers then.
    fn run(mut self, node: Arc<Node>, stop: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let playing = publish(self.clip.clone(), self.packets, Arc::clone(&self.track), stop.clone());
            let forwarding = async {
                match self.receiver.track().await {
                    Ok(track) => node.forward(track, stop).await,
                    Err(error) => tracing::warn!(%error, "demo node has no teacher"),
                }
            };
            tokio::join!(playing, forwarding);
            self.teacher.close().await;
            self.receiver.close().await;
        })
    }

    async fn close(&self) {
        self.teacher.close().await;
        self.receiver.close().await;
    }
}

/// Most viewers of a class: each costs two WebRTC peers and a link in this process.
pub const MAX_VIEWERS: u32 = 40;

/// Viewers that join at once; the others wait at the door, so that handshakes do not starve the media.
const MAX_JOINING: usize = 4;

/// How long the teacher's first packet may take.
const FIRST_MEDIA: Duration = Duration::from_secs(10);

/// The teacher's synchronization source.
const TEACHER_SSRC: u32 = 0x0fff_ffff;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::OnceLock;
    use std::time::Instant;
    use tokio::time::sleep;

    fn clock() -> Timestamp {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        Timestamp::from_secs(1_700_000_000) + EPOCH.get_or_init(Instant::now).elapsed()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn smoke() {
        let t = Instant::now();
        let class = Class::start(ClassOptions { viewers: 4, seed: 7, clock }).await.unwrap();
        println!("started {:?}", t.elapsed());
        for i in 0..12 {
            sleep(Duration::from_millis(500)).await;
            if i == 6 {
                class.impair(1.0, Impairment { loss_ratio: 0.1, delay: Duration::from_millis(20), ..Default::default() });
            }
            println!("{:?} {:?}", class.ingest(), class.egress());
            println!("  {:?}", class.viewers(clock())[0]);
            println!("  {:?}", class.links()[0]);
        }
        let t = Instant::now();
        class.stop().await;
        println!("stopped {:?} tasks {}", t.elapsed(), tokio::runtime::Handle::current().metrics().num_alive_tasks());
    }
}
