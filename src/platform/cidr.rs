//! IP addresses and networks in CIDR notation (RFC 4632) as settings name them: who may send, which proxies are
//! trusted.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text that is neither an address nor a network: the setting's key, and the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: \"{1}\" is neither an address nor a network such as 10.0.0.0/8")]
pub struct NetworkError(&'static str, String);

impl Networks {
    /// Parses the addresses and networks of the setting `key`; an address is a network of one.
    ///
    /// # Errors
    /// [`NetworkError`] of the first text that is neither.
    pub fn read(key: &'static str, texts: &[String]) -> Result<Self, NetworkError> {
        let one = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse()).map_err(|_| NetworkError(key, text.clone()))
        };
        texts.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `address` is in one of them; an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) counts as IPv4.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// All networks, in the order of the setting.
    #[must_use]
    pub fn all(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_addresses_in_either_form() {
        let networks = Networks::read("x", &["10.0.0.0/8".to_owned(), "::1".to_owned()]).expect("good");
        let holds = |text: &str| networks.contain(text.parse().expect("an address"));
        assert!(holds("10.9.9.9") && holds("::ffff:10.1.2.3") && holds("::1"));
        assert!(!holds("11.0.0.1") && !holds("::2"));
    }
}
