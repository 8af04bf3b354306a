//! Words that say that something is not finished. A plan belongs into an issue, not into the text.

use super::repository::{files, text};

#[test]
fn nothing_is_left_for_later() {
    let found: Vec<_> = files(EXTENSIONS).into_iter().flat_map(|path| left(&path, &text(&path))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn whole_words_are_found_and_parts_are_not() {
    let [later, .., macro_name] = WORDS;
    let text = format!("a{later}\n// {later}: later\n{macro_name}()\nmktemp x.{0}{0}\n", WORDS[2]);
    assert_eq!(left("f", &text), [format!("f:2: {later}"), format!("f:3: {macro_name}")]);
}

fn left(path: &str, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let whole = |word: &&&str| line.match_indices(**word).any(|(at, _)| stands_alone(line, at, word.len()));
        out.extend(WORDS.iter().filter(whole).map(|word| format!("{path}:{}: {word}", number + 1)));
    }
    out
}

fn stands_alone(line: &str, at: usize, length: usize) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !line[..at].ends_with(part) && !line[at + length..].starts_with(part)
}

/// Written apart, so that this file passes its own rule.
const WORDS: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("unimplemented", "!"),
    concat!("todo", "!"),
];
const EXTENSIONS: &[&str] = &["rs", "toml", "md", "yml", "yaml", "json", "service", "sysusers", "js", "html", "sh"];
