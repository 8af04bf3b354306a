//! The page's own truth of its viewer: how long it played or stood still for want of data, by its media element's events. Decides what
//! counts as docs/access-logs.md says: from the first picture on; without seeks, pauses, time in the background and what comes after the
//! end.

use serde_json::Value;

/// Seconds of a viewer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Truth {
    /// Stalled.
    pub(crate) stalled: f64,
    /// Playing or stalled.
    pub(crate) exposure: f64,
    /// How often it began to stall.
    pub(crate) stalls: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Playing,
    Stalled,
    Seeking,
    Paused,
    Over,
}

impl Truth {
    /// What a page's events (`{t, ev, ...}`) say up to the instant `until` (wall-clock seconds).
    pub(crate) fn of(events: &[Value], until: f64) -> Self {
        let (mut truth, mut state, mut hidden, mut since) = (Self::default(), State::Starting, false, 0.0);
        for event in events {
            let (Some(at), Some(name)) = (event["t"].as_f64(), event["ev"].as_str()) else { continue };
            if at >= until {
                break;
            }
            truth.pass(state, hidden, at - since);
            since = at;
            let next = state.after(name, event);
            truth.stalls += u32::from(next == State::Stalled && state != next && !hidden);
            state = next;
            hidden = match name {
                "hidden" => true,
                "shown" => false,
                _ => hidden,
            };
        }
        truth.pass(state, hidden, until - since);
        truth
    }

    /// Stalled over exposure, in percent.
    pub(crate) fn percent(&self) -> f64 {
        100.0 * self.stalled / self.exposure
    }

    fn pass(&mut self, state: State, hidden: bool, seconds: f64) {
        if hidden || !matches!(state, State::Playing | State::Stalled) {
            return;
        }
        self.exposure += seconds;
        if state == State::Stalled {
            self.stalled += seconds;
        }
    }
}

impl State {
    fn after(self, event: &str, detail: &Value) -> Self {
        match (self, event) {
            (Self::Over, _) => self,
            (_, "playing") => Self::Playing,
            // Nothing but the first picture ends a start.
            (Self::Starting, _) => self,
            (_, "pause") => Self::Paused,
            (_, "ended" | "error") => Self::Over,
            (_, "asked") if detail["action"] == "stop" => Self::Over,
            (Self::Paused, _) => self,
            (_, "seeking") => Self::Seeking,
            (Self::Playing, "waiting") => Self::Stalled,
            _ => self,
        }
    }
}
