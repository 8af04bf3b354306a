//! What each media server tells.
