//! Alerts of stutter by the size of the class: none for healthy classes, and soon for faulty ones.

use crate::simulation::stutter::{HABITS, at, delays, healthy};

#[test]
fn healthy_classes_raise_no_alert() {
    for viewers in [5, 20, 150] {
        let (alarms, plain) = healthy(viewers, HABITS[0].1, (1, 3));
        assert_eq!(alarms, 0, "{viewers} viewers");
        assert!(plain > 0 || viewers > 100, "the plain rule raises false alarms: {plain}");
    }
}

#[test]
fn faults_raise_alerts_in_time() {
    for (viewers, within) in [(150, 1.25), (50, 5.0), (20, 10.0), (10, 15.0)] {
        let (ours, _) = delays(viewers, HABITS[0].1, (0.04, 25));
        assert!(at(&ours, 0.95) <= within, "{viewers} viewers: {ours:?}");
    }
}
