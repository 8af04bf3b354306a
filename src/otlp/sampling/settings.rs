//! `[sampling]` of the configuration: the share of traces to export of each scenario.

use liveqos_core::model::Scenario;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which traces are exported: a share of each scenario, chosen by trace id, and every class that had a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingSettings {
    /// Share of live classes, 0 to 1.
    pub live_teaching: f64,
    /// Share of examinations.
    pub exam: f64,
    /// Share of homework submissions.
    pub homework_submit: f64,
    /// Share of learning behaviour.
    pub learning_behavior: f64,
    /// Share of playbacks of recorded videos.
    pub video_playback: f64,
    /// Share of sessions without a known scenario.
    pub other: f64,
    /// Whether a class with stutter or an incident is exported whole, whatever the share. Its spans are held on the
    /// node, over restarts too, until its first fault or its end.
    pub whole_on_fault: bool,
    /// The stutter ratio of a sample, 0 to 1, at which a class counts as having stuttered.
    pub stutter_ratio: f64,
    /// Most bytes of held spans; beyond them a class loses its oldest.
    pub hold_bytes: usize,
}

impl SamplingSettings {
    /// The share of `scenario`.
    #[must_use]
    pub const fn share(&self, scenario: Option<Scenario>) -> f64 {
        match scenario {
            Some(Scenario::LiveTeaching) => self.live_teaching,
            Some(Scenario::Exam) => self.exam,
            Some(Scenario::HomeworkSubmit) => self.homework_submit,
            Some(Scenario::LearningBehavior) => self.learning_behavior,
            Some(Scenario::VideoPlayback) => self.video_playback,
            None => self.other,
        }
    }

    /// Checks that all shares are from 0 to 1.
    ///
    /// # Errors
    /// A message that names the key.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            ("live_teaching", self.live_teaching),
            ("exam", self.exam),
            ("homework_submit", self.homework_submit),
            ("learning_behavior", self.learning_behavior),
            ("video_playback", self.video_playback),
            ("other", self.other),
            ("stutter_ratio", self.stutter_ratio),
        ];
        match shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            Some((key, share)) => Err(format!("sampling.{key} is {share}; write a share from 0 to 1")),
            None => Ok(()),
        }
    }
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self {
            live_teaching: 1.0,
            exam: 1.0,
            homework_submit: 1.0,
            learning_behavior: 0.1,
            video_playback: 0.05,
            other: 0.1,
            whole_on_fault: true,
            stutter_ratio: 0.01,
            hold_bytes: 16 << 20,
        }
    }
}
