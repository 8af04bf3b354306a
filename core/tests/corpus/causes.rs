//! The named causes of a few faults of each kind.

use crate::simulation::named_cause::matrix;

#[test]
fn causes_are_named_right() {
    let (right, alerted, played) = matrix(1..3);
    assert!(right * 10 >= alerted * 8, "{right} of {alerted}");
    assert!(alerted * 10 >= played * 9, "{alerted} of {played} faults raised an alert");
}
