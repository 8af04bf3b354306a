//! FACE

pub(super) mod alertmanager;
pub(super) mod dingtalk;
pub(super) mod feishu;
pub(super) mod webhook;
pub(super) mod wecom;
