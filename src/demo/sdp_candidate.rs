//! The addresses in session descriptions. Replaces the addresses of candidates, so that a relay can stand between two
//! peers, and changes nothing else.

use std::net::SocketAddr;

use super::peer::PeerError;

/// The address of the first UDP host candidate of a session description (RFC 8839, 5.1).
pub(super) fn candidate(sdp: &str) -> Result<SocketAddr, PeerError> {
    sdp.lines().find_map(|line| Candidate::read(line)?.address()).ok_or(PeerError::NoCandidate)
}

/// The session description with the address of every candidate replaced by `relay`, so that all packets pass through
/// it.
pub(super) fn redirect(sdp: &str, relay: SocketAddr) -> String {
    let mut redirected = String::with_capacity(sdp.len());
    for line in sdp.lines() {
        match Candidate::read(line) {
            Some(candidate) => redirected.push_str(&candidate.at(relay)),
            None => redirected.push_str(line),
        }
        redirected.push_str("\r\n");
    }
    redirected
}

/// The parts of a candidate line: `a=candidate:<foundation> <component> <transport> <priority> <address> <port>
/// <rest>`.
struct Candidate<'a> {
    parts: Vec<&'a str>,
}

impl<'a> Candidate<'a> {
    fn read(line: &'a str) -> Option<Self> {
        line.starts_with("a=candidate:")
            .then(|| Self { parts: line.split(' ').collect() })
            .filter(|c| c.parts.len() >= 8)
    }

    fn address(&self) -> Option<SocketAddr> {
        let udp = self.parts[2].eq_ignore_ascii_case("udp") && self.parts[7] == "host";
        udp.then(|| Some(SocketAddr::new(self.parts[4].parse().ok()?, self.parts[5].parse().ok()?)))?
    }

    fn at(&self, relay: SocketAddr) -> String {
        let (before, after) = (self.parts[..4].join(" "), self.parts[6..].join(" "));
        format!("{before} {} {} {after}", relay.ip(), relay.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_changes_only_candidates() {
        let sdp = "v=0\r\nc=IN IP4 0.0.0.0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host generation 0\r\na=mid:0\r\n";
        assert_eq!(candidate(sdp).unwrap(), "127.0.0.1:5000".parse::<SocketAddr>().unwrap());
        let relay = "127.0.0.1:9".parse().unwrap();
        let redirected = redirect(sdp, relay);
        assert_eq!(candidate(&redirected).unwrap(), relay);
        assert_eq!(redirected, sdp.replace("127.0.0.1 5000", "127.0.0.1 9"));
    }

    #[test]
    fn without_a_udp_host_candidate_there_is_no_address() {
        for line in
            ["", "a=candidate:1 1", "a=candidate:1 1 tcp 1 127.0.0.1 9 typ host", "a=candidate:1 1 udp 1 x 9 typ host"]
        {
            assert!(matches!(candidate(line), Err(PeerError::NoCandidate)), "{line}");
        }
    }
}
