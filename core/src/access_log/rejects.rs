//! Why lines and posted reports are rejected, and the counts of each reason.

/// Why a line is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`MAX_LINE`].
    #[error("longer than {MAX_LINE} bytes")]
    Long,
    /// Not in the configured format.
    #[error("not of the configured form")]
    Form,
    /// No readable time.
    #[error("no readable timestamp")]
    Time,
    /// CMCD of a version newer than [`NEWEST_VERSION`](crate::cmcd::NEWEST_VERSION).
    #[error("cmcd of a newer version")]
    Version,
}

/// Rejected lines by reason, and malformed CMCD values within accepted lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineErrorCounts {
    /// [`LineError::Long`].
    pub long: u64,
    /// [`LineError::Form`].
    pub form: u64,
    /// [`LineError::Time`].
    pub time: u64,
    /// [`LineError::Version`].
    pub version: u64,
    /// Malformed CMCD values in accepted lines.
    pub values: u64,
}

/// Rejected reports of posts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostCounts {
    /// Reports for viewers of a class that the post may not count for.
    pub wrong_session: u64,
    /// Reports for new viewers beyond [`MAX_NEW_VIEWERS`] in one post.
    pub too_many_viewers: u64,
}

/// Longest line in bytes: nginx limits a request's head to 8 KiB, and event bodies are added to it.
pub const MAX_LINE: usize = 65_536;
/// Most new viewers in one post: a page has one player, rarely more.
pub(super) const MAX_NEW_VIEWERS: usize = 4;
