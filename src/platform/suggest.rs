//! Which known word was meant by a misspelt one, by edit distance; no guess where nothing is close.

use strsim::osa_distance;

/// The known word nearest to `word`, or `None` where even that differs too much to be a typing error: in more than a
/// third of its letters, and more than [`MIN_EDITS`]. Of equally near words the first wins; case and `_`/`-` do not
/// count.
pub(crate) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    known
        .into_iter()
        .map(|candidate| {
            let folded = folded(candidate);
            let allowed = (folded.chars().count() / 3).max(MIN_EDITS);
            (osa_distance(&word, &folded), allowed, candidate)
        })
        .filter(|(distance, allowed, _)| distance <= allowed)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., candidate)| candidate)
}

/// The end of an error message: `; did you mean "x"?`, or empty where no known word is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    suggest(word, known).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}

fn folded(word: &str) -> String {
    word.chars().take(MAX_CHARS).map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits allowed in a word of any length.
const MIN_EDITS: usize = 2;
/// Characters of a word that are compared: a long key must not cost time.
const MAX_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 3] = ["nginx-rtmp", "srs", "livekit"];

    #[test]
    fn a_typing_error_finds_its_word() {
        for (word, meant) in [
            ("nginx_rtmp", "nginx-rtmp"),
            ("ngnix-rtmp", "nginx-rtmp"),
            ("SRS", "srs"),
            ("srss", "srs"),
            ("live-kit", "livekit"),
        ] {
            assert_eq!(suggest(word, KINDS), Some(meant), "{word}");
        }
    }

    #[test]
    fn nothing_is_suggested_when_nothing_is_near() {
        assert_eq!(suggest("mediamtx", KINDS), None);
        assert_eq!(did_you_mean("mediamtx", KINDS), "");
        assert_eq!(did_you_mean("livekitt", KINDS), "; did you mean \"livekit\"?");
    }
}
