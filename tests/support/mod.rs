//! What several tests of the whole share.

pub(crate) mod dashboard;
