//! Many notices as one short text for a chat: a heading for each alert and cause, the first few classes, how many more.
//! Decides what is left out when a robot takes no more bytes; refuses what a class's name could do to the markup.

use std::fmt::Write as _;

use super::alert::Alert;
use super::notification_log::{Group, Notification};
use crate::platform::rfc3339;

/// Classes named under one heading.
pub(super) const NAMED: usize = 5;

/// How a chat writes what it must tell apart.
pub(super) trait Markup {
    /// A heading.
    fn heading(&self, group: &Group, text: &str) -> String;
}

/// One line that says it all.
pub(super) fn title(mail: &Notification) -> String {
    let firing = mail.groups.iter().filter(|group| group.firing).map(|group| group.letters.len()).sum::<usize>();
    let ended = mail.len() - firing;
    let first = mail.groups.first().map_or("", |group| group.label("alertname"));
    let node = plain(mail.groups.first().map_or("", |group| group.label("node")));
    let more = if mail.groups.len() > 1 { " and others" } else { "" };
    let counts = match (firing, ended) {
        (firing, 0) => format!("{firing} firing"),
        (0, ended) => format!("{ended} resolved"),
        (firing, ended) => format!("{firing} firing, {ended} resolved"),
    };
    format!("{first}{more} on {node}: {counts}")
}

/// The whole as markdown of at most `most` bytes.
pub(super) fn text(mail: &Notification, markup: &impl Markup, most: usize) -> String {
    let mut out = String::new();
    let mut untold = 0;
    for group in &mail.groups {
        let part = part(group, markup);
        if untold > 0 || out.len() + part.len() + REST > most {
            untold += group.letters.len();
        } else {
            out.push_str(&part);
        }
    }
    if untold > 0 {
        put(&mut out, format_args!("and {untold} more; see the node's page\n"));
    }
    clip(&mut out, most);
    out
}

/// Whether any that holds is critical.
pub(super) fn worst(mail: &Notification) -> Option<&str> {
    let firing = mail.groups.iter().filter(|group| group.firing);
    firing.map(|group| group.label("severity")).min_by_key(|severity| *severity != "critical")
}

fn part(group: &Group, markup: &impl Markup) -> String {
    let (name, cause, node) = (group.label("alertname"), group.label("cause"), plain(group.label("node")));
    let state = if group.firing { "" } else { "resolved: " };
    let mut out =
        markup.heading(group, &format!("{state}{name} on {node}, cause {cause}, {} in all", group.letters.len()));
    out.push('\n');
    for letter in group.letters.iter().take(NAMED) {
        put(
            &mut out,
            format_args!("- {}, since {}", plain(letter.annotation("summary")), rfc3339::text(letter.started_at)),
        );
        links(letter, &mut out);
        out.push('\n');
    }
    if let Some(more) = group.letters.len().checked_sub(NAMED).filter(|more| *more > 0) {
        put(&mut out, format_args!("- and {more} more\n"));
    }
    out
}

fn links(letter: &Alert, out: &mut String) {
    for (name, shown) in [("trace_url", "trace"), ("dashboard_url", "dashboard"), ("runbook_url", "runbook")] {
        let url = letter.annotation(name);
        if !url.is_empty() {
            put(out, format_args!(" [{shown}]({})", url.replace(['(', ')', ' ', '<', '>'], "")));
        }
    }
}

/// `text` without what chats take for markup or for calling people.
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

/// Room kept for the line of what is left out.
const REST: usize = 64;

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

    fn mail(summaries: &[String]) -> Notification {
        let letters = summaries.iter().map(|summary| {
            let mut letter = Alert::test(&AlertContext::default(), true, Timestamp::from_secs(9));
            letter.annotations.insert("summary", summary.clone());
            letter
        });
        let mut mail = Notification::default();
        mail.groups.push(Group { firing: true, letters: letters.collect() });
        mail
    }

    #[test]
    fn a_fault_of_three_hundred_classes_is_a_few_lines() {
        let mail = mail(&vec!["class c: stutter 4 %".to_owned(); 300]);
        let text = text(&mail, &Bare, 4_096);
        assert_eq!(text.lines().count(), NAMED + 2, "{text}");
        assert!(text.contains("300 in all") && text.contains("and 295 more"), "{text}");
        assert!(title(&mail).ends_with("300 firing"));
    }

    #[test]
    fn a_name_calls_nobody() {
        let mail = mail(&["class <at id=all></at> @all [x](http://evil)".to_owned()]);
        let text = text(&mail, &Bare, 4_096);
        assert!(!text.contains(['<', '@', '[']), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_stays_in_its_bounds(summaries in proptest::collection::vec(".{0,300}", 1..20), most in 100_usize..5_000) {
            prop_assert!(text(&mail(&summaries), &Bare, most).len() <= most);
        }
    }
}
