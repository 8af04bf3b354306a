//! The rules of liveqos.
