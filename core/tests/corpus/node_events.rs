//! Events on a node beside single faults: restarts, many viewers that join at once, silent sources, flapping, two
//! faults at once, slow degradation. And the evaluator is pure: the same observations give the same notices.

use std::time::Duration;

use liveqos_core::model::{Alert, Cause, Notice, NoticeState, Protocol, Subject};

use crate::simulation::dice::Dice;
use crate::simulation::world::{Class, World};

fn classes(sizes: &[u32], protocol: Protocol, seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let classes = sizes.iter().enumerate().map(|(number, viewers)| Class::new(number, *viewers, protocol, &mut dice));
    World::new(classes.collect(), seed)
}

fn breaches(notices: &[Notice], alert: Alert) -> Vec<&Notice> {
    let breach = |notice: &&Notice| notice.alert == alert && !notice.renotified && notice.forecast.is_none();
    notices.iter().filter(breach).collect()
}

fn firing(notices: &[Notice], alert: Alert) -> usize {
    breaches(notices, alert).iter().filter(|notice| notice.state == NoticeState::Firing).count()
}

/// Too few nodes for the audience: stutter 15 %, latency over 500 ms, loss over 5 %, processor over 90 %.
#[test]
fn an_overloaded_node_is_the_cause_with_its_figures() {
    let mut world = classes(&[120, 80, 40, 150, 60], Protocol::Webrtc, 1);
    world.run(60);
    assert_eq!(world.notices, []);
    world.load[0] = 0.93;
    for cell in world.classes.iter_mut().flat_map(|class| &mut class.cells) {
        (cell.stutter, cell.loss, cell.late) = (0.15, 0.05, 520.0);
    }
    let onset = world.now();
    world.run(20);
    for alert in [Alert::LiveStutterHigh, Alert::LiveLatencyHigh, Alert::LivePacketLossHigh] {
        let raised = breaches(&world.notices, alert);
        assert_eq!(raised.len(), 5, "{alert:?}: every class, once");
        assert!(raised.iter().all(|notice| notice.at.since(onset) <= Duration::from_secs(3)), "{alert:?}");
        let last = |subject: &Subject| {
            let mut of = world.notices.iter().filter(|notice| notice.alert == alert && notice.subject == *subject);
            of.next_back().map(|notice| (notice.cause, notice.why.join("; ")))
        };
        for notice in raised {
            let (cause, why) = last(&notice.subject).expect("a notice");
            assert_eq!(cause, Cause::Node, "{why}");
            assert!(why.contains("processor 9") && why.contains("of 4 other classes"), "{why}");
        }
    }
}

#[test]
fn a_restarted_server_and_a_join_storm_are_no_faults() {
    let mut world = classes(&[40, 150], Protocol::HttpFlv, 2);
    world.run(90);
    for class in &mut world.classes {
        class.reports = false;
    }
    world.run(8);
    for class in &mut world.classes {
        class.reports = true;
    }
    world.run(30);
    let mut dice = Dice::new(9);
    for (number, viewers) in [(0, 400), (1, 900)] {
        world.classes[number] = Class::new(number, viewers, Protocol::HttpFlv, &mut dice);
    }
    world.run(60);
    assert_eq!(world.notices, [], "totals began anew and the audience grew sixfold");
}

#[test]
fn silence_is_unknown_and_resolves_nothing() {
    let mut world = classes(&[80, 80], Protocol::Webrtc, 3);
    world.run(60);
    world.classes[0].cells.iter_mut().for_each(|cell| cell.stutter = 0.08);
    world.run(20);
    assert_eq!(firing(&world.notices, Alert::LiveStutterHigh), 1);
    world.classes[0].reports = false;
    world.environment.sources = vec![("srs".into(), Some(world.now()))];
    // Just before the evidence is a minute old and the class ends without an observation.
    world.run(58);
    let about: Vec<&Notice> = world.notices.iter().filter(|notice| notice.alert == Alert::LiveStutterHigh).collect();
    assert!(about.iter().all(|notice| notice.state == NoticeState::Firing), "nothing resolves");
    assert_eq!(firing(&world.notices, Alert::LiveSourceDown), 1);
}

#[test]
fn an_alert_without_new_evidence_is_unknown() {
    let mut world = classes(&[80, 80], Protocol::Webrtc, 3);
    world.run(60);
    world.classes[0].cells.iter_mut().for_each(|cell| cell.late = 900.0);
    world.run(20);
    assert_eq!(firing(&world.notices, Alert::LiveLatencyHigh), 1);
    world.classes[0].reports = false;
    world.run(45);
    let last = world.notices.iter().rfind(|notice| notice.alert == Alert::LiveLatencyHigh).expect("a notice");
    assert!(last.renotified && last.state == NoticeState::Firing);
    assert!(last.why.iter().any(|line| line.contains("unknown by now, not healthy")), "{:?}", last.why);
}

