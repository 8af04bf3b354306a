//! The queue of event reports between the HTTP interface and the viewers' fold, bounded in posts and in bytes. A report
//! that exceeds it is rejected at once, so that a flood costs only its senders.

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

/// The body of one `POST /v1/cmcd`.
#[derive(Debug)]
pub(crate) struct EventPost {
    /// When it arrived.
    pub at: Timestamp,
    /// The classes that its records may count for.
    pub authority: OwnedAuthority,
    /// Who posted it.
    pub requester: Requester,
    /// The records, separated by LF.
    pub body: Bytes,
}

/// Who sent a request, which decides the groups of its viewers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// The address; behind a trusted proxy the one that the proxy reports.
    pub address: Option<IpAddr>,
    /// At most [`MAX_AGENT`] bytes of the user agent.
    pub agent: Box<[u8]>,
}

/// An owned [`Authority`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnedAuthority {
    /// As [`Authority::Any`].
    Any(Option<Name>),
    /// As [`Authority::Only`].
    Only(Vec<Name>),
}

/// The sending side of the queue.
#[derive(Clone, Debug)]
pub(crate) struct EventQueue {
    sender: mpsc::Sender<(EventPost, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// The receiving side of the queue, and the records whose viewer is still unknown.
#[derive(Debug)]
pub(crate) struct EventReceiver {
    receiver: mpsc::Receiver<(EventPost, OwnedSemaphorePermit)>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    unmatched: u64,
}

/// A record whose viewer is still unknown.
#[derive(Debug)]
struct Waiting {
    at: Timestamp,
    record: Box<[u8]>,
}

/// The queue is full; the post was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many event reports are waiting")]
pub(crate) struct QueueFull;

/// A new queue.
#[must_use]
pub(crate) fn event_queue() -> (EventQueue, EventReceiver) {
    let (sender, receiver) = mpsc::channel(MAX_POSTS);
    let room = Arc::new(Semaphore::new(MAX_BYTES));
    (EventQueue { sender, room }, EventReceiver { receiver, waiting: VecDeque::new(), waiting_bytes: 0, unmatched: 0 })
}

impl Requester {
    /// Who sent a request with these headers from `address`.
    #[must_use]
    pub fn of(address: Option<IpAddr>, headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        Self { address, agent: agent[..agent.len().min(MAX_AGENT)].into() }
    }

    /// The address and player by which its viewers are grouped.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        let player = PlayerName { agent: &self.agent, ..PlayerName::default() };
        Origin { address: self.address.map_or(Address::Unknown, Address::Known), region: b"", player }
    }
}

impl EventQueue {
    /// Adds a post.
    ///
    /// # Errors
    /// [`QueueFull`] at [`MAX_POSTS`] or [`MAX_BYTES`], or when the receiver is gone.
    pub(crate) fn put(&self, post: EventPost) -> Result<(), QueueFull> {
        let bytes = u32::try_from(post.body.len()).map_err(|_| QueueFull)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| QueueFull)?;
        self.sender.try_send((post, room)).map_err(|_| QueueFull)
    }
}

