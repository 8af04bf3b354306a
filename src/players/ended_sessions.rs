//! Classes that the platform ended, so that late players are told to stop for good. Decides how long that is
//! remembered; a class that is announced again is forgotten here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use liveqos_core::model::{Name, Timestamp};

/// The classes and when they ended.
#[derive(Debug, Default)]
pub struct EndedSessions(Mutex<BTreeMap<Name, Timestamp>>);

impl EndedSessions {
    /// Notes the end of a class.
    pub fn note(&self, id: &Name, now: Timestamp) {
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

    /// A class that is announced is not over.
    pub fn forget(&self, id: &Name) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Whether a class ended lately.
    #[must_use]
    pub fn has(&self, id: &Name, now: Timestamp) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get(id).is_some_and(|at| now.since(*at) <= KEPT)
    }
}

/// Most classes remembered; the oldest goes first.
pub(super) const MAX_ENDED: usize = 8_192;
/// How long an end is remembered: by then the players' tokens are over too.
pub(super) const KEPT: Duration = Duration::from_hours(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_remembered_for_a_while_and_taken_back() {
        let (ended, at) = (EndedSessions::default(), Timestamp::from_secs);
        let name = |text: &str| Name::new(text).expect("a name");
        ended.note(&name("a"), at(100));
        assert!(ended.has(&name("a"), at(200)) && !ended.has(&name("b"), at(200)));
        assert!(!ended.has(&name("a"), at(100) + KEPT + KEPT));
        ended.forget(&name("a"));
        assert!(!ended.has(&name("a"), at(200)));
        for number in 0..MAX_ENDED as u64 + 5 {
            ended.note(&name(&format!("c{number}")), Timestamp::from_millis(1_000_000 + number));
        }
        assert!(!ended.has(&name("c4"), at(1_100)) && ended.has(&name("c5"), at(1_100)), "the oldest go");
    }
}
