//! What one receiver was told and has still to be told. Decides what the next mail holds: an end takes the labels of
//! its beginning, what comes and goes before it was told is folded; refuses more alerts than [`MAX_STANDING`] and
//! counts them. Time is given in, nothing is sent here.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::alert::Alert;

/// Most alerts remembered for one receiver.
pub(super) const MAX_STANDING: usize = 5_000;

/// A change older than this is no longer news: it is given up and counted.
pub(super) const GIVE_UP: Duration = Duration::from_mins(15);

/// How often a receiver of the whole state is told again.
pub(super) const AGAIN: Duration = Duration::from_mins(1);

/// How long a receiver of the whole state is told of what ended.
pub(super) const ENDED_TOLD: Duration = Duration::from_mins(15);

/// What a mail holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendMode {
    /// All that changed.
    Changes,
    /// What changed of one alert and cause.
    ChangesByGroup,
    /// All that holds, again and again, and what ended lately.
    State,
}

/// The memory.
#[derive(Debug)]
pub(super) struct NotificationLog {
    telling: SendMode,
    firing_only: bool,
    entries: BTreeMap<String, Entry>,
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    letter: Alert,
    /// The state that was told last.
    told: Option<bool>,
    since: Instant,
    /// The number of the change, so that one during a post is not taken for told.
    change: u64,
    /// Ended before its beginning was told, to a receiver of beginnings only.
    over: bool,
}

/// What is told at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Notification {
    /// At least one.
    pub(super) groups: Vec<Group>,
    changes: Vec<(String, u64)>,
}

/// Alerts of one name, cause and state.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Whether they hold.
    pub(super) firing: bool,
    /// At least one.
    pub(super) letters: Vec<Alert>,
}

impl Group {
    /// A label that all have, by the first.
    pub(super) fn label(&self, name: &str) -> &str {
        self.letters.first().map_or("", |letter| letter.label(name))
    }
}

impl Notification {
    /// A mail of one letter.
    pub(super) fn of_one(letter: Alert) -> Self {
        Self { groups: vec![Group { firing: letter.firing, letters: vec![letter] }], changes: Vec::new() }
    }

    /// Letters in it.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.letters.len()).sum()
    }
}

impl Entry {
    fn untold(&self) -> bool {
        self.told != Some(self.letter.firing)
    }
}

impl NotificationLog {
    pub(super) const fn new(telling: SendMode, firing_only: bool) -> Self {
        Self { telling, firing_only, entries: BTreeMap::new(), changes: 0 }
    }

    /// Notes a letter; `false` when there is no room for it.
    pub(super) fn take(&mut self, letter: &Alert, now: Instant) -> bool {
        self.changes += 1;
        let change = self.changes;
        let room = self.entries.len() < MAX_STANDING;
        let Some(entry) = self.entries.get_mut(&letter.key) else {
            // An end without a beginning was silenced, or began before the start.
            if letter.firing && room {
                let entry = Entry { letter: letter.clone(), told: None, since: now, change, over: false };
                self.entries.insert(letter.key.clone(), entry);
            }
            return room || !letter.firing;
        };
        if self.firing_only && !letter.firing {
            if entry.untold() {
                entry.over = true;
            } else {
                self.entries.remove(&letter.key);
            }
            return true;
        }
        let labels = if letter.firing { &letter.labels } else { &entry.letter.labels };
        let letter = Alert { labels: labels.clone(), ..letter.clone() };
        let was = std::mem::replace(&mut entry.letter, letter);
        (entry.since, entry.change, entry.over) = (now, change, false);
        if entry.told == Some(true) && was.labels != entry.letter.labels {
            entry.told = None;
            self.retire(was, now);
        }
        true
    }

    /// To a receiver of the whole state other labels are another alert: what was told under the old ones ends.
    fn retire(&mut self, was: Alert, now: Instant) {
        if self.telling == SendMode::State {
            let key = format!("{} as of change {}", was.key, self.changes);
            let letter = Alert { firing: false, key: key.clone(), ..was };
            self.entries.insert(key, Entry { letter, told: None, since: now, change: self.changes, over: false });
        }
    }

