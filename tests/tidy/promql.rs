//! As much of Prometheus' query language as it takes to know which series and labels an expression names. Decides
//! nothing about its meaning: whether it is valid is for promtool and Prometheus to say.

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Each series, with the labels of its matchers; the name is empty where a selector has none.
    pub(crate) series: Vec<(String, Vec<String>)>,
    /// Labels in `by (…)`, `on (…)` and the like.
    pub(crate) grouping: Vec<String>,
}

/// Reads an expression.
pub(crate) fn named(expr: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expr.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' | '\'' | '`' => after_string(rest),
            '[' => rest.split_once(']').map_or("", |(_, after)| after),
            '{' => {
                let (labels, after) = matchers(rest);
                named.series.push((String::new(), labels));
                after
            }
            '0'..='9' => rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            _ if starts_word(first) => word(rest, &mut named),
            _ => &rest[first.len_utf8()..],
        }
        .trim_start();
    }
    named
}

/// Reads the word that `text` begins with, and what belongs to it.
fn word<'a>(text: &'a str, named: &mut Named) -> &'a str {
    let end = text.find(|c: char| !starts_word(c) && !c.is_ascii_digit()).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    let after = after.trim_start();
    if GROUPING.contains(&word) {
        let Some((labels, after)) = after.strip_prefix('(').and_then(|inside| inside.split_once(')')) else {
            return after;
        };
        let labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty());
        named.grouping.extend(labels.map(str::to_owned));
        return after;
    }
    if after.starts_with('(') || WORDS.contains(&word) {
        return after;
    }
    let (labels, after) = if after.starts_with('{') { matchers(after) } else { (Vec::new(), after) };
    named.series.push((word.to_owned(), labels));
    after
}

/// The labels between the braces that `text` begins with.
fn matchers(text: &str) -> (Vec<String>, &str) {
    let mut labels = Vec::new();
    let mut rest = text.trim_start_matches('{').trim_start();
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '}' => return (labels, &rest[1..]),
            '"' | '\'' | '`' => after_string(rest),
            _ if starts_word(first) => {
                let end = rest.find(|c: char| !starts_word(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
                labels.push(rest[..end].to_owned());
                &rest[end..]
            }
            _ => &rest[first.len_utf8()..],
        };
    }
    (labels, rest)
}

fn after_string(text: &str) -> &str {
    let quote = text.chars().next().unwrap_or('"');
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            _ if c == quote => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

const fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | ':')
}

const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words that are no series though no bracket follows them.
const WORDS: [&str; 18] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "atan2",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
];

#[test]
fn series_and_labels_are_found() {
    let expr = r#"label_replace(sum by (edge, le) (rate(a_bucket{region=~"x{y}\"z",le!='0.2'}[5m] offset 1m)) > bool 0.5e3, "to", "$1", "", "")
        / on (edge) group_left r:s:rate1m or 0 * up unless {job="x"}"#;
    let series = [("a_bucket", vec!["region", "le"]), ("r:s:rate1m", vec![]), ("up", vec![]), ("", vec!["job"])];
    let owned = |labels: Vec<&str>| labels.into_iter().map(str::to_owned).collect();
    let expected = Named {
        series: series.map(|(name, labels)| (name.to_owned(), owned(labels))).into(),
        grouping: owned(vec!["edge", "le", "edge"]),
    };
    assert_eq!(named(expr), expected);
}
