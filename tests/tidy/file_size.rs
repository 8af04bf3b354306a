//! How long a Rust file may be, its inline tests left out: 400 lines, and half of all files under 150. The `mod.rs` of
//! a folder is its face: a page of doc, modules and what they export, without code of its own.

use super::repository::{files, text};

#[test]
fn no_file_is_too_long_and_half_are_short() {
    let mut sizes: Vec<_> = files(&["rs"]).into_iter().map(|path| (length(&text(&path)), path)).collect();
    sizes.sort();
    let (median, _) = sizes[sizes.len() / 2];
    let long: Vec<_> = sizes.iter().filter(|(lines, _)| *lines > MOST_LINES).collect();
    println!("{} Rust files, median {median} lines, longest {:?}", sizes.len(), sizes.last());
    assert!(long.is_empty(), "over {MOST_LINES} lines before their tests: {long:?}");
    assert!(median <= MOST_MEDIAN, "half of all files are over {median} lines");
}

#[test]
fn a_face_has_no_code() {
    let faces = files(&["rs"]).into_iter().filter(|path| path.ends_with("/mod.rs"));
    let code: Vec<_> = faces.flat_map(|path| items(&path, &text(&path))).collect();
    assert!(code.is_empty(), "items in the face of a folder: {code:#?}");
}

#[test]
fn inline_tests_do_not_count() {
    assert_eq!(length("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(length("a\n    #[cfg(test)]\n    const X: u8 = 0;\nb\n"), 4, "an item inside the file does");
}

#[test]
fn items_are_found_behind_visibility_and_qualifiers() {
    let text = "//! fn in prose\nmod a;\npub use self::a::{fn_of, Struct};\npub(crate) const fn b() {}\nimpl A {\n}\nenum E { X }\n";
    assert_eq!(items("m", text), ["m:4: pub(crate) const fn b() {}", "m:5: impl A {", "m:7: enum E { X }"]);
}

fn length(text: &str) -> usize {
    before_tests(text).count()
}

fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]")
}

/// The lines that begin a function, a type or an implementation.
fn items(path: &str, text: &str) -> Vec<String> {
    let begins = |line: &str| {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || "_()".contains(c)));
        let qualifier = |word: &&str| word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(word);
        words.find(|word| !word.is_empty() && !qualifier(word)).is_some_and(|word| ITEMS.contains(&word))
    };
    let lines = before_tests(text).enumerate().filter(|(_, line)| !line.trim_start().starts_with("//") && begins(line));
    lines.map(|(number, line)| format!("{path}:{}: {line}", number + 1)).collect()
}

const MOST_LINES: usize = 400;
const MOST_MEDIAN: usize = 150;
const ITEMS: [&str; 4] = ["fn", "struct", "enum", "impl"];
