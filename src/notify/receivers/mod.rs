//! FACE

pub(crate) mod alertmanager;
pub(crate) mod dingtalk;
pub(crate) mod feishu;
pub(crate) mod webhook;
pub(crate) mod wecom;
