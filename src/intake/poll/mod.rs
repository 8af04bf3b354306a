//! Polls the status interfaces of media servers.
//!
//! **Decides** when a source is polled (`schedule`), how much time, data and how many redirects a request may take
//! (`http_client`), and what ends a round early (`round`).
//!
//! **In**: checked sources; HTTP responses, which may be slow, endless, false or missing.
//!
//! **Out**: observations into the common queue; the result of each round into the source's entry; for `liveqos check`
//! and `liveqos discover`, one trial round summed up for people.
//!
//! **May import** `platform`, and `source` and `observations` of `intake`.

mod http_client;
mod poller;
mod round;
mod schedule;
mod trial;

pub(crate) use self::http_client::{FetchError, HttpClient};
pub(crate) use self::poller::start;
pub(crate) use self::round::Now;
pub(crate) use self::trial::{Summary, try_once};
