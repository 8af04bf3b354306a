//! Which known word was meant by an unknown one. Decides by edit distance; refuses to guess when nothing is close.

/// The known word nearest to `word`, or `None` where even the nearest differs too much to be a slip of the pen (more
/// than a third of its letters, at least [`LEAST_SLIPS`]). Of equally near words the first wins. Case and `_`/`-` do
/// not count.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    known
        .into_iter()
        .map(|candidate| {
            let folded = folded(candidate);
            let allowed = (folded.len() / 3).max(LEAST_SLIPS);
            (distance(&word, &folded), allowed, candidate)
        })
        .filter(|(distance, allowed, _)| distance <= allowed)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., candidate)| candidate)
}

/// The end of an error text: `; did you mean "x"?`, or nothing when nothing is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment) that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, to) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

fn folded(word: &str) -> Vec<char> {
    word.chars().take(MAX_CHARS).map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Slips allowed in a word of any length.
const LEAST_SLIPS: usize = 2;
/// Letters of a word that are compared, so that a hostile key cannot cost time.
const MAX_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 3] = ["nginx-rtmp", "srs", "livekit"];

    #[test]
    fn a_slip_finds_its_word() {
        for (word, meant) in [
            ("nginx_rtmp", "nginx-rtmp"),
            ("ngnix-rtmp", "nginx-rtmp"),
            ("SRS", "srs"),
            ("srss", "srs"),
            ("live-kit", "livekit"),
        ] {
            assert_eq!(nearest(word, KINDS), Some(meant), "{word}");
        }
    }

    #[test]
    fn no_guess_when_nothing_is_near() {
        assert_eq!(nearest("mediamtx", KINDS), None);
        assert_eq!(did_you_mean("mediamtx", KINDS), "");
        assert_eq!(did_you_mean("livekitt", KINDS), "; did you mean \"livekit\"?");
    }

    #[test]
    fn distances() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, expected) in [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("ab", "ba", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
        }
    }
}
