//! Polls every source in a task of its own, so that a bad server delays no other. Repeats: wait, run a round, record
//! its result, deliver the observations. Never waits for the receiver of the observations.

use std::sync::Arc;

use liveqos_probes::probe::Intake;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http_client::HttpClient;
use super::round::{Now, Round, SourcePoller};
use super::schedule::{LastRound, Schedule};
use crate::intake::observations::{Observations, deliver, stream_count};
use crate::intake::source::{RoundReport, Source, SourceEntry, SourceTable};

/// Starts to poll every polled source of `sources`. Polling ends when the returned set is dropped or the receiver of
/// the observations is gone.
///
/// Must be called inside a tokio runtime with time and net.
#[must_use = "dropping it ends the polling"]
pub(crate) fn start(
    sources: &[Arc<Source>],
    table: &SourceTable,
    client: &HttpClient,
    now: &Now,
    out: &Observations,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for source in sources.iter().filter(|source| source.kind.intake == Intake::Poll) {
        // The table was made of these sources, so each has an entry; one without is not polled.
        if let Some(entry) = table.entry(&source.name) {
            let poller = SourcePoller::new(source.clone(), client.clone(), now.clone());
            tasks.spawn(poll(source.clone(), poller, entry, now.clone(), out.clone()));
        }
    }
    tasks
}

/// Polls until the receiver of the observations is gone.
async fn poll(source: Arc<Source>, mut poller: SourcePoller, entry: Arc<SourceEntry>, now: Now, out: Observations) {
    let schedule = Schedule::new(&source.name, source.interval, Instant::now());
    let mut next = schedule.first();
    let mut failures = 0_u32;
    entry.started(now());
    loop {
        tokio::time::sleep_until(next).await;
        let started = Instant::now();
        let round = poller.round().await;
        let ended = Instant::now();
        failures = if round.failures.is_empty() { 0 } else { failures.saturating_add(1) };
        next = schedule.next(LastRound { started, ended, busy: round.busy, failures });
        entry.round(&RoundReport {
            at: now(),
            duration: ended - started,
            gap: next - started,
            observations: round.observations.len(),
            streams: stream_count(&round.observations),
            failures: round.failures.iter().map(|error| (error.reason(), error.to_string())).collect(),
        });
        log_failures(&source, &round);
        if !deliver(round.observations, &entry, &out) {
            return;
        }
    }
}

