//! One alert of one class, and what was announced of it. Decides when a cause found later is worth a second notice.

use std::sync::Arc;

use super::hysteresis::Hysteresis;
use crate::model::{Cause, Forecast, Incident, Timestamp};

/// One alert of the class and what people were told of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlertState {
    pub(crate) condition: Hysteresis,
    pub(crate) told: Option<Box<AnnouncedCause>>,
    /// Since when it fires without evidence.
    pub(crate) silent_since: Option<Timestamp>,
    /// The warning that stands, and for how many steps its trend has been doubtful.
    pub(crate) forecast: Option<Box<(Forecast, u8)>>,
}

/// What people were told of a firing alert.
#[derive(Clone, Debug)]
pub(crate) struct AnnouncedCause {
    pub(crate) at: Timestamp,
    pub(crate) cause: Cause,
    pub(crate) why: Arc<[String]>,
    pub(crate) other: Cause,
    pub(crate) looks: u8,
    pub(crate) silent: bool,
}

impl AlertState {
    /// One that fired when the daemon went down.
    pub(crate) fn resumed(incident: &Incident) -> Self {
        let Incident { at, cause, .. } = *incident;
        let why = incident.why.iter().cloned().collect();
        Self {
            condition: Hysteresis::resumed(incident.started_at, incident.evidence()),
            told: Some(Box::new(AnnouncedCause { at, cause, why, other: cause, looks: 0, silent: false })),
            ..Self::default()
        }
    }

    /// Whether it holds nothing any more that a new one would not.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.told.is_none() && self.forecast.is_none() && self.condition.is_over(now)
    }
}

impl AnnouncedCause {
    /// Takes over a silence, or a cause that was found several times in a row; gives whether that is worth telling.
    pub(super) fn is_news(&mut self, silent: Option<Timestamp>, found: Option<(Cause, Vec<String>)>) -> bool {
        if let Some(since) = silent {
            let words = format!("nothing was heard since {} s: unknown by now, not healthy", since.seconds());
            self.why = self.why.iter().cloned().chain((!self.silent).then_some(words)).collect();
            return !std::mem::replace(&mut self.silent, true);
        }
        let Some((cause, why)) = found.filter(|(cause, _)| *cause != self.cause && *cause != Cause::Unknown) else {
            self.looks = 0;
            return false;
        };
        self.looks = if self.other == cause { self.looks + 1 } else { 1 };
        self.other = cause;
        // A known cause gives way to what is found for longer only.
        let enough = if self.cause == Cause::Unknown { 2 } else { 4 };
        if self.looks < enough {
            return false;
        }
        (self.cause, self.why, self.looks) = (cause, why.into(), 0);
        true
    }
}
