//! What a viewer's reports add to the sums of its class.

/// What reports added to the sums of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlaybackDelta {
    /// Time in playing or stalled state, ms.
    pub(crate) exposure_millis: u64,
    /// Stalled part of the exposure, ms.
    pub(crate) stalled_millis: u64,
    /// Stalls that began.
    pub(crate) starts: u32,
    /// Event reports dropped as repeated or too late.
    pub(crate) repeated: u32,
    /// Event reports that never arrived, by their sequence numbers.
    pub(crate) lost: u32,
}
