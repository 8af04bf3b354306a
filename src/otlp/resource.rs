//! The OTLP resource of this node, by OpenTelemetry's semantic conventions 1.44. The environment may override every
//! attribute except the node id and role, which span ids depend on.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1 as proto;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encode::key_value;

/// What the node does with media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives streams from publishers.
    #[default]
    Origin,
    /// Delivers streams to viewers.
    Edge,
}

impl Role {
    /// The value of `live.node.role`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Edge => "edge",
        }
    }
}

/// The values of the resource's attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `service.version`.
    pub service_version: String,
    /// `service.instance.id`: the same after a restart, unique to the node.
    pub instance_id: String,
    /// `host.name`.
    pub host_name: String,
    /// `cloud.region`, where configured.
    pub region: Option<String>,
    /// `live.node.id`: the node's name, which span ids are derived from.
    pub node: String,
    /// `live.node.role`.
    pub role: Role,
    /// `deployment.environment.name`, where configured.
    pub environment: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, which override all of the above except `live.node.*`.
    pub extra: BTreeMap<String, String>,
}

impl Resource {
    /// The resource as an OTLP message, in a fixed order; empty values are left out.
    #[must_use]
    pub fn encode(&self) -> proto::Resource {
        let own = [
            ("service.name", Some("liveqos")),
            ("service.namespace", Some("edu-live")),
            ("service.version", Some(self.service_version.as_str())),
            ("service.instance.id", Some(self.instance_id.as_str())),
            ("deployment.environment.name", self.environment.as_deref()),
            ("host.name", Some(self.host_name.as_str())),
            ("cloud.region", self.region.as_deref()),
            (NODE_ID, Some(self.node.as_str())),
            (NODE_ROLE, Some(self.role.as_str())),
        ];
        let kept = |key: &str| key == NODE_ID || key == NODE_ROLE || !self.extra.contains_key(key);
        let own = own
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.filter(|text| !text.is_empty())?)))
            .filter(|(key, _)| kept(key));
        let extra = self
            .extra
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .filter(|(key, _)| *key != NODE_ID && *key != NODE_ROLE);
        proto::Resource {
            attributes: own.chain(extra).map(|(key, value)| text(key, value)).collect(),
            ..proto::Resource::default()
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    key_value(key, any_value::Value::StringValue(value.to_owned()))
}

const NODE_ID: &str = "live.node.id";
const NODE_ROLE: &str = "live.node.role";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_all_but_the_node() {
        let extra = [("service.name", "qos"), ("live.node.id", "other"), ("team", "ops")];
        let resource = Resource {
            service_version: "1.2.3".to_owned(),
            node: "edge-7".to_owned(),
            role: Role::Edge,
            region: Some("cn-north".to_owned()),
            extra: extra.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Resource::default()
        };
        let expected = [
            ("service.namespace", "edu-live"),
            ("service.version", "1.2.3"),
            ("cloud.region", "cn-north"),
            ("live.node.id", "edge-7"),
            ("live.node.role", "edge"),
            ("service.name", "qos"),
            ("team", "ops"),
        ];
        assert_eq!(resource.encode().attributes, expected.map(|(key, value)| text(key, value)));
    }
}
