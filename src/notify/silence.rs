//! Silences: periods of maintenance in which nobody is notified of alerts with certain labels.

use liveqos_core::model::Timestamp;

use super::alert::Alert;
use super::settings::{NotifyError, SilenceSettings};

/// The configured silences.
#[derive(Clone, Debug, Default)]
pub struct Silences(Vec<Silence>);

#[derive(Clone, Debug)]
struct Silence {
    labels: Vec<(String, String)>,
    from: Timestamp,
    until: Timestamp,
}

impl Silences {
    /// Parses the settings.
    ///
    /// # Errors
    /// [`NotifyError::Instant`].
    pub fn new(settings: &[SilenceSettings]) -> Result<Self, NotifyError> {
        let silences = settings.iter().map(|one| {
            let from = if one.from.is_empty() { Timestamp::from_secs(0) } else { instant("from", &one.from)? };
            let labels = one.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            Ok(Silence { labels, from, until: instant("until", &one.until)? })
        });
        silences.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a silence covers `alert`.
    #[must_use]
    pub fn cover(&self, alert: &Alert) -> bool {
        self.0.iter().any(|silence| {
            let fits = |(name, value): &(String, String)| matches(value, alert.label(name));
            (silence.from..silence.until).contains(&alert.at) && silence.labels.iter().all(fits)
        })
    }
}

fn matches(pattern: &str, value: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == value, |start| value.starts_with(start))
}

fn instant(key: &'static str, text: &str) -> Result<Timestamp, NotifyError> {
    let wrong = |detail: String| NotifyError::Instant { key, text: text.to_owned(), detail };
    let at: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| wrong(error.to_string()))?;
    let millis = u64::try_from(at.as_millisecond()).map_err(|_| wrong("it is before 1970".to_owned()))?;
    Ok(Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::alert::AlertContext;

    #[test]
    fn a_silence_covers_only_its_labels_and_period() {
        let silence = |labels: &[(&str, &str)], from: &str, until: &str| SilenceSettings {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            from: from.to_owned(),
            until: until.to_owned(),
            comment: String::new(),
        };
        let head = AlertContext { node: "media-017".to_owned(), ..AlertContext::default() };
        let alert = |seconds| Alert::test(&head, true, Timestamp::from_secs(seconds));
        let covers =
            |one: SilenceSettings, seconds| Silences::new(&[one]).expect("well written").cover(&alert(seconds));
        let until = "1970-01-01T08:01:40+08:00";
        assert!(covers(silence(&[], "", until), 99));
        assert!(!covers(silence(&[], "", until), 100));
        assert!(!covers(silence(&[], "1970-01-01T00:01:00Z", until), 59));
        assert!(covers(silence(&[("node", "media-*"), ("alertname", "LiveqosTest")], "", until), 1));
        assert!(!covers(silence(&[("node", "media-1*")], "", until), 1));
        assert!(!covers(silence(&[("session_id", "c1")], "", until), 1));
        let error = Silences::new(&[silence(&[], "", "tomorrow")]).expect_err("not a time").to_string();
        assert!(error.contains("until = \"tomorrow\""), "{error}");
        assert!(Silences::new(&[silence(&[], "", "")]).is_err(), "a silence needs an end");
    }
}
