//! Notifies receivers (webhooks, Alertmanager, chat robots) when alerts begin and end.
//!
//! - **Decides** who is notified of what and when: silences, grouping, pace and repeated attempts of each receiver. No
//!   receiver makes another one or the caller wait.
//! - **In**: notices of core's alert evaluation, by way of the engine; `[alerts]` of the configuration.
//! - **Out**: HTTP POSTs to receivers; shed counts for what could not be delivered.
//! - **May import** platform; of core, base, metrics and model.

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
