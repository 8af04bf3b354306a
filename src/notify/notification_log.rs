//! What one receiver has been notified of, and what is pending. Builds the next notification: a resolved alert keeps
//! the labels under which it fired, and a change that is reverted before it was sent is dropped. Holds at most
//! [`MAX_ALERTS`] alerts; the rest is counted. Does no IO and reads no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::alert::Alert;

/// Most alerts recorded for one receiver.
pub(super) const MAX_ALERTS: usize = 5_000;

/// A pending change older than this is given up and counted.
pub(super) const GIVE_UP: Duration = Duration::from_mins(15);

/// How often [`SendMode::State`] sends the state again.
pub(super) const RESEND_INTERVAL: Duration = Duration::from_mins(1);

/// How long [`SendMode::State`] keeps sending a resolved alert.
pub(super) const RESOLVED_RETENTION: Duration = Duration::from_mins(15);

/// What a notification contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendMode {
    /// All changes since the last one.
    Changes,
    /// The changes of one group: alert, cause and state.
    ChangesByGroup,
    /// Everything that fires or was resolved lately, again and again.
    State,
}

/// The alerts of one receiver, by [`Alert::key`].
#[derive(Debug)]
pub(super) struct NotificationLog {
    send_mode: SendMode,
    firing_only: bool,
    entries: BTreeMap<String, Entry>,
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    alert: Alert,
    /// The state sent last: firing or not.
    sent: Option<bool>,
    since: Instant,
    /// Number of the newest change, so that a change during a post does not count as sent.
    change: u64,
    /// Resolved before it was sent as firing, for a receiver with `firing_only`.
    over: bool,
}

/// The content of one post.
#[derive(Clone, Debug, Default)]
pub(super) struct Notification {
    /// At least one group.
    pub(super) groups: Vec<Group>,
    changes: Vec<(String, u64)>,
}

/// Alerts of one name, severity, cause and state.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Whether they are firing.
    pub(super) firing: bool,
    /// At least one alert.
    pub(super) alerts: Vec<Alert>,
}

impl Group {
    /// The value of a label that all alerts of the group share.
    pub(super) fn label(&self, name: &str) -> &str {
        self.alerts.first().map_or("", |alert| alert.label(name))
    }
}

impl Notification {
    /// A notification of a single alert.
    pub(super) fn of_one(alert: Alert) -> Self {
        Self { groups: vec![Group { firing: alert.firing, alerts: vec![alert] }], changes: Vec::new() }
    }

    /// The number of alerts.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.alerts.len()).sum()
    }
}

impl Entry {
    fn is_pending(&self) -> bool {
        self.sent != Some(self.alert.firing)
    }
}

impl NotificationLog {
    pub(super) const fn new(send_mode: SendMode, firing_only: bool) -> Self {
        Self { send_mode, firing_only, entries: BTreeMap::new(), changes: 0 }
    }

    /// Records an alert; `false` where there is no room for it.
    pub(super) fn record(&mut self, alert: &Alert, now: Instant) -> bool {
        self.changes += 1;
        let change = self.changes;
        let room = self.entries.len() < MAX_ALERTS;
        let Some(entry) = self.entries.get_mut(&alert.key) else {
            // A resolved alert that is not recorded was silenced, or fired before the daemon started.
            if alert.firing && room {
                let entry = Entry { alert: alert.clone(), sent: None, since: now, change, over: false };
                self.entries.insert(alert.key.clone(), entry);
            }
            return room || !alert.firing;
        };
        if self.firing_only && !alert.firing {
            if entry.is_pending() {
                entry.over = true;
            } else {
                self.entries.remove(&alert.key);
            }
            return true;
        }
        let labels = if alert.firing { &alert.labels } else { &entry.alert.labels };
        let alert = Alert { labels: labels.clone(), ..alert.clone() };
        let previous = std::mem::replace(&mut entry.alert, alert);
        (entry.since, entry.change, entry.over) = (now, change, false);
        if entry.sent == Some(true) && previous.labels != entry.alert.labels {
            entry.sent = None;
            self.retire(previous, now);
        }
        true
    }

    /// With [`SendMode::State`] an alert with other labels is another alert, so the one with the old labels is
    /// resolved.
    fn retire(&mut self, previous: Alert, now: Instant) {
        if self.send_mode == SendMode::State {
            let key = format!("{} as of change {}", previous.key, self.changes);
            let alert = Alert { firing: false, key: key.clone(), ..previous };
            self.entries.insert(key, Entry { alert, sent: None, since: now, change: self.changes, over: false });
        }
    }

