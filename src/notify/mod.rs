//! FACE

pub mod alert;
mod chat_text;
mod dispatcher;
mod http_post;
mod notification_log;
pub mod notifiers;
mod receiver;
pub mod receivers;
pub mod settings;
pub mod silence;
