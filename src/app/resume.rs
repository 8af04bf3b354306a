//! How a start resumes the classes of the last run. Decides whether their state is still meaningful.

use liveqos_core::model::{Checkpoint, GRID};
use liveqos_core::pipeline::Pipeline;
use liveqos_core::recording::{Event, Head};

use super::node_identity::NodeIdentity;
use crate::config::Config;
use crate::engine::Recorder;
use crate::platform::clock;

/// Whether stored state can be resumed. It cannot when the clock was set back meanwhile, because its timestamps are
/// then in the future.
pub(super) fn is_resumable(checkpoint: &Checkpoint) -> bool {
    checkpoint.last_cut().is_none_or(|cut| cut.since(clock::now()) <= clock::MAX_WAIT + GRID)
}

/// The rules with the classes of the last run; what is resumed is recorded.
pub(super) fn resumed(
    config: &Config,
    identity: &NodeIdentity,
    checkpoint: &Checkpoint,
    recorder: &mut Option<Recorder>,
) -> Pipeline {
    let mut pipeline = Pipeline::new(&identity.node, config.objectives(), config.timeouts(), config.sessions.max);
    if !is_resumable(checkpoint) {
        tracing::warn!("the clock was set back since the last run; its classes are not resumed");
        return pipeline;
    }
    let now = clock::now();
    pipeline.resume(checkpoint, now);
    if let Some(recorder) = recorder {
        for event in Event::resumed(checkpoint, now) {
            recorder.record(|| event);
        }
    }
    let (classes, announced) = (checkpoint.classes.len(), checkpoint.announced.len());
    if classes + announced > 0 {
        tracing::info!(classes, announced, "resumed the classes of the last run");
    }
    pipeline
}

/// The first line of a recording.
pub(super) fn head(config: &Config, identity: &NodeIdentity) -> Head {
    Head::new(identity.node.clone(), clock::now(), config.rule_settings())
}
