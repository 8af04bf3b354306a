//! What several tests of the whole share.

pub(crate) mod dashboard;
pub(crate) mod node_certificates;
pub(crate) mod notices;
pub(crate) mod path_node;
pub(crate) mod udp_relay;
