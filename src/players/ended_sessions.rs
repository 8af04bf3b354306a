//! Classes that the platform ended, so that players that still report are answered to stop for good. Decides how long
//! the end of a class is remembered; announcing the class again forgets it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use liveqos_core::model::{Name, Timestamp};

/// Ended classes and when they ended.
#[derive(Debug, Default)]
pub struct EndedSessions(Mutex<BTreeMap<Name, Timestamp>>);

impl EndedSessions {
    /// Records the end of a class.
    pub fn record(&self, id: &Name, now: Timestamp) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() >= MAX_ENDED {
            ended.retain(|_, at| now.since(*at) <= KEPT);
        }
        if ended.len() >= MAX_ENDED
            && let Some(oldest) = ended.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone())
        {
            ended.remove(&oldest);
        }
        ended.insert(id.clone(), now);
    }

    /// Forgets the end of a class that is announced again.
    pub fn forget(&self, id: &Name) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Whether a class ended within the last [`KEPT`].
    #[must_use]
    pub fn contains(&self, id: &Name, now: Timestamp) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get(id).is_some_and(|at| now.since(*at) <= KEPT)
    }
}

/// Most classes remembered; the one that ended first is forgotten first.
pub(super) const MAX_ENDED: usize = 8_192;
/// How long the end of a class is remembered; the players' tokens have expired by then.
pub(super) const KEPT: Duration = Duration::from_hours(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_remembered_for_a_while_and_forgotten_when_announced_again() {
        let (ended, at) = (EndedSessions::default(), Timestamp::from_secs);
        let name = |text: &str| Name::new(text).expect("a name");
        ended.record(&name("a"), at(100));
        assert!(ended.contains(&name("a"), at(200)) && !ended.contains(&name("b"), at(200)));
        assert!(!ended.contains(&name("a"), at(100) + KEPT + KEPT));
        ended.forget(&name("a"));
        assert!(!ended.contains(&name("a"), at(200)));
        for number in 0..MAX_ENDED as u64 + 5 {
            ended.record(&name(&format!("c{number}")), Timestamp::from_millis(1_000_000 + number));
        }
        let at = at(1_100);
        assert!(!ended.contains(&name("c4"), at) && ended.contains(&name("c5"), at), "the oldest are forgotten");
    }
}
