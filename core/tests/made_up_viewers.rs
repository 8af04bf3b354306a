//! A million made-up viewers and classes beside real ones: they are bounded and counted, and the figures of the real
//! ones are the same as without them.

use std::collections::BTreeMap;
use std::time::Duration;

use liveqos_core::base::ViewerSketch;
use liveqos_core::cmcd::Cmcd;
use liveqos_core::model::{Fact, PlayerView, Timestamp};
use liveqos_core::viewer::{Address, MAX_SESSIONS, MAX_VIEWERS, Origin, Request, ViewerFold, ViewerKey};

const BEGIN: u64 = 1_800_000_000_000;

fn of(at: u64, class: &str) -> Request<'_> {
    Request {
        at: Timestamp::from_millis(at),
        class,
        viewer: [b"", b""],
        origin: Origin::default(),
        protocol: None,
        is_media: true,
        is_served: true,
        bytes: Some(1_000),
    }
}

fn ask(fold: &mut ViewerFold, at: u64, class: &str, payload: &str) {
    fold.request(&of(at, class), &Cmcd::parse(payload.as_bytes()).expect("v1"));
}

/// What real players do in one second: 40 in each of 20 classes, a segment of 1 s; every third one's buffer runs dry
/// for 0.5 s now and then.
fn real(fold: &mut ViewerFold, second: u64) {
    for number in 0..800_u64 {
        let stalls = number.is_multiple_of(3) && second % 10 == 9;
        let bl = if stalls { "bl=0,bs" } else { "bl=1500" };
        let at = BEGIN + second * 1_000 + number;
        ask(fold, at, &format!("live/{}", number % 20), &format!("{bl},d=1000,sid=\"real-{number}\""));
    }
}

type Sums = BTreeMap<String, (u64, u128, u128, u64, u32, u32)>;

fn add(sums: &mut Sums, fold: &mut ViewerFold, second: u64) {
    for observation in fold.drain(Timestamp::from_millis(BEGIN + second * 1_000 + 1_000)) {
        let Fact::Players(view) = observation.fact else { continue };
        let PlayerView { requests, exposure, stalled, bytes, starved_viewers, viewers, .. } = *view;
        let sum = sums.entry(observation.stream.as_str().to_owned()).or_default();
        sum.0 += requests.unwrap_or(0);
        sum.1 += exposure.as_millis();
        sum.2 += stalled.as_millis();
        sum.3 += bytes.unwrap_or(0);
        sum.4 += starved_viewers.unwrap_or(0);
        sum.5 = viewers;
    }
}

/// Seconds over which 1,000,000 made-up ones arrive.
const SECONDS: u64 = 20;

fn calm() -> Sums {
    let (mut fold, mut sums) = (ViewerFold::new("log".into(), [1, 2]), Sums::new());
    for second in 0..SECONDS {
        real(&mut fold, second);
        add(&mut sums, &mut fold, second);
    }
    sums
}

#[test]
fn a_million_made_up_viewers_do_not_change_real_ones() {
    let (mut fold, mut sums) = (ViewerFold::new("log".into(), [1, 2]), Sums::new());
    for second in 0..SECONDS {
        real(&mut fold, second);
        for number in 0..1_000_000 / SECONDS {
            let payload = format!("bl=4000,d=2000,sid=\"made-up-{second}-{number}\"");
            ask(&mut fold, BEGIN + second * 1_000 + 900, "live/flooded", &payload);
        }
        add(&mut sums, &mut fold, second);
        assert!(fold.sizes().0 <= MAX_VIEWERS);
    }
    let counts = fold.counts();
    sums.remove("live/flooded").expect("a class");
    assert_eq!(sums, calm());
    assert!(counts.displaced_viewers + counts.refused_viewers >= 1_000_000 - MAX_VIEWERS as u64, "{counts:?}");
    assert!(counts.refused_viewers < 1_000, "no viewer is refused for more than a moment: {counts:?}");
}

#[test]
fn a_million_made_up_classes_do_not_change_real_ones() {
    let (mut fold, mut sums) = (ViewerFold::new("log".into(), [1, 2]), Sums::new());
    for second in 0..SECONDS {
        real(&mut fold, second);
        for number in 0..1_000_000 / SECONDS {
            ask(&mut fold, BEGIN + second * 1_000 + 900, &format!("made-up/{second}-{number}"), "bl=1,sid=\"one\"");
        }
        add(&mut sums, &mut fold, second);
        assert!(fold.sizes().1 <= MAX_SESSIONS);
    }
    sums.retain(|class, _| class.starts_with("live/"));
    assert_eq!(sums, calm());
    // A real class that begins after the flood is counted.
    (0..3).for_each(|second| ask(&mut fold, BEGIN + (SECONDS + second) * 1_000, "live/new", "bl=1,sid=\"a\""));
    let observations = fold.drain(Timestamp::from_millis(BEGIN + (SECONDS + 3) * 1_000));
    assert!(observations.iter().any(|observation| observation.stream.as_str() == "live/new"));
    assert!(fold.counts().displaced_sessions > 900_000, "{:?}", fold.counts());
}

