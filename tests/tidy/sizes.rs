//! How long a Rust file may be, its inline tests left out: 400 lines, and half of all files under 150.

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
fn inline_tests_do_not_count() {
    assert_eq!(length("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(length("a\n    #[cfg(test)]\n    const X: u8 = 0;\nb\n"), 4, "an item inside the file does");
}

fn length(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

const MOST_LINES: usize = 400;
const MOST_MEDIAN: usize = 150;
