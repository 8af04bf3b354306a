//! 100,000 viewers in one class: what one takes.

use std::net::Ipv4Addr;

use liveqos_core::cmcd::Cmcd;
use liveqos_core::model::Timestamp;
use liveqos_core::viewer::{Address, Origin, PlayerName, Request, ViewerFold};

use crate::usage;

pub(crate) fn print() {
    let before = usage::resident_kilobytes();
    let mut fold = ViewerFold::new("bench".into(), [1, 2]);
    for pass in 0..3_u64 {
        for viewer in 0..VIEWERS {
            let at = Timestamp::from_millis(1_800_000_000_000 + pass * 2_000 + viewer * 2_000 / VIEWERS);
            let payload = format!("bl=4300,d=2000,sid=\"{viewer:08}-0000-4000-8000-000000000000\"");
            let set = Cmcd::parse(payload.as_bytes()).expect("v1");
            fold.request(
                &Request {
                    at,
                    class: "live/one",
                    viewer: [b"", b""],
                    origin: Origin {
                        address: Address::Known(Ipv4Addr::from((viewer as u32 % NETWORKS) << 8).into()),
                        player: PlayerName { agent: AGENT, ..PlayerName::default() },
                        ..Origin::default()
                    },
                    protocol: None,
                    is_media: true,
                    is_served: true,
                    bytes: Some(1),
                },
                &set,
            );
        }
    }
    let observations = fold.drain(Timestamp::from_millis(1_800_000_006_000));
    let grown = usage::resident_kilobytes() - before;
    assert_eq!((fold.sizes(), observations.len()), ((VIEWERS as usize, 1), 1));
    println!("{VIEWERS} viewers in one class: {} B a viewer resident", grown * 1_024 / VIEWERS);
}

const VIEWERS: u64 = 100_000;
const NETWORKS: u32 = 20_000;
const AGENT: &[u8] =
    b"Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