    /// When the next mail is wanted, the last having left at `last`.
    pub(super) fn wanted(&self, last: Option<Instant>, gather: Duration) -> Option<Instant> {
        let first = self.entries.values().filter(|entry| entry.untold()).map(|entry| entry.since).min();
        let gathered = first.map(|first| last.map_or(first, |last| (last + gather).max(first)));
        let again = last.filter(|_| self.telling == SendMode::State && !self.entries.is_empty());
        [gathered, again.map(|last| last + AGAIN)].into_iter().flatten().min()
    }

    /// Whether anything waits to be told.
    pub(super) fn has_untold(&self) -> bool {
        self.entries.values().any(Entry::untold)
    }

    /// Forgets changes that are no news any more; gives how many were never told.
    pub(super) fn give_up(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        let state = self.telling == SendMode::State;
        self.entries.retain(|_, entry| {
            let old = now.duration_since(entry.since);
            let lapsed = if state { !entry.letter.firing && old > ENDED_TOLD } else { entry.untold() && old > GIVE_UP };
            lost += u64::from(lapsed && entry.untold());
            !lapsed
        });
        lost
    }

    /// The next mail, where there is anything to tell.
    pub(super) fn mail(&self) -> Option<Notification> {
        let mut groups: BTreeMap<_, Group> = BTreeMap::new();
        let mut changes = Vec::new();
        for (key, entry) in &self.entries {
            if !entry.untold() && self.telling != SendMode::State {
                continue;
            }
            let letter = &entry.letter;
            let of = (!letter.firing, letter.label("severity"), letter.label("alertname"), letter.label("cause"));
            if self.telling == SendMode::ChangesByGroup
                && groups.first_key_value().is_some_and(|(first, _)| *first != of)
            {
                continue;
            }
            let group = groups.entry(of).or_insert_with(|| Group { firing: letter.firing, letters: Vec::new() });
            group.letters.push(letter.clone());
            changes.push((key.clone(), entry.change));
        }
        let groups: Vec<_> = groups.into_values().collect();
        (!groups.is_empty()).then_some(Notification { groups, changes })
    }

    /// A mail was taken.
    pub(super) fn delivered(&mut self, mail: &Notification) {
        for (key, change) in &mail.changes {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            if entry.change != *change {
                // What was told is what it was then.
                entry.told = mail.state_of(key).or(entry.told);
                continue;
            }
            entry.told = Some(entry.letter.firing);
            let done = entry.over || (!entry.letter.firing && self.telling != SendMode::State);
            if done {
                self.entries.remove(key);
            }
        }
    }

    /// A mail will never be taken: its changes are not tried again. Gives how many that are.
    pub(super) fn refused(&mut self, mail: &Notification) -> u64 {
        let lost = mail.changes.iter().filter(|(key, _)| self.entries.get(key).is_some_and(Entry::untold)).count();
        self.delivered(mail);
        lost as u64
    }
}

impl Notification {
    fn state_of(&self, key: &str) -> Option<bool> {
        self.groups.iter().find(|group| group.letters.iter().any(|letter| letter.key == key)).map(|group| group.firing)
    }
}

#[cfg(test)]
mod tests {
    use liveqos_core::model::Timestamp;

    use super::*;
    use crate::notify::alert::AlertContext;

    fn letter(class: &str, firing: bool) -> Alert {
        let mut letter = Alert::test(&AlertContext::default(), firing, Timestamp::from_secs(1));
        letter.key = format!("LiveqosTest/{class}");
        letter.labels.insert("session_id", class.to_owned());
        letter
    }

    /// Classes of the next mail, resolved ones with a minus.
    fn next(book: &mut NotificationLog) -> Vec<String> {
        let Some(mail) = book.mail() else {
            return Vec::new();
        };
        book.delivered(&mail);
        let letters = mail.groups.iter().flat_map(|group| &group.letters);
        letters.map(|one| format!("{}{}", if one.firing { "" } else { "-" }, one.label("session_id"))).collect()
    }

