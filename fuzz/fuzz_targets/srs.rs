//! Rounds of API answers and hook bodies, parted by zero bytes and given to whatever is asked: nothing may panic, every
//! round ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use liveqos_core::model::{Fact, SourceName, Timestamp};
use liveqos_probes::probe::{Hook, MAX_ROUND, Reply};

fuzz_target!(|data: &[u8]| {
    let kind = liveqos_probes::kind("srs").expect("listed");
    let mut settings = toml::Table::new();
    settings.insert("max_streams".to_owned(), 10.into());
    let mut probe = (kind.build)(settings).expect("good settings");
    let source: SourceName = "fuzz".into();
    let mut bodies = data.split(|byte| *byte == 0);
    let mut second = 1_000;
    while let Some(first) = bodies.next() {
        second += 5;
        let asked_at = Timestamp::from_secs(second);
        let mut out = Vec::new();
        let mut requests = probe.ask();
        let mut body = first;
        let mut asked = 0;
        while let Some(request) = requests.pop() {
            asked += 1;
            assert!(asked <= MAX_ROUND, "a round is bounded");
            let reply = Reply { source: &source, tag: request.tag, asked_at, body };
            requests.extend(probe.read(&reply, &mut out).unwrap_or_default());
            body = bodies.next().unwrap_or(first);
        }
        for observation in &out {
            if let Fact::Server(view) = &observation.fact {
                let publishing = view.publishing == Some(true);
                assert!(publishing || (view.ingest_bytes.is_none() && view.ingest_frames.is_none()));
            }
        }
        let mut observations = Vec::new();
        drop(probe.read_hook(&Hook { source: &source, at: asked_at, query: "", body: first }, &mut observations));
        assert!(observations.len() <= 1);
    }
});
