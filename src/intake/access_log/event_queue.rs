//! Event reports on their way from the HTTP interface to the fold of their viewers. Decides how much may wait, by posts
//! and by bytes; refuses more at once, so that a flood costs its senders and nobody else.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use liveqos_core::access_log::{Authority, LogFold, Poster};
use liveqos_core::model::{Name, Timestamp};
use liveqos_core::viewer::{Address, Origin, PlayerName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// A body of event reports.
#[derive(Debug)]
pub(crate) struct EventPost {
    /// When it arrived.
    pub at: Timestamp,
    /// What it may be counted for.
    pub claim: OwnedAuthority,
    /// Who posted.
    pub sender: Requester,
    /// The records, parted by LF.
    pub body: Bytes,
}

/// Whose groups the viewers of a post are in, until it is folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// Its address, a trusted proxy's word on it included.
    pub address: Option<IpAddr>,
    /// Its user agent; at most [`MAX_AGENT`] bytes of it.
    pub agent: Box<[u8]>,
}

/// As [`Authority`], owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnedAuthority {
    /// [`Authority::Any`]
    Any(Option<Name>),
    /// [`Authority::Only`]
    Only(Vec<Name>),
}

/// Where posts are put.
#[derive(Clone, Debug)]
pub(crate) struct EventQueue {
    sender: mpsc::Sender<(EventPost, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// Where they are taken out.
#[derive(Debug)]
pub(crate) struct EventReceiver {
    receiver: mpsc::Receiver<(EventPost, OwnedSemaphorePermit)>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    homeless: u64,
}

/// A record whose viewer is not known yet.
#[derive(Debug)]
struct Waiting {
    at: Timestamp,
    record: Box<[u8]>,
}

/// There is no room; the post was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many reports wait to be read")]
pub(crate) struct QueueFull;

/// A box and its tray.
#[must_use]
pub(crate) fn event_queue() -> (EventQueue, EventReceiver) {
    let (sender, receiver) = mpsc::channel(MAX_POSTS);
    let room = Arc::new(Semaphore::new(MAX_BYTES));
    (EventQueue { sender, room }, EventReceiver { receiver, waiting: VecDeque::new(), waiting_bytes: 0, homeless: 0 })
}

impl Requester {
    /// Who asks from `address` by these headers.
    #[must_use]
    pub fn of(address: Option<IpAddr>, headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        Self { address, agent: agent[..agent.len().min(MAX_AGENT)].into() }
    }

    /// What it says of groups.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        let player = PlayerName { agent: &self.agent, ..PlayerName::default() };
        Origin { address: self.address.map_or(Address::Unknown, Address::Known), region: b"", player }
    }
}

impl EventQueue {
    /// Puts a post in.
    ///
    /// # Errors
    /// [`QueueFull`] at [`MAX_POSTS`] or [`MAX_BYTES`], or when nobody takes them out any more.
    pub(crate) fn put(&self, post: EventPost) -> Result<(), QueueFull> {
        let bytes = u32::try_from(post.body.len()).map_err(|_| QueueFull)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| QueueFull)?;
        self.sender.try_send((post, room)).map_err(|_| QueueFull)
    }
}

impl EventReceiver {
    /// Folds all that is there, what waits for its viewers first.
    pub(crate) fn empty_into(&mut self, fold: &mut LogFold, now: Timestamp) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.waiting_bytes -= waiting.record.len();
            let is_over = now.since(waiting.at) > PATIENCE;
            // Its request will tell the viewer's groups: no address waits here.
            let poster = Poster { claim: Authority::Any(None), origin: None };
            fold.post(waiting.at, poster, &waiting.record, |record| {
                if is_over {
                    self.homeless += 1;
                } else {
                    keep(&mut self.waiting, &mut self.waiting_bytes, waiting.at, record);
                }
            });
        }
        while let Ok((post, _room)) = self.receiver.try_recv() {
            let claim = match &post.claim {
                OwnedAuthority::Any(class) => Authority::Any(class.as_ref().map(Name::as_str)),
                OwnedAuthority::Only(names) => Authority::Only(names),
            };
            let origin = post.sender.origin();
            let poster = Poster { claim, origin: Some(&origin) };
            fold.post(post.at, poster, &post.body, |record| {
                if !keep(&mut self.waiting, &mut self.waiting_bytes, post.at, record) {
                    self.homeless += 1;
                }
            });
        }
    }

    /// Records so far that were given up because no request of their viewers came.
    #[must_use]
    pub(crate) const fn homeless(&self) -> u64 {
        self.homeless
    }
}

fn keep(waiting: &mut VecDeque<Waiting>, bytes: &mut usize, at: Timestamp, record: &[u8]) -> bool {
    let has_room = waiting.len() < MAX_WAITING && *bytes + record.len() <= MAX_WAITING_BYTES;
    if has_room {
        *bytes += record.len();
        waiting.push_back(Waiting { at, record: record.into() });
    }
    has_room
}

