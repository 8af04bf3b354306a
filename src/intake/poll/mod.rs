//! FACE

mod credentials;
mod http_client;
mod poller;
pub(crate) mod round;
mod schedule;

pub(crate) use self::credentials::{Login, Secret, SecretError};
pub(crate) use self::http_client::{FetchError, Fetcher};
pub(crate) use self::poller::{Observations, hand_on, start};
pub(crate) use self::round::{Now, Summary};