fn log_failures(source: &Source, round: &Round) {
    for error in &round.failures {
        tracing::debug!(source = %source.name, reason = error.reason(), "{error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use liveqos_core::model::{Observation, Timestamp};
    use tokio::sync::mpsc;

    use super::*;
    use crate::intake::poll::schedule::DUTY;
    use crate::intake::source::{SourceState, SourceStatus};
    use crate::intake::testing::{Does, KINDS, Server, settings, ticking};

    struct Polled {
        table: SourceTable,
        seen: mpsc::Receiver<Vec<Observation>>,
        tasks: JoinSet<()>,
    }

    fn polled(sources: &[Arc<Source>], room: usize) -> Polled {
        let table = SourceTable::new(sources, None);
        let (out, seen) = mpsc::channel(room);
        let tasks = start(sources, &table, &HttpClient::new().expect("a client"), &ticking(), &out);
        Polled { table, seen, tasks }
    }

    impl Polled {
        /// Waits until the first source's status fulfils `wanted`.
        async fn until(&self, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
            loop {
                let status = self.table.snapshot(Timestamp::from_secs(1_010)).remove(0);
                if wanted(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn slow_source(kind: &str, name: &str, url: &str) -> Arc<Source> {
        let text = format!("kind = '{kind}'\nname = '{name}'\nurl = '{url}'\ninterval = '250ms'\ntimeout = '30s'");
        Arc::new(Source::new(&settings(&text), KINDS).expect("good"))
    }

    #[tokio::test]
    async fn a_good_source_is_polled_repeatedly() {
        let server = Server::start(|_, _| Does::Answers(200, "live/a 3\nlive/b 4")).await;
        let mut polled = polled(&[server.source("")], 8);
        for _ in 0..2 {
            assert_eq!(polled.seen.recv().await.map(|seen| seen.len()), Some(2));
        }
        let status = polled.until(|status| status.rounds >= 2).await;
        assert_eq!((status.state, status.streams, status.last_error), (SourceState::Up, Some(2), None));
        assert!(status.last_success.is_some() && status.observations >= 4);
    }

    #[tokio::test]
    async fn a_source_goes_down_and_comes_back() {
        let good = Arc::new(AtomicBool::new(false));
        let switch = good.clone();
        let server = Server::start(move |_, _| {
            if switch.load(Ordering::SeqCst) { Does::Answers(200, "live/a 3") } else { Does::Answers(503, "") }
        })
        .await;
        let mut polled = polled(&[server.source("")], 8);
        let down = polled.until(|status| status.state == SourceState::Down).await;
        assert_eq!((down.failures.get("status"), down.last_success), (Some(&3), None));
        good.store(true, Ordering::SeqCst);
        assert_eq!(polled.seen.recv().await.map(|seen| seen.len()), Some(1));
        let up = polled.until(|status| status.state == SourceState::Up).await;
        assert!(up.since > down.since && up.last_error == down.last_error, "{up:?}");
    }

    #[tokio::test]
    async fn hanging_sources_do_not_delay_a_healthy_one() {
        let hanging = Server::start(|_, _| Does::Hangs).await;
        let healthy = Server::start(|_, _| Does::Answers(200, "live/a 3")).await;
        let mut sources = vec![healthy.source("")];
        sources.extend((0..20).map(|number| slow_source("fake", &format!("hanging-{number}"), &hanging.url())));
        let mut polled = polled(&sources, 8);
        while hanging.asked.load(Ordering::SeqCst) < 20 {
            tokio::task::yield_now().await;
        }
        let before = polled.until(|_| true).await.rounds;
        for _ in 0..=before + 2 {
            assert!(polled.seen.recv().await.is_some_and(|seen| &*seen[0].source == "fake"));
        }
        let statuses = polled.table.snapshot(Timestamp::from_secs(1_010));
        assert!(statuses[1..].iter().all(|status| status.rounds == 0), "all still wait for their first answer");
    }

    #[tokio::test]
    async fn a_full_queue_sheds_and_counts() {
        let server = Server::start(|_, _| Does::Answers(200, "live/a 3\nlive/b 4")).await;
        let polled = polled(&[server.source("")], 1);
        let status = polled.until(|status| status.rounds >= 2).await;
        let status = polled.until(|now| now.shed > 0 && now.rounds >= status.rounds).await;
        assert_eq!((status.shed % 2, status.state), (0, SourceState::Up));
    }

    #[tokio::test]
    async fn a_slow_answer_stretches_the_interval() {
        let answer = Duration::from_millis(20);
        let server = Server::start(move |_, _| Does::Late(answer, "live/a 3")).await;
        let sources = [server.source("")];
        let table = SourceTable::new(&sources, None);
        let (out, mut seen) = mpsc::channel(8);
        let start_of_time = Instant::now();
        let now: Now = Arc::new(move || Timestamp::from_secs(1) + start_of_time.elapsed());
        let _tasks = start(&sources, &table, &HttpClient::new().expect("a client"), &now, &out);
        let mut asked_at = async || seen.recv().await.expect("an answer")[0].at;
        let (first, second) = (asked_at().await, asked_at().await);
        // A round never starts early, so this cannot fail on a slow machine; without the pause it would be 250 ms.
        assert!(second.since(first) >= answer * DUTY, "{:?}", second.since(first));
    }

    #[tokio::test]
    async fn the_task_ends_with_its_receiver() {
        let server = Server::start(|_, _| Does::Answers(200, "")).await;
        let Polled { seen, mut tasks, .. } = polled(&[server.source("")], 1);
        drop(seen);
        assert!(tasks.join_next().await.is_some_and(|ended| ended.is_ok()));
    }

    #[tokio::test]
    async fn a_push_source_is_not_polled() {
        let server = Server::start(|_, _| Does::Hangs).await;
        let polled = polled(&[slow_source("pushed", "pushed", &server.url())], 1);
        assert!(polled.tasks.is_empty());
    }
}
