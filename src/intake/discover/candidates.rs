//! The URLs at which a program's status interface may be.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use liveqos_probes::probe::Kind;
use reqwest::Url;

use super::process::Program;

/// The URLs to try with the address of each, the usual ones first.
pub(super) fn candidates(
    program: &Program,
    kind: &Kind,
    sockets: &HashMap<u64, SocketAddr>,
) -> Vec<(SocketAddr, String)> {
    let default = Url::parse(kind.default_url).ok();
    let default_port = default.as_ref().and_then(Url::port_or_known_default);
    let default_path = default.as_ref().map_or("", Url::path).trim_end_matches('/');
    let mut paths = vec![default_path];
    paths.extend(kind.status_paths.iter().copied().filter(|path| *path != default_path));

    // If the program's own sockets are hidden, only the usual ports of status pages are tried, not all ports of the
    // host.
    let usual = |at: &SocketAddr| Some(at.port()) == default_port || USUAL_PORTS.contains(&at.port());
    let hidden = || sockets.values().copied().filter(usual).collect();
    let mut addresses: Vec<SocketAddr> = program.listens.clone().unwrap_or_else(hidden).into_iter().collect();
    addresses.retain(|at| !NO_HTTP_PORTS.contains(&at.port()));
    addresses.sort_by_key(|at| (Some(at.port()) != default_port, *at));

    let mut urls: Vec<(SocketAddr, String)> = Vec::new();
    for address in addresses.into_iter().flat_map(reachable) {
        for path in &paths {
            let url = format!("http://{address}{path}");
            if !urls.contains(&(address, url.clone())) && urls.len() < MAX_TRIES {
                urls.push((address, url));
            }
        }
    }
    urls
}

/// The addresses at which a listening socket is reached from this host.
fn reachable(at: SocketAddr) -> Vec<SocketAddr> {
    let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port());
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![v4, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), at.port())],
        _ => vec![at],
    }
}

/// Largest number of URLs requested of one program.
pub(super) const MAX_TRIES: usize = 48;
/// Ports that are tried when a program's own are hidden.
const USUAL_PORTS: [u16; 6] = [80, 1985, 8000, 8080, 8081, 8088];
/// Ports that are never requested by HTTP: RTMP, RTMPS and TLS, where a request would only log an error.
const NO_HTTP_PORTS: [u16; 3] = [443, 1935, 1936];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::intake::testing::KINDS;

    #[test]
    fn usual_ports_are_tried_first_and_rtmp_never() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let listens = Some(BTreeSet::from([at("0.0.0.0:80"), at("[::]:9"), at("10.0.0.5:8080"), at("0.0.0.0:1935")]));
        let program = Program { name: "fake-server".to_owned(), pids: vec![1], listens };
        let urls = candidates(&program, KINDS[0], &HashMap::new());
        let urls: Vec<String> = urls.into_iter().map(|(_, url)| url).collect();
        let expected =
            ["http://127.0.0.1:9/stat", "http://[::1]:9/stat", "http://127.0.0.1:80/stat", "http://10.0.0.5:8080/stat"];
        assert_eq!(urls, expected);
    }
}