    #[test]
    fn changes_are_told_once_and_together() {
        let (mut book, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        for class in ["a", "b", "c"] {
            assert!(book.take(&letter(class, true), now));
        }
        assert_eq!(next(&mut book), ["a", "b", "c"]);
        assert_eq!(next(&mut book), Vec::<String>::new());
        book.take(&letter("b", false), now);
        book.take(&letter("d", false), now);
        assert_eq!(next(&mut book), ["-b"], "nobody was told of d");
        // An end that is taken back before it is told is no change.
        book.take(&letter("a", false), now);
        book.take(&letter("a", true), now);
        assert!(!book.has_untold());
    }

    #[test]
    fn an_end_has_the_labels_of_its_beginning() {
        let (mut book, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        book.take(&letter("a", true), now);
        next(&mut book);
        let mut end = letter("a", false);
        end.labels.insert("cause", "publisher".to_owned());
        book.take(&end, now);
        assert_eq!(book.mail().expect("an end").groups[0].label("cause"), "unknown");
    }

    #[test]
    fn what_changes_during_a_post_is_told_after_it() {
        let (mut book, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        book.take(&letter("a", true), now);
        let mail = book.mail().expect("a begins");
        book.take(&letter("a", false), now);
        book.delivered(&mail);
        assert_eq!(next(&mut book), ["-a"]);
    }

    #[test]
    fn the_state_is_told_again_until_it_has_ended_long_ago() {
        let (mut book, now) = (NotificationLog::new(SendMode::State, false), Instant::now());
        book.take(&letter("a", true), now);
        assert_eq!(next(&mut book), ["a"]);
        assert_eq!(book.wanted(Some(now), Duration::ZERO), Some(now + AGAIN));
        assert_eq!(next(&mut book), ["a"]);
        book.take(&letter("a", false), now);
        assert_eq!(next(&mut book), ["-a"]);
        assert_eq!(next(&mut book), ["-a"], "a restarted replica learns it too");
        assert_eq!(book.give_up(now + ENDED_TOLD + AGAIN), 0);
        assert_eq!(book.wanted(Some(now), Duration::ZERO), None);
    }

    #[test]
    fn another_cause_is_told_and_the_alert_of_the_old_one_ends() {
        for (telling, told) in [(SendMode::Changes, vec!["a"]), (SendMode::State, vec!["a", "-a"])] {
            let (mut book, now) = (NotificationLog::new(telling, false), Instant::now());
            book.take(&letter("a", true), now);
            next(&mut book);
            let mut known = letter("a", true);
            known.labels.insert("cause", "node".to_owned());
            book.take(&known, now);
            assert_eq!(next(&mut book), told);
            book.take(&letter("a", false), now);
            let end = book.mail().expect("an end");
            let ended = end.groups.iter().filter(|group| !group.firing && group.label("cause") == "node");
            assert_eq!(ended.count(), 1, "{telling:?}");
        }
    }

    #[test]
    fn old_changes_are_given_up_and_counted() {
        let (mut book, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        book.take(&letter("a", true), now);
        assert_eq!(book.give_up(now + GIVE_UP), 0);
        assert_eq!(book.give_up(now + GIVE_UP + AGAIN), 1);
        for class in 0..=MAX_STANDING {
            assert_eq!(book.take(&letter(&class.to_string(), true), now), class < MAX_STANDING);
        }
    }

    #[test]
    fn a_receiver_of_beginnings_learns_of_a_short_one() {
        let (mut book, now) = (NotificationLog::new(SendMode::Changes, true), Instant::now());
        book.take(&letter("a", true), now);
        book.take(&letter("a", false), now);
        assert_eq!(next(&mut book), ["a"]);
        assert_eq!(next(&mut book), Vec::<String>::new());
        assert!(book.entries.is_empty());
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_are_gathered() {
        let (mut book, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        let gather = Duration::from_secs(5);
        assert_eq!(book.wanted(None, gather), None);
        book.take(&letter("a", true), now);
        assert_eq!(book.wanted(None, gather), Some(now));
        next(&mut book);
        let later = now + Duration::from_secs(1);
        book.take(&letter("b", true), later);
        assert_eq!(book.wanted(Some(now), gather), Some(now + gather));
    }
}
