//! The page's own truth of its viewer: how long it played or stood still for want of data, by its media element's
//! events. Decides what counts as docs/access-logs.md does: from the first picture on; without seeks, pauses, time in
//! the background and what comes after the end.

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
    /// Seconds of `stalled` in the first [`START_SECONDS`] after the first picture: requests alone do not contain them
    /// from the start.
    pub(crate) early: f64,
    /// Seconds of `stalled` that began with media in the buffer: the machine could not show it, which no request
    /// contains.
    pub(crate) fed: f64,
    /// Seconds stalled in the background, out of `stalled`.
    pub(crate) unseen: f64,
    /// Seconds of media that seeks begun while it stalled left out: requests alone do not contain how long it had
    /// stalled before.
    pub(crate) skipped: f64,
    /// Whether it stalls still.
    pub(crate) is_open: bool,
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
    /// The figures of a page's events (`{t, ev, ...}`) up to the instant `until` (wall-clock seconds).
    pub(crate) fn of(events: &[Value], until: f64) -> Self {
        let (mut truth, mut state, mut hidden, mut since) = (Self::default(), State::Starting, false, 0.0);
        let (mut first, mut stood, mut is_fed) = (f64::MAX, None, false);
        for event in events {
            let (Some(at), Some(name)) = (event["t"].as_f64(), event["ev"].as_str()) else { continue };
            if at >= until {
                break;
            }
            truth.pass(state, hidden, at - since);
            if state == State::Stalled {
                truth.early += if at < first + START_SECONDS { at - since } else { 0.0 };
                truth.fed += if is_fed { at - since } else { 0.0 };
                truth.unseen += if hidden { at - since } else { 0.0 };
            }
            since = at;
            let (next, place) = (state.after(name, event), event["ct"].as_f64());
            truth.stalls += u32::from(next == State::Stalled && state != next && !hidden);
            match (state, next) {
                (State::Starting, State::Playing) => first = at,
                (State::Playing, State::Stalled) => {
                    stood = place;
                    is_fed = event["ahead"].as_f64().is_some_and(|ahead| ahead > FED_SECONDS);
                }
                (_, State::Playing) => {
                    let skipped = place.zip(stood.take()).map_or(0.0, |(place, stood)| place - stood);
                    truth.skipped += if skipped > LEAST_SKIP_SECONDS { skipped } else { 0.0 };
                }
                (State::Playing, _) => stood = None,
                _ => {}
            }
            state = next;
            hidden = match name {
                "hidden" => true,
                "shown" => false,
                _ => hidden,
            };
        }
        truth.pass(state, hidden, until - since);
        truth.is_open = state == State::Stalled;
        truth
    }

    /// The same by its position: seconds that went by between the first picture and `until` and were not played, by a
    /// page's table of where it stood (`[wall, position, ...]`). They exceed those of its events where the
    /// machine could not keep up with its clock. It does not allow for pauses and seeks.
    pub(crate) fn unplayed(events: &[Value], rows: &[Value], until: f64) -> Option<f64> {
        let first = events.iter().find(|event| event["ev"] == "playing")?["t"].as_f64()?;
        let mut lags = Vec::new();
        for row in rows {
            let (at, position) = (row[0].as_f64()?, row[1].as_f64()?);
            if at >= first && at < until {
                lags.push(at - position);
            }
        }
        lags.get(lags.len().checked_sub(LOOKS)?..).map(|end| median(end) - lags[0])
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

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Looks at a position that its lag is the median of at the end.
const LOOKS: usize = 5;
/// A picture begins a little after where the last one stood.
const LEAST_SKIP_SECONDS: f64 = 0.2;
/// A player with so much in its buffer does not wait for the network.
const FED_SECONDS: f64 = 0.5;
/// How long a start is.
const START_SECONDS: f64 = 5.0;

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
