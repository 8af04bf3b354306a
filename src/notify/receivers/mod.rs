//! The kinds of receivers, one file each: the request each takes and the meaning of its answers.
//!
//! - **Decides** form, signature and size of a request, and whether an answer with status 200 is a success.
//! - **In**: a [`super::notification_log::Notification`] and the receiver's URL.
//! - **Out**: URL and JSON body for [`super::http_post`], a verdict for [`super::dispatcher`].
//! - **May import** platform and its parent; of core, model.

mod alertmanager;
mod dingtalk;
mod feishu;
mod webhook;
mod wecom;

pub(super) use self::alertmanager::Alertmanager;
pub(super) use self::dingtalk::DingTalk;
pub(super) use self::feishu::Feishu;
pub(super) use self::webhook::Webhook;
pub(super) use self::wecom::WeCom;
