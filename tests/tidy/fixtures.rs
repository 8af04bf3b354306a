//! Every kind of source has recorded input of its real server, so that no probe is tested against imagination alone.

use std::fs;

use super::repository::root;

#[test]
fn every_kind_of_source_has_fixtures() {
    let folder = root().join("probes/fixtures");
    for kind in liveqos_probes::KINDS {
        let count = fs::read_dir(folder.join(kind.name)).map_or(0, Iterator::count);
        assert!(count > 0, "no recorded input in {} for {}", folder.display(), kind.name);
    }
}

#[test]
fn kinds_have_names_of_their_own() {
    let mut names: Vec<_> = liveqos_probes::KINDS.iter().map(|kind| kind.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two kinds of one name among {names:?}");
    assert!(
        names.iter().all(|name| {
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
    );
}
