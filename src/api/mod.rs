//! FACE

mod metrics;
mod routes;
mod sessions;

pub(crate) use self::routes::{MAX_BODY, Shared, router};
