//! Rounds of `/stat` answers and notify bodies, parted by zero bytes: nothing may panic, and a stream is gone only
//! after it was there.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use liveqos_core::model::{Fact, SourceName, Timestamp};
use liveqos_probes::probe::{Hook, Reply};

fuzz_target!(|data: &[u8]| {
    let kind = liveqos_probes::kind("nginx-rtmp").expect("listed");
    let mut probe = (kind.build)(toml::Table::new()).expect("defaults are good");
    let source: SourceName = "fuzz".into();
    let mut present = HashSet::new();
    for (second, body) in (1_000..).zip(data.split(|byte| *byte == 0)) {
        let asked_at = Timestamp::from_secs(second);
        let mut out = Vec::new();
        assert!(probe.ask().len() <= 8);
        let read = probe.read(&Reply { source: &source, tag: 0, asked_at, body }, &mut out);
        assert!(read.is_ok() || out.is_empty(), "a broken response gives no observation");
        for observation in &out {
            match &observation.fact {
                Fact::Server(view) => {
                    present.insert(observation.stream.clone());
                    assert!(view.ingest_frames.is_none(), "never measured here");
                }
                Fact::Gone => assert!(present.remove(&observation.stream), "gone only after it was there"),
                other => panic!("a poll does not report {other:?}"),
            }
        }
        let query = String::from_utf8_lossy(body);
        let mut observations = Vec::new();
        drop(probe.read_hook(&Hook { source: &source, at: asked_at, query: &query, body }, &mut observations));
        assert!(observations.len() <= 1);
        for observation in observations.iter().filter(|observation| observation.fact == Fact::Gone) {
            present.remove(&observation.stream);
        }
    }
});
