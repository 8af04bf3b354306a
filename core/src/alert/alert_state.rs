//! One alert of one class and what was announced of it. Decides when a cause found later justifies another notice.

use std::sync::Arc;

use super::hysteresis::Hysteresis;
use crate::model::{Cause, Forecast, Incident, Timestamp};

/// One alert of a class.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlertState {
    pub(crate) hysteresis: Hysteresis,
    pub(crate) announced: Option<Box<AnnouncedCause>>,
    /// Since when it has been firing without evidence.
    pub(crate) silent_since: Option<Timestamp>,
    /// The active warning, and for how many steps its trend has been doubtful.
    pub(crate) forecast: Option<Box<(Forecast, u8)>>,
}

/// What the last notice of a firing alert said.
#[derive(Clone, Debug)]
pub(crate) struct AnnouncedCause {
    pub(crate) at: Timestamp,
    pub(crate) cause: Cause,
    pub(crate) why: Arc<[String]>,
    pub(crate) other: Cause,
    pub(crate) consistent_findings: u8,
    pub(crate) silent: bool,
}

impl AlertState {
    /// An alert that was firing when the daemon stopped.
    pub(crate) fn resumed(incident: &Incident) -> Self {
        let Incident { at, cause, .. } = *incident;
        let why = incident.why.iter().cloned().collect();
        Self {
            hysteresis: Hysteresis::resumed(incident.started_at, incident.evidence()),
            announced: Some(Box::new(AnnouncedCause {
                at,
                cause,
                why,
                other: cause,
                consistent_findings: 0,
                silent: false,
            })),
            ..Self::default()
        }
    }

    /// Whether it holds nothing that a new state would not: it can be dropped.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.announced.is_none() && self.forecast.is_none() && self.hysteresis.is_over(now)
    }
}

impl AnnouncedCause {
    /// Takes over the absence of evidence, or a cause that was found several times in a row. Gives whether that
    /// justifies another notice.
    pub(super) fn learn(&mut self, silent: Option<Timestamp>, found: Option<(Cause, Vec<String>)>) -> bool {
        if let Some(since) = silent {
            let text = format!("nothing was heard since {} s: unknown by now, not healthy", since.seconds());
            self.why = self.why.iter().cloned().chain((!self.silent).then_some(text)).collect();
            return !std::mem::replace(&mut self.silent, true);
        }
        let Some((cause, why)) = found.filter(|(cause, _)| *cause != self.cause && *cause != Cause::Unknown) else {
            self.consistent_findings = 0;
            return false;
        };
        self.consistent_findings = if self.other == cause { self.consistent_findings + 1 } else { 1 };
        self.other = cause;
        // A known cause is only replaced by one that is found for longer.
        let enough = if self.cause == Cause::Unknown { 2 } else { 4 };
        if self.consistent_findings < enough {
            return false;
        }
        (self.cause, self.why, self.consistent_findings) = (cause, why.into(), 0);
        true
    }
}
