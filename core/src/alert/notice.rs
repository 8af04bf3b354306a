//! Notices made of changes of state.

use std::sync::Arc;

use super::hysteresis::Hysteresis;
use crate::model::{Alert, Cause, Evidence, Notice, NoticeState, Subject, Timestamp};

/// The end of an alert whose subject is gone, with the evidence it fired on: nothing newer was measured.
pub(super) fn ended(hysteresis: &Hysteresis) -> Option<(NoticeState, Timestamp, Evidence)> {
    let (started_at, evidence) = hysteresis.firing()?;
    Some((NoticeState::Resolved, started_at, evidence))
}

pub(super) fn notice(
    alert: Alert,
    subject: Subject,
    at: Timestamp,
    change: (NoticeState, Timestamp, Evidence),
) -> Notice {
    let (state, started_at, evidence) = change;
    let (cause, why) = (Cause::Unknown, Arc::from(Vec::new()));
    Notice { alert, subject, state, started_at, at, evidence, cause, why, forecast: None, renotified: false }
}

pub(super) fn because(notice: Notice, (cause, why): (Cause, Arc<[String]>)) -> Notice {
    Notice { cause, why, ..notice }
}
