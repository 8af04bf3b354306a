//! The cause that alerts name for a fault.

use liveqos_core::model::{Cause, Notice, NoticeState, Timestamp};

/// The cause named last by most alerts of a class that began after `onset`, with the evidence of each alert.
#[must_use]
pub fn named_cause(notices: &[Notice], class: &str, onset: Timestamp) -> Option<(Cause, String)> {
    let mut last: Vec<&Notice> = Vec::new();
    for notice in notices.iter().filter(|notice| notice.subject.key() == class && notice.at > onset) {
        if notice.state == NoticeState::Firing && notice.forecast.is_none() {
            last.retain(|known| known.alert != notice.alert);
            last.push(notice);
        }
    }
    let votes = |cause: Cause| last.iter().filter(|notice| notice.cause == cause).count();
    let cause = last.iter().map(|notice| notice.cause).max_by_key(|cause| votes(*cause))?;
    let evidence = last
        .iter()
        .map(|notice| format!("{} {} ({})", notice.alert.as_str(), notice.cause.as_str(), notice.why.join("; ")));
    Some((cause, evidence.collect::<Vec<_>>().join("; ")))
}
