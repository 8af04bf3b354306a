//! No comment in Rust is wider than 120 columns, like the code.

use super::repository::{files, text};

#[test]
fn no_comment_is_wider_than_the_code() {
    let wide: Vec<_> = files(&["rs"]).into_iter().flat_map(|path| wide(&path, &text(&path))).collect();
    assert!(wide.is_empty(), "over {MOST_COLUMNS} columns: {wide:#?}");
}

#[test]
fn only_comments_are_measured() {
    let long = "x".repeat(MOST_COLUMNS);
    let text = format!("// {long}\n    /// {long}\nlet url = \"{long}\";\n//! short\n");
    assert_eq!(wide("f", &text), [format!("f:1: {}", MOST_COLUMNS + 3), format!("f:2: {}", MOST_COLUMNS + 8)]);
}

fn wide(path: &str, text: &str) -> Vec<String> {
    let columns = text.lines().map(|line| if line.trim_start().starts_with("//") { line.chars().count() } else { 0 });
    let wide = columns.enumerate().filter(|(_, columns)| *columns > MOST_COLUMNS);
    wide.map(|(number, columns)| format!("{path}:{}: {columns}", number + 1)).collect()
}

const MOST_COLUMNS: usize = 120;
