//! The files of the repository. Decides which count as written by people: not build results, recorded input or
//! snapshots.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, by its path from the root.
pub(crate) fn text(path: &str) -> String {
    let whole = root().join(path);
    fs::read_to_string(&whole).unwrap_or_else(|error| panic!("reading {}: {error}", whole.display()))
}

/// All files with one of these extensions, by their path from the root, sorted.
pub(crate) fn files(extensions: &[&str]) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &mut found);
    let mut paths: Vec<_> = found
        .iter()
        .filter(|path| path.extension().is_some_and(|have| extensions.iter().any(|want| have == *want)))
        .map(|path| path.strip_prefix(&root).expect("found below the root").display().to_string())
        .collect();
    paths.sort();
    paths
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("listing {}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry of a readable folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !NOT_OURS.contains(&name) {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

const NOT_OURS: [&str; 6] = [".git", "target", "node_modules", "fixtures", "snapshots", "corpus"];
