//! FACE

mod alert;
mod chat_text;
mod dispatcher;
mod http_post;
mod notification_log;
mod notifiers;
mod receiver;
mod receivers;
mod settings;
mod silence;

pub use self::alert::AlertContext;
pub use self::notifiers::Notifiers;
pub(crate) use self::notifiers::{check, try_once};
pub use self::settings::{AlertSettings, ReceiverKind, SilenceSettings, WebhookSettings};
pub(crate) use self::silence::Silences;
