//! The players as npm packages of exact versions and hashes. Decides where they are; the error names the
//! command that installs them.

use std::path::{Path, PathBuf};

/// The folder of this test's package list, and of the pages.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browsers")
}

/// Where the packages lie; a test cannot go on without them.
pub(crate) fn installed() -> PathBuf {
    let modules = folder().join("node_modules");
    assert!(
        modules.join("hls.js/dist/hls.js").is_file(),
        "the players are not there: run `npm ci --prefix tests/browsers` first"
    );
    modules
}