#[test]
fn a_path_that_was_never_served_is_no_class() {
    let mut fold = ViewerFold::new("log".into(), [1, 2]);
    for number in 0..1_000 {
        let class = format!("made-up/{number}");
        let request = Request {
            at: Timestamp::from_millis(BEGIN),
            class: &class,
            viewer: [b"", b""],
            origin: Origin::default(),
            protocol: None,
            is_media: true,
            is_served: false,
            bytes: Some(153),
        };
        fold.request(&request, &Cmcd::parse(b"sid=\"a\"").expect("v1"));
    }
    assert_eq!((fold.sizes(), fold.counts().unserved), ((0, 0), 1_000));
}

#[test]
fn viewers_seen_by_two_nodes_count_once() {
    let see = |viewers: std::ops::Range<u64>| {
        let mut fold = ViewerFold::new("log".into(), ViewerKey::Fleet([7, 8]));
        viewers.for_each(|viewer| ask(&mut fold, BEGIN, "live/a", &format!("bl=1,d=1,sid=\"v{viewer}\"")));
        let observation = fold.drain(Timestamp::from_millis(BEGIN + 1_000)).remove(0);
        let Fact::Players(view) = observation.fact else { panic!("players") };
        view.present.expect("a sketch").to_bytes()
    };
    for (one, other, all) in [(0..100, 50..150, 150.0), (0..30_000, 20_000..60_000, 60_000.0)] {
        let mut joined = ViewerSketch::from_bytes(&see(one)).expect("a sketch");
        joined.merge(&ViewerSketch::from_bytes(&see(other)).expect("a sketch"));
        let error = joined.count() as f64 / all - 1.0;
        assert!(error.abs() < if all < 256.0 { 1e-9 } else { 0.05 }, "{all}: {error}");
    }
    let mut own = ViewerFold::new("log".into(), [7, 8]);
    ask(&mut own, BEGIN, "live/a", "sid=\"a\"");
    let Fact::Players(view) = own.drain(Timestamp::from_millis(BEGIN + 1_000)).remove(0).fact else {
        panic!("players")
    };
    assert_eq!(view.present, None, "sketches of different keys cannot be merged");
}

#[test]
fn starved_and_stuttering_viewers_are_counted() {
    let mut fold = ViewerFold::new("log".into(), [1, 2]);
    let (mut requests, mut starved, mut stutter) = (0, 0, None);
    for second in 0..20_u64 {
        for (name, step) in [("calm", 0), ("poor", 1)] {
            let (bl, at) =
                if step == 0 { ("bl=4000", BEGIN + second * 1_000) } else { ("bl=1000,bs", BEGIN + second * 1_500) };
            ask(&mut fold, at, "live/a", &format!("{bl},d=1000,sid=\"{name}\""));
            ask(
                &mut fold,
                at,
                "live/a",
                &format!("bs,ot=a,sid=\"{name}\"").replace(if step == 0 { "bs," } else { "none" }, ""),
            );
        }
        for observation in fold.drain(Timestamp::from_millis(BEGIN + second * 1_000 + 1_000)) {
            let Fact::Players(view) = observation.fact else { panic!("players") };
            requests += view.requests.unwrap_or(0);
            starved += view.starved_viewers.unwrap_or(0);
            stutter = view.stutter_viewers;
        }
    }
    assert_eq!(requests, 80);
    assert_eq!(starved, 4, "one viewer, once in each of four windows, however often it reports it");
    assert_eq!(stutter, Some((1, 2)));
}

/// Groups are reported once a second, with the next observation of the class, whenever that is due.
#[test]
fn groups_are_reported_though_no_observation_is_due_at_the_full_second() {
    let mut fold = ViewerFold::new("log".into(), [1, 2]);
    let (mut by_groups, mut exposure) = (Duration::ZERO, Duration::ZERO);
    for tick in 0..60_u64 {
        let now = BEGIN + tick * 250;
        // Groups are due in the first tick of four; this viewer sends a request in the third.
        if tick % 4 == 2 {
            let address = Address::Known([198, 51, 100, 7].into());
            let request = Request { origin: Origin { address, ..Origin::default() }, ..of(now, "live/1") };
            let payload = format!("bl=1500,d=1000,sid=\"v\",dl=1500,mtp=1000,br={tick}");
            fold.request(&request, &Cmcd::parse(payload.as_bytes()).expect("v1"));
        }
        for observation in fold.drain(Timestamp::from_millis(now)) {
            let Fact::Players(view) = observation.fact else { continue };
            exposure += view.exposure;
            by_groups += view.groups.iter().map(|group| group.exposure).sum::<Duration>();
        }
    }
    assert!(exposure > Duration::from_secs(10), "{exposure:?}");
    assert!(by_groups + Duration::from_secs(5) > exposure, "{by_groups:?} of {exposure:?} in groups");
}
