//! Recent samples in memory, for the page and the API. Decides which are dropped: the oldest of a class beyond the
//! bound for a class, the oldest of all beyond the bound for all. Samples of a closed class stay until others need the
//! room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use liveqos_core::model::{Name, Sample};

/// Recent samples by class.
#[derive(Debug)]
pub(crate) struct History {
    per_session: usize,
    max_samples: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: BTreeMap<Name, VecDeque<Arc<Sample>>>,
    order: VecDeque<Name>,
}

impl History {
    /// An empty history of at most `per_session` samples a class and `max_samples` in all.
    #[must_use]
    pub(crate) fn new(per_session: usize, max_samples: usize) -> Self {
        Self { per_session, max_samples, kept: Mutex::default() }
    }

    /// Adds the samples of a window.
    pub(crate) fn take(&self, samples: &[Sample]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for sample in samples {
            let id = sample.session.id.clone();
            let own = kept.sessions.entry(id.clone()).or_default();
            own.push_back(Arc::new(sample.clone()));
            if own.len() > self.per_session {
                own.pop_front();
            } else {
                kept.order.push_back(id);
            }
            if kept.order.len() > self.max_samples {
                kept.drop_oldest();
            }
        }
    }

    /// The samples of a class, oldest first; `None` when none is kept.
    pub(crate) fn of(&self, id: &str) -> Option<Vec<Arc<Sample>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.sessions.get(id).map(|samples| samples.iter().cloned().collect())
    }
}

impl Kept {
    /// Drops the oldest sample. Each kept sample has one entry in `order`, in the order of arrival.
    fn drop_oldest(&mut self) {
        if let Some(id) = self.order.pop_front()
            && let Some(own) = self.sessions.get_mut(&id)
        {
            own.pop_front();
            if own.is_empty() {
                self.sessions.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use liveqos_core::model::{Scenario, Session, StreamKey, Timestamp, Window};

    use super::*;

    fn sample(id: &str, number: u64) -> Sample {
        let session = Session {
            id: Name::new(id).expect("a good name"),
            stream: StreamKey::parse(id).expect("a good key"),
            course_id: None,
            teacher_id: None,
            scenario: Scenario::default(),
            student_count: None,
            trace_parent: None,
            trace_state: None,
            stream_type: None,
        };
        let window = Window { start: Timestamp::from_secs(number * 5), end: Timestamp::from_secs(number * 5 + 5) };
        Sample {
            session: session.into(),
            window,
            legs: Vec::new(),
            declared_fps: None,
            publishing: None,
            partial: false,
            interactions: None,
        }
    }

    #[test]
    fn both_bounds_hold_and_the_newest_stay() {
        let history = History::new(3, 5);
        for number in 0..10 {
            history.take(&[sample("a", number), sample("b", number)]);
        }
        let (a, b) = (history.of("a").expect("kept"), history.of("b").expect("kept"));
        assert!(a.len() <= 3 && b.len() <= 3 && a.len() + b.len() <= 5);
        assert_eq!(b.last().map(|sample| sample.number()), Some(10));
        assert!(history.of("c").is_none());
    }

    #[test]
    fn many_short_classes_do_not_accumulate() {
        let history = History::new(3, 5);
        for number in 0..100 {
            history.take(&[sample(&format!("class-{number}"), number)]);
        }
        let kept = history.kept.lock().expect("not poisoned");
        assert_eq!((kept.sessions.len(), kept.order.len()), (5, 5));
    }
}
