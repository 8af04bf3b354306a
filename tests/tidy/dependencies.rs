//! What core and the probes may depend on: core does no IO and the probes hold no socket, so the crates they may name
//! are few.

use toml::Table;

use super::repository::text;

#[test]
fn core_and_probes_depend_on_little() {
    assert_eq!(unexpected(&text("core/Cargo.toml"), CORE), [""; 0]);
    assert_eq!(unexpected(&text("probes/Cargo.toml"), PROBES), [""; 0]);
}

#[test]
fn an_unexpected_dependency_is_found_in_every_table() {
    let manifest = "[dependencies]\nserde = \"1\"\ntokio = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n\
                    [build-dependencies]\ncc = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n";
    assert_eq!(unexpected(manifest, CORE), ["cc", "libc", "tokio"]);
}

/// The dependencies of a manifest that are not `allowed`, those of its tests left out.
fn unexpected(manifest: &str, allowed: &[&str]) -> Vec<String> {
    let manifest: Table = manifest.parse().expect("a manifest is TOML");
    let targets = manifest.get("target").and_then(|targets| targets.as_table());
    let tables = targets.into_iter().flat_map(Table::values).filter_map(|target| target.as_table()).chain([&manifest]);
    let mut unexpected: Vec<_> = tables
        .flat_map(|table| ["dependencies", "build-dependencies"].map(|section| table.get(section)))
        .flatten()
        .filter_map(|section| section.as_table())
        .flat_map(Table::keys)
        .filter(|name| !allowed.contains(&name.as_str()))
        .cloned()
        .collect();
    unexpected.sort();
    unexpected
}

const CORE: &[&str] = &["hashbrown", "hdrhistogram", "ipnet", "memchr", "serde", "serde_json", "thiserror"];
const PROBES: &[&str] = &["liveqos-core", "quick-xml", "schemars", "serde", "serde_json", "thiserror", "toml"];
