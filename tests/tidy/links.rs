//! Links inside the repository's texts lead somewhere: to a file, and to a heading in it.

use std::path::Path;

use super::repository::{files, root, text};

#[test]
fn every_relative_link_is_alive() {
    let dead: Vec<_> = files(&["md"]).into_iter().flat_map(|path| dead_links(&path)).collect();
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn links_and_headings_are_read() {
    let text = "see [a](b.md#c-d) and [x](https://x.example/y)\n```toml\n[[sources]](no)\n```\n![p](p.png \"t\")";
    assert_eq!(links(text), ["b.md#c-d", "p.png"]);
    assert_eq!(anchor("`LiveqosDown`: what, then?"), "liveqosdown-what-then");
}

fn dead_links(path: &str) -> Vec<String> {
    let text = text(path);
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let dead = |link: &&str| {
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { root().join(path) } else { root().join(folder).join(file) };
        if heading.is_empty() {
            return !target.exists();
        }
        let Ok(target) = std::fs::read_to_string(&target) else {
            return true;
        };
        !prose(&target).any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading)
    };
    links(&text).into_iter().filter(dead).map(|link| format!("{path}: {link}")).collect()
}

/// Targets of links that are not addresses, code blocks left out.
fn links(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next()?.split_whitespace().next())
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .collect()
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// A heading's anchor as GitHub makes it: lower case, blanks to hyphens, signs left out.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}