/// Most bytes of a user agent that are looked at.
pub(crate) const MAX_AGENT: usize = 512;
/// Most posts that wait.
pub(crate) const MAX_POSTS: usize = 4_096;
/// Most bytes of posts that wait.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// How long a record waits for its viewer's first request: an access log may be written with a delay.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Most records that wait for their viewers.
pub(crate) const MAX_WAITING: usize = 8_192;
const MAX_WAITING_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use liveqos_core::model::Fact;

    use super::*;
    use crate::intake::access_log::settings::AccessLogSettings;

    fn fold() -> LogFold {
        AccessLogSettings::default().fold([1, 2]).expect("good")
    }

    fn post(at: u64, body: &'static str, claim: OwnedAuthority) -> EventPost {
        let (at, sender) = (Timestamp::from_millis(at), Requester::default());
        EventPost { at, claim, sender, body: Bytes::from_static(body.as_bytes()) }
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    const PLAYS: &str = "e=ps,sid=\"a\",sn=0,sta=p,ts=1000000\ne=ps,sid=\"a\",sn=1,sta=r,ts=1002000\n";
    const REQUEST: &str = r#"{"t":1000.5,"st":200,"b":9,"u":"/hls/c1/7.ts","q":"sid%3D%22a%22"}"#;

    /// Class and stall time of all that a fold has to say.
    fn told(fold: &mut LogFold, millis: u64) -> Vec<(String, u64)> {
        let told = fold.finish(Timestamp::from_millis(millis)).into_iter().filter_map(|one| match one.fact {
            Fact::Players(view) => Some((one.stream.as_str().to_owned(), view.stalled.as_millis() as u64)),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn posts_and_lines_of_one_viewer_meet_whichever_comes_first() {
        for line_first in [true, false] {
            let ((inlet, mut tray), mut fold) = (event_queue(), fold());
            if line_first {
                fold.line(REQUEST.as_bytes()).expect("good");
            }
            inlet.put(post(1_002_010, PLAYS, OwnedAuthority::Any(None))).expect("room");
            tray.empty_into(&mut fold, Timestamp::from_millis(1_002_250));
            fold.line(REQUEST.as_bytes()).expect("good");
            inlet
                .put(post(1_004_010, "e=ps,sid=\"a\",sn=2,sta=p,ts=1004000", OwnedAuthority::Any(None)))
                .expect("room");
            tray.empty_into(&mut fold, Timestamp::from_millis(1_004_250));
            assert_eq!(told(&mut fold, 1_004_300), [("hls/c1".to_owned(), 2_000)], "{line_first}");
            assert_eq!((tray.homeless(), tray.waiting_bytes), (0, 0));
        }
    }

    #[test]
    fn a_token_speaks_for_its_class_alone() {
        let ((inlet, mut tray), mut fold) = (event_queue(), fold());
        fold.line(REQUEST.as_bytes()).expect("good");
        inlet.put(post(1_002_010, PLAYS, OwnedAuthority::Only(vec![name("other"), name("id")]))).expect("room");
        tray.empty_into(&mut fold, Timestamp::from_millis(1_002_250));
        assert_eq!(fold.post_counts().foreign, 2);
        inlet.put(post(1_002_010, PLAYS, OwnedAuthority::Only(vec![name("live/c1"), name("hls/c1")]))).expect("room");
        inlet
            .put(post(1_002_010, "e=ps,sid=\"b\",sn=0,sta=p,ts=1000000", OwnedAuthority::Only(vec![name("live/c2")])))
            .expect("room");
        tray.empty_into(&mut fold, Timestamp::from_millis(1_004_000));
        let told = told(&mut fold, 1_004_000);
        let classes: Vec<_> = told.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!(classes, ["hls/c1", "live/c2"], "a new viewer is of the class that the token names");
    }

    #[test]
    fn what_no_request_claims_is_given_up_and_counted() {
        let ((inlet, mut tray), mut fold) = (event_queue(), fold());
        inlet.put(post(1_000_000, PLAYS, OwnedAuthority::Any(None))).expect("room");
        tray.empty_into(&mut fold, Timestamp::from_millis(1_001_000));
        assert_eq!((tray.waiting.len(), tray.homeless()), (2, 0));
        tray.empty_into(&mut fold, Timestamp::from_millis(1_006_000));
        assert_eq!((tray.waiting.len(), tray.homeless(), tray.waiting_bytes), (0, 2, 0));
    }

    #[test]
    fn one_post_brings_few_viewers() {
        let ((inlet, mut tray), mut fold) = (event_queue(), fold());
        let record = |viewer| format!("e=t,sid=\"v{viewer}\",sn=0,sta=p,ts=1000");
        let body = (0..50).map(record).collect::<Vec<_>>().join("\n");
        let claim = OwnedAuthority::Only(vec![name("live/c1")]);
        let (at, sender) = (Timestamp::from_secs(1), Requester::default());
        inlet.put(EventPost { at, claim, sender, body: body.into() }).expect("room");
        tray.empty_into(&mut fold, Timestamp::from_secs(1));
        assert_eq!((fold.sizes().0, fold.post_counts().crowded), (4, 46));
    }

    #[test]
    fn the_box_is_full_by_posts_and_by_bytes() {
        let (inlet, mut tray) = event_queue();
        let big = Bytes::from(vec![b'\n'; 64 * 1024]);
        let (at, sender) = (Timestamp::from_secs(1), Requester::default());
        let put =
            |body: Bytes| inlet.put(EventPost { at, claim: OwnedAuthority::Any(None), sender: sender.clone(), body });
        let taken = (0..100).filter(|_| put(big.clone()).is_ok()).count();
        assert_eq!(taken, MAX_BYTES / (64 * 1024));
        tray.empty_into(&mut fold(), Timestamp::from_secs(1));
        let taken = (0..MAX_POSTS + 5).filter(|_| put(Bytes::new()).is_ok()).count();
        assert_eq!(taken, MAX_POSTS);
    }
}
