//! Where facts come in. Decides how each source is asked or listened to; refuses to judge what it hears.

pub mod kernel;
pub mod node;
