//! FACE

mod credentials;
mod http_client;
mod poller;
pub(crate) mod round;
mod schedule;

pub(crate) use self::credentials::{Credentials, Secret, SecretError};
pub(crate) use self::http_client::{FetchError, HttpClient};
pub(crate) use self::poller::start;
pub(crate) use self::round::{Now, Summary};