#[test]
fn a_fault_that_comes_and_goes_is_few_incidents() {
    let mut world = classes(&[150], Protocol::Webrtc, 4);
    world.run(60);
    for _ in 0..12 {
        world.classes[0].cells.iter_mut().for_each(|cell| cell.stutter = 0.1);
        world.run(10);
        world.classes[0].cells.iter_mut().for_each(|cell| cell.stutter = 0.0);
        world.run(20);
    }
    let incidents = firing(&world.notices, Alert::LiveStutterHigh);
    assert!((1..=4).contains(&incidents), "{incidents} incidents of twelve bursts");
    world.run(180);
    let last = world.notices.iter().rfind(|notice| notice.alert == Alert::LiveStutterHigh).expect("a notice");
    assert_eq!(last.state, NoticeState::Resolved, "and it ends");
}

#[test]
fn of_two_faults_at_once_each_has_its_cause() {
    let mut world = classes(&[150, 80, 80, 120, 60, 90], Protocol::Webrtc, 5);
    world.run(70);
    world.classes[0].bits *= 0.4;
    world.classes[0].frames = 11.0;
    world.classes[0].uneven = 0.4;
    world.classes[0].cells.iter_mut().for_each(|cell| cell.stutter = 0.1);
    for cell in world.classes[1].cells.iter_mut().filter(|cell| cell.network == 1_002) {
        (cell.stutter, cell.loss, cell.late) = (0.4, 0.1, 500.0);
    }
    world.run(40);
    let last = |id: &str| {
        let about = |notice: &&Notice| notice.subject.key() == id && notice.alert == Alert::LiveStutterHigh;
        world.notices.iter().rfind(about).map(|notice| notice.cause)
    };
    assert_eq!((last("c0"), last("c1")), (Some(Cause::Publisher), Some(Cause::ViewersAccess)));
}

#[test]
fn a_rising_load_is_forecast_and_a_noisy_one_is_not() {
    let mut world = classes(&[80, 60], Protocol::HttpFlv, 6);
    world.run(120);
    for step in 0..50 {
        world.load[2] = 0.3 + 0.015 * f64::from(step);
        world.run(5);
        if world.notices.iter().any(|notice| notice.forecast.is_some()) {
            break;
        }
    }
    let warning = world.notices.iter().find(|notice| notice.forecast.is_some()).expect("the network fills");
    let forecast = warning.forecast.expect("a forecast");
    assert_eq!((warning.alert, warning.severity(), warning.cause), (Alert::LiveNodeOverloaded, "warning", Cause::Node));
    let left = (0.95 - world.load[2]) / 0.003;
    assert!((forecast.seconds - left).abs() < left * 0.4, "{forecast}, in truth {left:.0} s");
    assert!(forecast.seconds > 30.0 && forecast.confidence >= 0.9);
    assert!(warning.why.iter().any(|line| line.contains("room for")), "{:?}", warning.why);
    let mut world = classes(&[80, 60], Protocol::HttpFlv, 7);
    let mut dice = Dice::new(8);
    for _ in 0..720 {
        world.load = [0.6 + 0.2 * dice.roll(), 0.5, 0.5 + 0.1 * dice.normal()];
        world.run(5);
    }
    assert_eq!(world.notices, [], "an hour of noise");
}

#[test]
fn a_creeping_latency_is_forecast_before_it_exceeds_the_limit() {
    let mut world = classes(&[150], Protocol::HttpFlv, 9);
    world.run(120);
    for step in 0..60 {
        world.classes[0].cells.iter_mut().for_each(|cell| cell.late = 2.5 * f64::from(step));
        world.run(5);
    }
    let first = |expected: bool| {
        let about = |notice: &&Notice| notice.alert == Alert::LiveLatencyHigh && notice.forecast.is_some() == expected;
        world.notices.iter().find(about).map(|notice| notice.at)
    };
    let (warned, broken) = (first(true).expect("a forecast"), first(false).expect("a breach"));
    assert!(broken > warned, "warned {warned:?}, broken {broken:?}");
    assert_eq!(world.notices.iter().filter(|notice| notice.state == NoticeState::Resolved).count(), 0);
}

/// The observations of one node, played twice; the second time in leaps, as by a replay that is faster than time.
#[test]
fn the_same_observations_give_the_same_notices() {
    let play = |leap: u64| {
        let mut world = classes(&[20, 60, 150], Protocol::Webrtc, 11);
        let mut left = 240;
        while left > 0 {
            let at = 240 - left;
            let faulty = (60..120).contains(&at) || at >= 180;
            let stutter = if faulty { 0.06 } else { 0.0 };
            world.classes[1].cells.iter_mut().for_each(|cell| cell.stutter = stutter);
            world.run(leap);
            left -= leap;
        }
        world.notices
    };
    let slow = play(1);
    assert!(slow.len() >= 3, "{}", slow.len());
    assert_eq!(slow, play(1));
    assert_eq!(slow, play(20));
}
