//! A notification as one short text for a chat: a heading for each alert and cause, the first few classes, how many
//! more. Bounded in bytes, and no name of a class can become markup or call people.

use std::fmt::Write as _;

use super::alert::Alert;
use super::notification_log::{Group, Notification};
use crate::platform::rfc3339;

/// Classes named under one heading.
const MAX_NAMED: usize = 5;

/// The markup of one kind of chat.
pub(super) trait Markup {
    /// A heading.
    fn heading(&self, group: &Group, text: &str) -> String;
}

/// The notification in one line.
pub(super) fn title(notification: &Notification) -> String {
    let firing = notification.groups.iter().filter(|group| group.firing).map(|group| group.alerts.len()).sum::<usize>();
    let ended = notification.len() - firing;
    let first = notification.groups.first().map_or("", |group| group.label("alertname"));
    let node = plain(notification.groups.first().map_or("", |group| group.label("node")));
    let more = if notification.groups.len() > 1 { " and others" } else { "" };
    let counts = match (firing, ended) {
        (firing, 0) => format!("{firing} firing"),
        (0, ended) => format!("{ended} resolved"),
        (firing, ended) => format!("{firing} firing, {ended} resolved"),
    };
    format!("{first}{more} on {node}: {counts}")
}

/// The notification as markdown of at most `most` bytes.
pub(super) fn text(notification: &Notification, markup: &impl Markup, most: usize) -> String {
    let mut out = String::new();
    let mut left_out = 0;
    for group in &notification.groups {
        let part = part(group, markup);
        if left_out > 0 || out.len() + part.len() + TAIL_BYTES > most {
            left_out += group.alerts.len();
        } else {
            out.push_str(&part);
        }
    }
    if left_out > 0 {
        put(&mut out, format_args!("and {left_out} more; see the node's page\n"));
    }
    clip(&mut out, most);
    out
}

/// The highest severity among the firing alerts; `None` where none fires.
pub(super) fn highest_severity(notification: &Notification) -> Option<&str> {
    let firing = notification.groups.iter().filter(|group| group.firing);
    firing.map(|group| group.label("severity")).min_by_key(|severity| *severity != "critical")
}

fn part(group: &Group, markup: &impl Markup) -> String {
    let (name, cause, node) = (group.label("alertname"), group.label("cause"), plain(group.label("node")));
    let state = if group.firing { "" } else { "resolved: " };
    let mut out =
        markup.heading(group, &format!("{state}{name} on {node}, cause {cause}, {} in all", group.alerts.len()));
    out.push('\n');
    for alert in group.alerts.iter().take(MAX_NAMED) {
        put(
            &mut out,
            format_args!("- {}, since {}", plain(alert.annotation("summary")), rfc3339::text(alert.started_at)),
        );
        links(alert, &mut out);
        out.push('\n');
    }
    if let Some(more) = group.alerts.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        put(&mut out, format_args!("- and {more} more\n"));
    }
    out
}

fn links(alert: &Alert, out: &mut String) {
    for (name, shown) in [("trace_url", "trace"), ("dashboard_url", "dashboard"), ("runbook_url", "runbook")] {
        let url = alert.annotation(name);
        if !url.is_empty() {
            put(out, format_args!(" [{shown}]({})", url.replace(['(', ')', ' ', '<', '>'], "")));
        }
    }
}

/// `text` without characters that chats interpret as markup or as a mention.
pub(super) fn plain(text: &str) -> String {
    let safe = |c: char| match c {
        '<' => '‹',
        '>' => '›',
        '[' => '(',
        ']' => ')',
        '@' => '＠',
        '*' | '`' | '#' => '·',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(safe).collect()
}

fn clip(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

/// Bytes reserved for the line that counts what was left out.
const TAIL_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use liveqos_core::model::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::notify::alert::AlertContext;

    struct Bare;

    impl Markup for Bare {
        fn heading(&self, _: &Group, text: &str) -> String {
            text.to_owned()
        }
    }

    fn notification(summaries: &[String]) -> Notification {
        let alerts = summaries.iter().map(|summary| {
            let mut alert = Alert::test(&AlertContext::default(), true, Timestamp::from_secs(9));
            alert.annotations.insert("summary", summary.clone());
            alert
        });
        let mut notification = Notification::default();
        notification.groups.push(Group { firing: true, alerts: alerts.collect() });
        notification
    }

    #[test]
    fn a_fault_of_300_classes_takes_a_few_lines() {
        let notification = notification(&vec!["class c: stutter 4 %".to_owned(); 300]);
        let text = text(&notification, &Bare, 4_096);
        assert_eq!(text.lines().count(), MAX_NAMED + 2, "{text}");
        assert!(text.contains("300 in all") && text.contains("and 295 more"), "{text}");
        assert!(title(&notification).ends_with("300 firing"));
    }

    #[test]
    fn a_name_mentions_nobody() {
        let notification = notification(&["class <at id=all></at> @all [x](http://evil)".to_owned()]);
        let text = text(&notification, &Bare, 4_096);
        assert!(!text.contains(['<', '@', '[']), "{text}");
    }

    proptest! {
        #[test]
        fn every_text_is_bounded(summaries in proptest::collection::vec(".{0,300}", 1..20), most in 100_usize..5_000) {
            prop_assert!(text(&notification(&summaries), &Bare, most).len() <= most);
        }
    }
}
