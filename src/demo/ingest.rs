//! The teacher's half of the class: the peer that publishes the clip, and the node's peer that receives it. Both end
//! with the class.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use super::clip::Clip;
use super::node::Node;
use super::peer::{Peer, PeerError, introduce, video_track};
use super::publisher::{Packets, Sending, publish};

/// The teacher and the node's receiving peer, connected.
pub(super) struct TeacherIngest {
    teacher: Peer,
    receiver: Peer,
    clip: Clip,
    packets: Packets,
    track: Arc<TrackLocalStaticRTP>,
}

impl TeacherIngest {
    /// Connects the teacher to the node; `seed` determines the first sequence number and timestamp.
    pub(super) async fn open(clip: Clip, seed: u64) -> Result<Self, PeerError> {
        let packets = Packets::new(TEACHER_SSRC, clip.fps, seed);
        let (teacher, receiver) = (Peer::open().await?, Peer::open().await?);
        let mut ingest = Self { teacher, receiver, clip, packets, track: video_track(TEACHER_SSRC) };
        ingest.connect().await?;
        Ok(ingest)
    }

    async fn connect(&mut self) -> Result<(), PeerError> {
        let track: Arc<dyn TrackLocal> = self.track.clone();
        let added = self.teacher.connection.add_track(track).await;
        added.map_err(|source| PeerError::Stack { doing: "adding track", source })?;
        introduce(&mut self.teacher, &mut self.receiver).await?;
        self.teacher.connected().await?;
        self.receiver.connected().await
    }

    /// Publishes and forwards until `stop` is set, then closes both peers.
    pub(super) fn run(
        mut self,
        node: Arc<Node>,
        sending: watch::Receiver<Sending>,
        stop: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        tokio::spawn(async move {
            let playing = publish(self.clip, self.packets, Arc::clone(&self.track), sending);
            let forwarding = async {
                match self.receiver.track().await {
                    Ok(track) => node.forward(track).await,
                    Err(error) => tracing::warn!(%error, "demo node has no teacher"),
                }
            };
            let mut stopped = stop;
            tokio::select! {
                _ = stopped.wait_for(|&stop| stop) => {}
                ((), ()) = async { tokio::join!(playing, forwarding) } => {}
            }
            self.teacher.close().await;
            self.receiver.close().await;
        })
    }
}

/// The teacher's synchronization source (SSRC).
const TEACHER_SSRC: u32 = 0x0fff_ffff;
