//! The module tree of a crate as its sources declare it: which file is which module, and what each imports outside of
//! tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

use super::repository::root;

/// A module path below the crate's root, such as `["session", "registry"]`.
pub(crate) type ModulePath = Vec<String>;

/// One file.
#[derive(Default)]
pub(crate) struct Module {
    /// From the root of the repository.
    pub(crate) file: String,
    /// Paths of this crate that it names, outside of tests.
    pub(crate) imports: BTreeSet<ModulePath>,
    /// What its `pub use` lines give on: a name, and the path it stands for.
    pub(crate) exports: BTreeMap<String, ModulePath>,
}

/// A crate's modules by their path, those that exist for tests alone left out.
pub(crate) type Crate = BTreeMap<ModulePath, Module>;

/// Reads the crate whose `lib.rs` stands in `folder`.
pub(crate) fn read_crate(folder: &str) -> Crate {
    let mut modules = Crate::new();
    read(&root().join(folder).join("lib.rs"), &[], &mut modules);
    modules
}

fn read(file: &Path, path: &[String], modules: &mut Crate) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("parsing {}: {error}", file.display()));
    let mut names = Names { at: path.to_vec(), module: Module::default(), children: Vec::new() };
    names.visit_file(&parsed);
    let Names { mut module, children, .. } = names;
    module.file = file.strip_prefix(root()).expect("below the root").display().to_string();
    modules.insert(path.to_vec(), module);
    let folder = file.parent().expect("a file stands in a folder");
    let face = matches!(file.file_name().and_then(|name| name.to_str()), Some("lib.rs" | "mod.rs"));
    assert!(face || children.is_empty(), "{}: only mod.rs and lib.rs declare modules", file.display());
    for child in children {
        let below = [path, std::slice::from_ref(&child)].concat();
        let single = folder.join(format!("{child}.rs"));
        read(&if single.exists() { single } else { folder.join(child).join("mod.rs") }, &below, modules);
    }
}

/// Whether an item exists in tests only.
fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
    })
}

/// Collects what one file names.
struct Names {
    at: ModulePath,
    module: Module,
    children: Vec<String>,
}

impl Names {
    /// The path in this crate that `segments` mean, seen from this file; `None` for another crate's.
    fn own(&self, segments: &[String]) -> Option<ModulePath> {
        let mut base = match segments.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => self.at.clone(),
            "super" => self.at[..self.at.len().checked_sub(1)?].to_vec(),
            _ => return None,
        };
        let mut rest = &segments[1..];
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn import(&mut self, segments: &[String]) {
        self.module.imports.extend(self.own(segments));
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if item.content.is_none() {
            self.children.push(item.ident.to_string());
        } else {
            // What an inline module calls `super` is this file.
            self.at.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.at.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        for (segments, name) in leaves {
            match (public, self.own(&segments)) {
                (true, Some(path)) => {
                    self.module.exports.insert(name, path);
                }
                _ => self.import(&segments),
            }
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.import(&segments);
        }
        visit::visit_path(self, path);
    }
}

/// The leaves of a tree of `use`: the path of each, and the name it goes by here.
fn flatten(tree: &UseTree, before: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, String)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, leaves);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, leaves)),
        UseTree::Glob(_) => leaves.push((before.clone(), "*".to_owned())),
        UseTree::Name(name) if name.ident == "self" => {
            leaves.push((before.clone(), before.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(name) => leaves.push(([&before[..], &[name.ident.to_string()]].concat(), name.ident.to_string())),
        UseTree::Rename(name) => {
            leaves.push(([&before[..], &[name.ident.to_string()]].concat(), name.rename.to_string()));
        }
    }
}

/// The module in which `path` is defined: the longest module it begins with, followed through what faces give on.
pub(crate) fn definition(modules: &Crate, path: &[String]) -> ModulePath {
    let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length])).unwrap_or(0);
    let (module, rest) = path.split_at(length);
    match rest.first().and_then(|name| modules[module].exports.get(name)) {
        Some(target) if target.len() > module.len() || target[..] != path[..target.len().min(path.len())] => {
            definition(modules, &[target.as_slice(), &rest[1..]].concat())
        }
        _ => module.to_vec(),
    }
}
