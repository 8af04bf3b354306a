//! FACE

mod http_client;
mod poller;
mod round;
mod schedule;
mod trial;

pub(crate) use self::http_client::{FetchError, HttpClient};
pub(crate) use self::poller::start;
pub(crate) use self::round::Now;
pub(crate) use self::trial::{Summary, try_once};