    /// When the next notification is wanted, where the last was sent at `last`; `None` while nothing is pending.
    pub(super) fn next_at(&self, last: Option<Instant>, gather: Duration) -> Option<Instant> {
        let first = self.entries.values().filter(|entry| entry.is_pending()).map(|entry| entry.since).min();
        let gathered = first.map(|first| last.map_or(first, |last| (last + gather).max(first)));
        let resend = last.filter(|_| self.send_mode == SendMode::State && !self.entries.is_empty());
        [gathered, resend.map(|last| last + RESEND_INTERVAL)].into_iter().flatten().min()
    }

    /// Whether any change is pending.
    pub(super) fn has_pending(&self) -> bool {
        self.entries.values().any(Entry::is_pending)
    }

    /// Drops changes that are too old; returns how many of them were never sent.
    pub(super) fn give_up(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        let state = self.send_mode == SendMode::State;
        self.entries.retain(|_, entry| {
            let old = now.duration_since(entry.since);
            let expired = if state {
                !entry.alert.firing && old > RESOLVED_RETENTION
            } else {
                entry.is_pending() && old > GIVE_UP
            };
            lost += u64::from(expired && entry.is_pending());
            !expired
        });
        lost
    }

    /// The next notification; `None` where nothing is pending.
    pub(super) fn next(&self) -> Option<Notification> {
        let mut groups: BTreeMap<_, Group> = BTreeMap::new();
        let mut changes = Vec::new();
        for (key, entry) in &self.entries {
            if !entry.is_pending() && self.send_mode != SendMode::State {
                continue;
            }
            let alert = &entry.alert;
            let of = (!alert.firing, alert.label("severity"), alert.label("alertname"), alert.label("cause"));
            if self.send_mode == SendMode::ChangesByGroup
                && groups.first_key_value().is_some_and(|(first, _)| *first != of)
            {
                continue;
            }
            let group = groups.entry(of).or_insert_with(|| Group { firing: alert.firing, alerts: Vec::new() });
            group.alerts.push(alert.clone());
            changes.push((key.clone(), entry.change));
        }
        let groups: Vec<_> = groups.into_values().collect();
        (!groups.is_empty()).then_some(Notification { groups, changes })
    }

    /// Records that a notification was delivered.
    pub(super) fn delivered(&mut self, notification: &Notification) {
        for (key, change) in &notification.changes {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            if entry.change != *change {
                // It changed during the post: what was sent is its earlier state.
                entry.sent = notification.state_of(key).or(entry.sent);
                continue;
            }
            entry.sent = Some(entry.alert.firing);
            let done = entry.over || (!entry.alert.firing && self.send_mode != SendMode::State);
            if done {
                self.entries.remove(key);
            }
        }
    }

    /// Records that a notification was refused for good: its changes are not sent again. Returns how many those are.
    pub(super) fn refused(&mut self, notification: &Notification) -> u64 {
        let lost =
            notification.changes.iter().filter(|(key, _)| self.entries.get(key).is_some_and(Entry::is_pending)).count();
        self.delivered(notification);
        lost as u64
    }
}

impl Notification {
    fn state_of(&self, key: &str) -> Option<bool> {
        self.groups.iter().find(|group| group.alerts.iter().any(|alert| alert.key == key)).map(|group| group.firing)
    }
}

#[cfg(test)]
mod tests {
    use liveqos_core::model::Timestamp;

    use super::*;
    use crate::notify::alert::AlertContext;

    fn alert(class: &str, firing: bool) -> Alert {
        let mut alert = Alert::test(&AlertContext::default(), firing, Timestamp::from_secs(1));
        alert.key = format!("LiveqosTest/{class}");
        alert.labels.insert("session_id", class.to_owned());
        alert
    }

    /// The classes of the next notification, resolved ones with a minus.
    fn next(log: &mut NotificationLog) -> Vec<String> {
        let Some(notification) = log.next() else {
            return Vec::new();
        };
        log.delivered(&notification);
        let alerts = notification.groups.iter().flat_map(|group| &group.alerts);
        alerts.map(|one| format!("{}{}", if one.firing { "" } else { "-" }, one.label("session_id"))).collect()
    }

