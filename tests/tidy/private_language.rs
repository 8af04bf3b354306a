//! Words that this repository once used in senses of its own. Text says what an engineer from elsewhere reads once: a
//! source reports, a log line contains, the daemon notifies.

use super::repository::{files, text};

#[test]
fn no_text_uses_private_words() {
    let found: Vec<_> = files(&["rs", "md"]).into_iter().flat_map(|path| private(&path, &text(&path))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn whole_words_are_found_in_any_case() {
    let [word, other, ..] = WORDS;
    let text = format!("un{word}\n// {}{} it\nlet {word} = {other};\n", word[..1].to_uppercase(), &word[1..]);
    assert_eq!(private("f", &text), [format!("f:2: {word}"), format!("f:3: {word}"), format!("f:3: {other}")]);
}

fn private(path: &str, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let whole = |word: &&&str| lower.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == **word);
        out.extend(WORDS.iter().filter(whole).map(|word| format!("{path}:{}: {word}", number + 1)));
    }
    out
}

/// Written apart, so that this file passes its own rule.
const WORDS: [&str; 9] = [
    concat!("to", "ld"),
    concat!("doc", "ket"),
    concat!("letter", "head"),
    concat!("ha", "ll"),
    concat!("de", "sk"),
    concat!("he", "art"),
    concat!("ob", "ey"),
    concat!("ham", "pered"),
    concat!("home", "less"),
];