impl EventReceiver {
    /// Folds everything in the queue, beginning with the records that wait for their viewers.
    pub(crate) fn fold_into(&mut self, fold: &mut LogFold, now: Timestamp) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.waiting_bytes -= waiting.record.len();
            let has_expired = now.since(waiting.at) > MAX_WAIT;
            // The viewer's groups come with its first request, so no address is kept here.
            let poster = Poster { authority: Authority::Any(None), origin: None };
            fold.post(waiting.at, poster, &waiting.record, |record| {
                if has_expired {
                    self.unmatched += 1;
                } else {
                    keep(&mut self.waiting, &mut self.waiting_bytes, waiting.at, record);
                }
            });
        }
        while let Ok((post, _room)) = self.receiver.try_recv() {
            let authority = match &post.authority {
                OwnedAuthority::Any(class) => Authority::Any(class.as_ref().map(Name::as_str)),
                OwnedAuthority::Only(names) => Authority::Only(names),
            };
            let origin = post.requester.origin();
            let poster = Poster { authority, origin: Some(&origin) };
            fold.post(post.at, poster, &post.body, |record| {
                if !keep(&mut self.waiting, &mut self.waiting_bytes, post.at, record) {
                    self.unmatched += 1;
                }
            });
        }
    }

    /// Number of records dropped so far because no request of their viewer came.
    #[must_use]
    pub(crate) const fn unmatched(&self) -> u64 {
        self.unmatched
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

/// Largest number of bytes of a user agent that are kept.
pub(crate) const MAX_AGENT: usize = 512;
/// Largest number of posts in the queue.
pub(crate) const MAX_POSTS: usize = 4_096;
/// Largest number of bytes in the queue.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// How long a record waits for its viewer's first request: an access log may be written with a delay.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);
/// Largest number of records that wait for their viewers.
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

    fn post(at: u64, body: &'static str, authority: OwnedAuthority) -> EventPost {
        let (at, requester) = (Timestamp::from_millis(at), Requester::default());
        EventPost { at, authority, requester, body: Bytes::from_static(body.as_bytes()) }
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    const PLAYS: &str = "e=ps,sid=\"a\",sn=0,sta=p,ts=1000000\ne=ps,sid=\"a\",sn=1,sta=r,ts=1002000\n";
    const REQUEST: &str = r#"{"t":1000.5,"st":200,"b":9,"u":"/hls/c1/7.ts","q":"sid%3D%22a%22"}"#;

    /// Class and stall time in milliseconds of everything the fold observed.
    fn stalls(fold: &mut LogFold, millis: u64) -> Vec<(String, u64)> {
        let stalls = fold.finish(Timestamp::from_millis(millis)).into_iter().filter_map(|one| match one.fact {
            Fact::Players(view) => Some((one.stream.as_str().to_owned(), view.stalled.as_millis() as u64)),
            _ => None,
        });
        stalls.collect()
    }

    #[test]
    fn posts_and_lines_of_a_viewer_are_joined_in_either_order() {
        for line_first in [true, false] {
            let ((queue, mut receiver), mut fold) = (event_queue(), fold());
            if line_first {
                fold.line(REQUEST.as_bytes()).expect("good");
            }
            queue.put(post(1_002_010, PLAYS, OwnedAuthority::Any(None))).expect("room");
            receiver.fold_into(&mut fold, Timestamp::from_millis(1_002_250));
            fold.line(REQUEST.as_bytes()).expect("good");
            queue
                .put(post(1_004_010, "e=ps,sid=\"a\",sn=2,sta=p,ts=1004000", OwnedAuthority::Any(None)))
                .expect("room");
            receiver.fold_into(&mut fold, Timestamp::from_millis(1_004_250));
            assert_eq!(stalls(&mut fold, 1_004_300), [("hls/c1".to_owned(), 2_000)], "{line_first}");
            assert_eq!((receiver.unmatched(), receiver.waiting_bytes), (0, 0));
        }
    }

    #[test]
    fn a_token_is_valid_for_its_class_only() {
        let ((queue, mut receiver), mut fold) = (event_queue(), fold());
        fold.line(REQUEST.as_bytes()).expect("good");
        queue.put(post(1_002_010, PLAYS, OwnedAuthority::Only(vec![name("other"), name("id")]))).expect("room");
        receiver.fold_into(&mut fold, Timestamp::from_millis(1_002_250));
        assert_eq!(fold.post_counts().wrong_session, 2);
        queue.put(post(1_002_010, PLAYS, OwnedAuthority::Only(vec![name("live/c1"), name("hls/c1")]))).expect("room");
        queue
            .put(post(1_002_010, "e=ps,sid=\"b\",sn=0,sta=p,ts=1000000", OwnedAuthority::Only(vec![name("live/c2")])))
            .expect("room");
        receiver.fold_into(&mut fold, Timestamp::from_millis(1_004_000));
        let stalls = stalls(&mut fold, 1_004_000);
        let classes: Vec<_> = stalls.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!(classes, ["hls/c1", "live/c2"], "a new viewer belongs to the class in the token");
    }

    #[test]
    fn records_without_a_request_are_dropped_and_counted() {
        let ((queue, mut receiver), mut fold) = (event_queue(), fold());
        queue.put(post(1_000_000, PLAYS, OwnedAuthority::Any(None))).expect("room");
        receiver.fold_into(&mut fold, Timestamp::from_millis(1_001_000));
        assert_eq!((receiver.waiting.len(), receiver.unmatched()), (2, 0));
        receiver.fold_into(&mut fold, Timestamp::from_millis(1_006_000));
        assert_eq!((receiver.waiting.len(), receiver.unmatched(), receiver.waiting_bytes), (0, 2, 0));
    }

    #[test]
    fn one_post_adds_a_limited_number_of_viewers() {
        let ((queue, mut receiver), mut fold) = (event_queue(), fold());
        let record = |viewer| format!("e=t,sid=\"v{viewer}\",sn=0,sta=p,ts=1000");
        let body = (0..50).map(record).collect::<Vec<_>>().join("\n");
        let authority = OwnedAuthority::Only(vec![name("live/c1")]);
        let (at, requester) = (Timestamp::from_secs(1), Requester::default());
        queue.put(EventPost { at, authority, requester, body: body.into() }).expect("room");
        receiver.fold_into(&mut fold, Timestamp::from_secs(1));
        assert_eq!((fold.sizes().0, fold.post_counts().too_many_viewers), (4, 46));
    }

    #[test]
    fn the_queue_is_bounded_in_posts_and_bytes() {
        let (queue, mut receiver) = event_queue();
        let big = Bytes::from(vec![b'\n'; 64 * 1024]);
        let (at, requester) = (Timestamp::from_secs(1), Requester::default());
        let put = |body: Bytes| {
            queue.put(EventPost { at, authority: OwnedAuthority::Any(None), requester: requester.clone(), body })
        };
        let taken = (0..100).filter(|_| put(big.clone()).is_ok()).count();
        assert_eq!(taken, MAX_BYTES / (64 * 1024));
        receiver.fold_into(&mut fold(), Timestamp::from_secs(1));
        let taken = (0..MAX_POSTS + 5).filter(|_| put(Bytes::new()).is_ok()).count();
        assert_eq!(taken, MAX_POSTS);
    }
}
