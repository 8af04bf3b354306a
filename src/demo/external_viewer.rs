//! A viewer from another program: a WebRTC player, for example in a browser, that watches the class through a link of
//! its own. It joins with one offer and one answer with all candidates, as in WHEP; it has to measure itself what it
//! sees.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use webrtc::media_stream::track_local::TrackLocal;

use super::link::{Link, LinkTotals};
use super::node::Node;
use super::peer::{FIRST_SSRC, Peer, PeerError, video_track};
use super::sdp_candidate::{candidate, redirect};
use super::shaper::Impairment;

/// An admitted player. Its connection ends when this is dropped or the class ends.
pub struct ExternalViewer {
    answer: String,
    link: Link,
    stop: watch::Sender<bool>,
    _task: JoinHandle<()>,
}

impl ExternalViewer {
    /// Answers `offer`; media flows as soon as the player is connected.
    pub(super) async fn admit(
        number: u32,
        node: Arc<Node>,
        link: Link,
        offer: &str,
        class_stop: watch::Receiver<bool>,
    ) -> Result<Self, PeerError> {
        let ssrc = FIRST_SSRC + number;
        let sender = video_track(ssrc);
        let mut server = Peer::open().await?;
        let track: Arc<dyn TrackLocal> = sender.clone();
        let added = server.connection.add_track(track).await;
        added.map_err(|source| PeerError::Stack { doing: "adding track", source })?;
        let answer = server.answer(redirect(offer, link.address())).await?;
        link.node_is(candidate(&answer)?);
        link.learn_viewer();
        let answer = redirect(&answer, link.address());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            match server.connected().await {
                Ok(()) => {
                    node.admit(number, ssrc, sender);
                    tokio::select! {
                        () = stopped_by(class_stop) => {}
                        () = stopped_by(stopped) => {}
                    }
                    node.dismiss(number);
                }
                Err(error) => tracing::warn!(%error, "external viewer did not connect"),
            }
            server.close().await;
        });
        Ok(Self { answer, link, stop, _task: task })
    }

    /// The answer to the player's offer.
    #[must_use]
    pub fn answer(&self) -> &str {
        &self.answer
    }

    /// Applies `impairment` to packets that arrive from now on.
    pub fn impair(&self, impairment: Impairment) {
        self.link.set(impairment);
    }

    /// Totals of its link.
    #[must_use]
    pub fn link(&self) -> LinkTotals {
        self.link.totals()
    }
}

impl Drop for ExternalViewer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Waits until `stop` is set or its sender is dropped.
async fn stopped_by(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|&stop| stop).await);
}
