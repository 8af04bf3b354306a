//! The identity of this node in the terms of every exporter: OTLP resource, metric labels, context of alerts. Decides
//! the defaults where nothing is configured; a region has none.

use std::collections::HashMap;

use crate::config::Config;
use crate::notify::AlertContext;
use crate::otlp::Resource;

/// The node's identity.
#[derive(Clone, Debug)]
pub(crate) struct NodeIdentity {
    /// Its name.
    pub node: String,
    /// Its region; empty where it is not configured.
    pub region: String,
    /// Its edge or point of presence.
    pub edge: String,
    host: String,
}

impl NodeIdentity {
    /// As configured; the name of the host by default.
    #[must_use]
    pub(crate) fn of(config: &Config) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let host = if host.is_empty() { "localhost".to_owned() } else { host };
        let or = |text: &String, other: &String| if text.is_empty() { other.clone() } else { text.clone() };
        let node = or(&config.node.name, &host);
        Self { edge: or(&config.node.edge, &node), region: config.node.region.clone(), node, host }
    }

    /// The labels of every metric; what is not configured is left out.
    #[must_use]
    pub(crate) fn labels(&self) -> HashMap<String, String> {
        let labels = [("region", &self.region), ("edge", &self.edge)];
        let known = labels.into_iter().filter(|(_, value)| !value.is_empty());
        known.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    /// The resource of all OTLP telemetry (OpenTelemetry semantic conventions).
    #[must_use]
    pub(crate) fn resource(&self, config: &Config) -> Resource {
        Resource {
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: instance_id(&self.node),
            host_name: self.host.clone(),
            region: Some(self.region.clone()).filter(|region| !region.is_empty()),
            node: self.node.clone(),
            role: config.node.role,
            environment: Some(config.node.environment.clone()).filter(|environment| !environment.is_empty()),
            extra: config.otlp.resource.clone(),
        }
    }

    /// What each alert contains of the node.
    #[must_use]
    pub(crate) fn alert_context(&self, config: &Config) -> AlertContext {
        AlertContext {
            node: self.node.clone(),
            region: self.region.clone(),
            alerts: config.alerts.clone(),
            page_url: format!("http://{}/", config.listen),
        }
    }
}

/// `service.instance.id`, the same across restarts: a hash of the machine's id, which itself must not leave the machine
/// (machine-id(5)), or of the node's name where the machine has no id, as in containers.
fn instance_id(node: &str) -> String {
    let machine = std::fs::read_to_string("/etc/machine-id").ok().filter(|id| !id.trim().is_empty());
    let machine = machine.unwrap_or_else(|| node.to_owned());
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("liveqos/instance/{}", machine.trim()).as_bytes());
    let hex = liveqos_core::base::hex::encode(&digest.as_ref()[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
