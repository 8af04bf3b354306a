//! A viewer from outside: a WebRTC player of another program, a browser for one, that watches the class through a link
//! of its own. Decides only how it gets in (one offer, one answer with all candidates, as WHEP does); what it sees, it
//! must tell itself.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use webrtc::media_stream::track_local::TrackLocal;

use super::link::{Link, LinkTotals};
use super::node::Node;
use super::peer::{FIRST_SSRC, Peer, PeerError, video_track};
use super::sdp_candidate::{candidate, redirect};
use super::shaper::Impairment;

/// A player that was let in. Dropping this ends its connection, and so does the end of the class.
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
        link.viewer_is_who_speaks();
        let answer = redirect(&answer, link.address());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            match server.connected().await {
                Ok(()) => {
                    node.admit(number, ssrc, sender);
                    tokio::select! {
                        () = told(class_stop) => {}
                        () = told(stopped) => {}
                    }
                    node.dismiss(number);
                }
                Err(error) => tracing::warn!(%error, "demo guest never came"),
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

    /// Makes its link as bad as told, for packets that come from now on.
    pub fn impair(&self, impairment: Impairment) {
        self.link.set(impairment);
    }

    /// What its link carried and dropped so far.
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

/// Ends when `stop` is raised or nobody is left to raise it.
async fn told(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|&stop| stop).await);
}
