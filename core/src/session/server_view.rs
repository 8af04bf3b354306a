//! One server's view of one stream, kept from poll to poll. Decides what its totals mean in a window; an old view says
//! nothing about the present.

use std::time::Duration;

use super::counter::Counter;
use crate::model::{Client, GRID, Protocol, ServerView, Timestamp};

/// An older view says nothing about the present: its viewers and rates are absent.
pub(super) const FRESH: Duration = Duration::from_secs(12);

/// The latest view of one source and the counters behind it.
#[derive(Clone, Debug, Default)]
pub struct ServerState {
    view: ServerView,
    at: Timestamp,
    gone: bool,
    started: Option<Timestamp>,
    egress: Option<Protocol>,
    ingest_bytes: Counter,
    ingest_frames: Counter,
    egress_bytes: Counter,
}

impl ServerState {
    /// Takes over a newer view.
    pub fn update(&mut self, at: Timestamp, view: ServerView) {
        let steps = (view.bytes_step, view.frames_step);
        for (counter, total, step) in [
            (&mut self.ingest_bytes, view.ingest_bytes, steps.0),
            (&mut self.ingest_frames, view.ingest_frames, steps.1),
            (&mut self.egress_bytes, view.egress_bytes, steps.0),
        ] {
            if let Some(total) = total {
                counter.observe(at, total, step);
            }
        }
        self.started = self.started.or(view.started);
        self.egress = egress_of(&view).or(self.egress);
        self.view = view;
        self.at = at;
        self.gone = false;
    }

    /// The source no longer lists the stream.
    pub fn mark_gone(&mut self, at: Timestamp) {
        self.gone = true;
        self.at = at;
        self.view.clients = Vec::new();
    }

    /// When it last reported.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// Whether the source reports that the stream is gone.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    /// When the publisher connected, by the server's first report of it.
    #[must_use]
    pub fn started(&self) -> Option<Timestamp> {
        self.started
    }

    /// The view, while it is current.
    #[must_use]
    pub fn present(&self, now: Timestamp) -> Option<&ServerView> {
        (!self.gone && now.since(self.at) <= FRESH).then_some(&self.view)
    }

    /// The connections it lists.
    #[must_use]
    pub fn clients(&self) -> &[Client] {
        &self.view.clients
    }

    /// Bits per second from the publisher.
    #[must_use]
    pub fn ingest_bitrate(&self, now: Timestamp) -> Option<f64> {
        self.present(now)?;
        self.ingest_bytes.rate(now, GRID, self.view.bytes_step).map(|bytes| bytes * 8.0)
    }

    /// Frames per second from the publisher.
    #[must_use]
    pub fn ingest_fps(&self, now: Timestamp) -> Option<f64> {
        self.present(now)?.ingest_frames?;
        self.ingest_frames.rate(now, GRID, self.view.frames_step)
    }

    /// Bits per second to all viewers.
    #[must_use]
    pub fn egress_bitrate(&self, now: Timestamp) -> Option<f64> {
        self.present(now)?;
        self.egress_bytes.rate(now, GRID, self.view.bytes_step).map(|bytes| bytes * 8.0)
    }

    /// Bytes in, frames in and bytes out since the last call; `None` for what this server does not count. Bytes out are
    /// held back until the viewers' protocol is known.
    pub fn take_deltas(&mut self) -> (Option<u64>, Option<u64>, Option<u64>) {
        let view = &self.view;
        (
            view.ingest_bytes.map(|_| self.ingest_bytes.take_delta()),
            view.ingest_frames.map(|_| self.ingest_frames.take_delta()),
            view.egress_bytes.filter(|_| self.egress.is_some()).map(|_| self.egress_bytes.take_delta()),
        )
    }

    /// The one protocol its viewers use, or [`Protocol::Mixed`]; when none are left, that of the last ones, for the
    /// bytes sent to them.
    #[must_use]
    pub const fn egress_protocol(&self) -> Option<Protocol> {
        self.egress
    }
}

fn egress_of(view: &ServerView) -> Option<Protocol> {
    let watched = view.viewers.iter().flatten().filter(|(_, count)| *count > 0);
    let mut protocols = watched.map(|(protocol, _)| *protocol);
    let first = protocols.next()?;
    Some(if protocols.all(|protocol| protocol == first) { first } else { Protocol::Mixed })
}
