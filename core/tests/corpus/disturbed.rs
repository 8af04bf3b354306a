//! Faults on a node on which other things happen at the same time: a server restarts, many viewers join at once, a
//! source goes silent, noise. The right cause is named, or none.

use liveqos_core::model::{Alert, Cause, NoticeState, Objectives, Protocol};
use liveqos_core::recording::{Event, Head, Playback, Settings, line};
use liveqos_core::session::SessionTimeouts;

use crate::simulation::crowd::Habit;
use crate::simulation::dice::Dice;
use crate::simulation::faults::KINDS;
use crate::simulation::named_cause::named_with;
use crate::simulation::world::{Class, START, World};

/// What else happens, by the seconds since the fault began.
type Also = fn(u64, &mut World);

const DISTURBANCES: [(&str, Also); 4] = [
    ("restart", |second, world| {
        // Away for two seconds, its totals new after it.
        let back = second == 12;
        for class in &mut world.classes {
            class.reports = !(10..12).contains(&second);
            if back {
                class.restart();
            }
        }
    }),
    ("join storm", |second, world| {
        if second == 3 {
            world.classes.iter_mut().for_each(|class| class.join(3));
        }
    }),
    ("silent source", |second, world| {
        // Every third class is on a server that does not report any more.
        if second == 2 {
            world.classes.iter_mut().skip(2).step_by(3).for_each(|class| class.reports = false);
            world.environment.sources = vec![("srs".into(), None), ("other".into(), Some(world.now()))];
        }
    }),
    ("noise", |second, world| {
        let spike = second.is_multiple_of(7);
        world.load[1] = if spike { 0.7 } else { 0.4 };
        for class in &mut world.classes {
            class.habit = Habit { ratio: if spike { 0.006 } else { 0.002 }, ..class.habit };
        }
    }),
];

#[test]
fn a_fault_keeps_its_cause_whatever_else_happens() {
    let (mut right, mut alerted, mut played) = (0, 0, 0);
    for (name, also) in DISTURBANCES {
        for (seed, kind) in (40..).zip(KINDS) {
            let cause = named_with(kind, seed, &mut |second, world| also(second, world));
            if cause != Some(kind.0) {
                println!("{name}: {} {} is named {cause:?}", kind.0.as_str(), kind.1);
            }
            right += usize::from(cause == Some(kind.0));
            alerted += usize::from(cause.is_some());
            played += 1;
        }
    }
    println!("{right} of {alerted} named right, {played} played");
    assert!(alerted * 10 >= played * 9 && right * 10 >= alerted * 8, "{right} of {alerted}, {played} played");
}

#[test]
fn healthy_classes_of_any_baseline_raise_no_alert() {
    for (seed, ratio) in [(1, 0.0), (2, 0.001), (3, 0.003), (4, 0.005)] {
        let mut dice = Dice::new(seed);
        let sizes = [5, 20, 150];
        let classes = sizes.iter().enumerate().map(|(number, viewers)| {
            let mut class = Class::new(number, *viewers, Protocol::Hls, &mut dice);
            class.habit = Habit { ratio, ..class.habit };
            class
        });
        let mut world = World::new(classes.collect(), seed);
        world.run(900);
        assert_eq!(world.notices, [], "{ratio}");
    }
}

#[test]
fn the_largest_class_is_evaluated_as_fast_as_any() {
    let mut dice = Dice::new(5);
    let mut world = World::new(vec![Class::new(0, 50_000, Protocol::Hls, &mut dice)], 5);
    world.run(60);
    world.classes[0].cells.iter_mut().for_each(|cell| cell.stutter = 0.04);
    let onset = world.now();
    world.run(5);
    let fires = |notice: &&liveqos_core::model::Notice| notice.alert == Alert::LiveStutterHigh;
    let first = world.notices.iter().find(fires).expect("an alert");
    assert_eq!(first.state, NoticeState::Firing);
    assert!(first.at.since(onset).as_millis() <= 1_500, "{:?}", first.at.since(onset));
}

/// Everything recorded and played back: the same samples and notices, and every event is written as it was read.
#[test]
fn a_recording_gives_the_same_samples_and_notices() {
    let mut dice = Dice::new(21);
    let protocols = [Protocol::Webrtc, Protocol::HttpFlv, Protocol::Hls];
    let classes = (0..6).map(|number| Class::new(number, 30 + 40 * number as u32, protocols[number % 3], &mut dice));
    let mut world = World::new(classes.collect(), 21);
    world.tape = Some(Vec::new());
    world.path = Some((0.0005, 20.0));
    world.run(70);
    world.classes[1].cells.iter_mut().for_each(|cell| (cell.stutter, cell.late) = (0.1, 400.0));
    world.run(20);
    world.classes[2].restart();
    world.load[0] = 0.97;
    world.run(20);
    world.path = Some((0.05, 90.0));
    world.classes[3].publishing = false;
    world.environment.sources = vec![("srs".into(), Some(world.now()))];
    world.run(40);
    let alerts: std::collections::BTreeSet<Alert> = world.notices.iter().map(|notice| notice.alert).collect();
    assert!(alerts.len() >= 5, "{alerts:?}");
    assert!(world.notices.iter().any(|notice| notice.cause != Cause::Unknown) && world.samples.len() > 100);

    let settings =
        Settings { objectives: Objectives::default(), timeouts: SessionTimeouts::default(), max_sessions: 1_000 };
    let mut playback = Playback::new(&Head::new("edge-7".to_owned(), START, settings), None);
    let (mut notices, mut samples) = (Vec::new(), Vec::new());
    for written in world.tape.take().expect("it was kept") {
        let event = Event::read(&written).expect("a good event");
        assert_eq!(line(&event).expect("short"), written, "it is written as it was read");
        if let Some(tick) = playback.play(event) {
            notices.extend(tick.notices);
            samples.extend(tick.batch.samples);
        }
    }
    assert_eq!(notices, world.notices);
    assert_eq!(samples, world.samples);
}
