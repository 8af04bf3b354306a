//! What several tests of the whole share.

pub(crate) mod dashboard;
pub(crate) mod notices;
pub(crate) mod said;
