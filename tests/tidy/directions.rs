//! Which stage may import which, and that no files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Crate, ModulePath, definition, read_crate};

/// A stage of core, and the stages that it may import.
pub(crate) const CORE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("model", &["base"]),
    ("cmcd", &["base", "model"]),
    ("media", &["base", "model"]),
    ("node", &["base", "model"]),
    ("connection", &["base", "model"]),
    ("session", &["base", "model"]),
    ("trace", &["base", "model"]),
    ("metrics", &["base", "model"]),
    ("viewer", &["base", "cmcd", "model"]),
    ("access_log", &["base", "cmcd", "connection", "model", "viewer"]),
    ("alert", &["base", "model", "session"]),
    ("pipeline", &["alert", "base", "metrics", "model", "session", "trace"]),
    ("recording", &["alert", "base", "metrics", "model", "pipeline", "session", "trace"]),
];

/// A stage of the shell, and the stages that it may import.
pub(crate) const SHELL: &[(&str, &[&str])] = &[
    ("platform", &[]),
    ("http", &["platform"]),
    ("otlp", &["platform"]),
    ("notify", &["platform"]),
    ("storage", &["otlp", "platform"]),
    ("intake", &["platform", "storage"]),
    ("peers", &["intake", "platform"]),
    ("engine", &["intake", "peers", "platform"]),
    ("players", &["http", "intake", "platform"]),
    ("metrics", &["engine", "intake", "otlp", "peers", "platform", "storage"]),
    ("api", &["engine", "http", "intake", "metrics", "peers", "platform", "players", "storage"]),
    ("config", &["engine", "http", "intake", "metrics", "notify", "otlp", "peers", "platform", "players", "storage"]),
    (
        "app",
        &[
            "api", "config", "engine", "http", "intake", "metrics", "notify", "otlp", "peers", "platform", "players",
            "storage",
        ],
    ),
    ("demo", &[]),
    (
        "cli",
        &[
            "api", "app", "config", "demo", "engine", "http", "intake", "metrics", "notify", "otlp", "peers",
            "platform", "players", "storage",
        ],
    ),
];

#[test]
fn core_keeps_its_directions() {
    let modules = read_crate("core/src");
    assert!(modules.len() > 60, "only {} files were read", modules.len());
    assert_eq!(against(&modules, CORE), [""; 0]);
}

#[test]
fn the_shell_keeps_its_directions() {
    let modules = read_crate("src");
    assert!(modules.len() > 100, "only {} files were read", modules.len());
    assert_eq!(against(&modules, SHELL), [""; 0]);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found: Vec<_> = ["core/src", "src"].into_iter().flat_map(|folder| circles(&read_crate(folder))).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_broken_rule_names_file_and_rule() {
    let modules = made_up(&[("model/session.rs", &["session::Live"]), ("session/mod.rs", &["model::Name"])]);
    let rules: &[(&str, &[&str])] = &[("model", &[]), ("session", &["model"])];
    assert_eq!(
        against(&modules, rules),
        ["model/session.rs imports session::Live, but model may import nothing of this crate"]
    );
    let rules: &[(&str, &[&str])] = &[("model", &["base"])];
    assert_eq!(
        against(&modules, rules),
        [
            "model/session.rs imports session::Live, but model may import base alone",
            "session/mod.rs: the stage session stands in no rule"
        ]
    );
    assert_eq!(circles(&modules), [""; 0]);
    let circle = made_up(&[("a/mod.rs", &[]), ("a/x.rs", &["a::y::Y"]), ("a/y.rs", &["a::x::X"])]);
    assert_eq!(circles(&circle), ["a/x.rs, a/y.rs"]);
}

#[test]
fn rules_have_no_circle() {
    for rules in [CORE, SHELL] {
        let mut seen = BTreeSet::new();
        for (stage, allowed) in rules {
            let later: Vec<_> = allowed.iter().filter(|stage| !seen.contains(*stage)).collect();
            assert!(later.is_empty(), "{stage} may import {later:?}, which stand below it");
            seen.insert(stage);
        }
    }
}

/// Every import between stages that no rule allows, with its file.
fn against(modules: &Crate, rules: &[(&str, &[&str])]) -> Vec<String> {
    let rules: BTreeMap<_, _> = rules.iter().copied().collect();
    let mut broken = BTreeSet::new();
    for (path, module) in modules {
        let Some(stage) = path.first() else { continue };
        let Some(allowed) = rules.get(stage.as_str()) else {
            broken.insert(format!("{}: the stage {stage} stands in no rule", module.file));
            continue;
        };
        for import in &module.imports {
            let named = import.first().filter(|_| modules.contains_key(&import[..1]));
            if named.is_some_and(|other| other != stage && !allowed.contains(&other.as_str())) {
                let may = if allowed.is_empty() {
                    "nothing of this crate".to_owned()
                } else {
                    format!("{} alone", allowed.join(", "))
                };
                let import = import.join("::");
                broken.insert(format!("{} imports {import}, but {stage} may import {may}", module.file));
            }
        }
    }
    broken.into_iter().collect()
}

/// Groups of files each of which reaches all others of its group by imports.
fn circles(modules: &Crate) -> Vec<String> {
    let mut edges: BTreeMap<&ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
    for (path, module) in modules {
        let targets = module.imports.iter().map(|import| definition(modules, import));
        // A file and its face are parent and child.
        edges.insert(path, targets.filter(|target| target != path && !path.starts_with(target)).collect());
    }
    let reach = |from: &ModulePath| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = open.pop() {
            for target in edges.get(&next).into_iter().flatten() {
                if seen.insert(target.clone()) {
                    open.push(target.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = modules.keys().map(|path| (path, reach(path))).collect();
    let mut groups = BTreeSet::new();
    for path in modules.keys() {
        let group: Vec<_> = modules
            .keys()
            .filter(|other| reached[path].contains(*other) && reached[other].contains(path))
            .map(|path| modules[path].file.as_str())
            .collect();
        if group.len() > 1 {
            groups.insert(group.join(", "));
        }
    }
    groups.into_iter().collect()
}

fn made_up(files: &[(&str, &[&str])]) -> Crate {
    let split = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    let mut modules = Crate::new();
    for (file, imports) in files {
        let path = file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').map(str::to_owned).collect();
        let module = modules.entry(path).or_default();
        (*file).clone_into(&mut module.file);
        module.imports = imports.iter().map(|import| split(import)).collect();
    }
    for (file, _) in files {
        if let Some((folder, _)) = file.split_once('/') {
            modules.entry(vec![folder.to_owned()]).or_default();
        }
    }
    modules
}