    #[test]
    fn changes_are_sent_once_and_together() {
        let (mut log, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        for class in ["a", "b", "c"] {
            assert!(log.record(&alert(class, true), now));
        }
        assert_eq!(next(&mut log), ["a", "b", "c"]);
        assert_eq!(next(&mut log), Vec::<String>::new());
        log.record(&alert("b", false), now);
        log.record(&alert("d", false), now);
        assert_eq!(next(&mut log), ["-b"], "d was never sent as firing");
        // Resolved and firing again before it was sent: no change.
        log.record(&alert("a", false), now);
        log.record(&alert("a", true), now);
        assert!(!log.has_pending());
    }

    #[test]
    fn a_resolved_alert_keeps_its_labels() {
        let (mut log, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        log.record(&alert("a", true), now);
        next(&mut log);
        let mut end = alert("a", false);
        end.labels.insert("cause", "publisher".to_owned());
        log.record(&end, now);
        assert_eq!(log.next().expect("an end").groups[0].label("cause"), "unknown");
    }

    #[test]
    fn a_change_during_a_post_is_sent_after_it() {
        let (mut log, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        log.record(&alert("a", true), now);
        let notification = log.next().expect("a begins");
        log.record(&alert("a", false), now);
        log.delivered(&notification);
        assert_eq!(next(&mut log), ["-a"]);
    }

    #[test]
    fn the_state_is_sent_again_until_long_after_the_end() {
        let (mut log, now) = (NotificationLog::new(SendMode::State, false), Instant::now());
        log.record(&alert("a", true), now);
        assert_eq!(next(&mut log), ["a"]);
        assert_eq!(log.next_at(Some(now), Duration::ZERO), Some(now + RESEND_INTERVAL));
        assert_eq!(next(&mut log), ["a"]);
        log.record(&alert("a", false), now);
        assert_eq!(next(&mut log), ["-a"]);
        assert_eq!(next(&mut log), ["-a"], "for a replica that restarted");
        assert_eq!(log.give_up(now + RESOLVED_RETENTION + RESEND_INTERVAL), 0);
        assert_eq!(log.next_at(Some(now), Duration::ZERO), None);
    }

    #[test]
    fn another_cause_is_sent_and_resolves_the_alert_of_the_old_one() {
        for (send_mode, expected) in [(SendMode::Changes, vec!["a"]), (SendMode::State, vec!["a", "-a"])] {
            let (mut log, now) = (NotificationLog::new(send_mode, false), Instant::now());
            log.record(&alert("a", true), now);
            next(&mut log);
            let mut known = alert("a", true);
            known.labels.insert("cause", "node".to_owned());
            log.record(&known, now);
            assert_eq!(next(&mut log), expected);
            log.record(&alert("a", false), now);
            let end = log.next().expect("an end");
            let ended = end.groups.iter().filter(|group| !group.firing && group.label("cause") == "node");
            assert_eq!(ended.count(), 1, "{send_mode:?}");
        }
    }

    #[test]
    fn old_changes_are_given_up_and_counted() {
        let (mut log, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        log.record(&alert("a", true), now);
        assert_eq!(log.give_up(now + GIVE_UP), 0);
        assert_eq!(log.give_up(now + GIVE_UP + RESEND_INTERVAL), 1);
        for class in 0..=MAX_ALERTS {
            assert_eq!(log.record(&alert(&class.to_string(), true), now), class < MAX_ALERTS);
        }
    }

    #[test]
    fn firing_only_includes_an_alert_resolved_before_it_was_sent() {
        let (mut log, now) = (NotificationLog::new(SendMode::Changes, true), Instant::now());
        log.record(&alert("a", true), now);
        log.record(&alert("a", false), now);
        assert_eq!(next(&mut log), ["a"]);
        assert_eq!(next(&mut log), Vec::<String>::new());
        assert!(log.entries.is_empty());
    }

    #[test]
    fn the_first_is_sent_at_once_and_the_next_are_gathered() {
        let (mut log, now) = (NotificationLog::new(SendMode::Changes, false), Instant::now());
        let gather = Duration::from_secs(5);
        assert_eq!(log.next_at(None, gather), None);
        log.record(&alert("a", true), now);
        assert_eq!(log.next_at(None, gather), Some(now));
        next(&mut log);
        let later = now + Duration::from_secs(1);
        log.record(&alert("b", true), later);
        assert_eq!(log.next_at(Some(now), gather), Some(now + gather));
    }
}
