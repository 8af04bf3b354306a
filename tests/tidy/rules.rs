//! The rule file, read as far as its own habits go: one key a line, an expression in one line or in a block below its
//! key.

/// A recording or alerting rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its recorded series or alert name.
    pub(crate) name: String,
    /// Whether it alerts.
    pub(crate) alerts: bool,
    /// Its expression, line ends as blanks.
    pub(crate) expr: String,
    lines: Vec<String>,
}

impl Rule {
    /// The text of a key, as it stands in its line; quotes taken off.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        let begin = format!("{key}: ");
        let value = self.lines.iter().find_map(|line| line.strip_prefix(&begin))?;
        Some(value.trim_matches('\''))
    }

    /// A label that the rule sets.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let labels = self.text("labels")?.trim_matches(['{', '}']);
        labels.split(", ").find_map(|label| label.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// All rules of a file.
pub(crate) fn rules(yaml: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expr = None;
    for line in yaml.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        for (begin, alerts) in [("- record: ", false), ("- alert: ", true)] {
            if let Some(name) = line.strip_prefix(begin) {
                rules.push(Rule { name: name.to_owned(), alerts, ..Rule::default() });
            }
        }
        let Some(rule) = rules.last_mut() else {
            continue;
        };
        in_expr = in_expr.filter(|expr: &usize| indent > *expr);
        if in_expr.is_some() {
            if !rule.expr.is_empty() {
                rule.expr.push(' ');
            }
            rule.expr.push_str(line);
        } else if let Some(expr) = line.strip_prefix("expr: ") {
            in_expr = (expr == "|").then_some(indent);
            expr.trim_start_matches('|').clone_into(&mut rule.expr);
        } else {
            rule.lines.push(line.to_owned());
        }
    }
    rules
}

#[test]
fn rules_are_read() {
    let yaml = "groups:\n- name: g\n  rules:\n    # why\n    - record: a:b\n      expr: sum(c)\n    - alert: D\n      expr: |\n        \
                a:b > 1\n        and c\n      labels: {severity: warning, scope: node}\n      annotations:\n        summary: 'x: {{ $value }}'\n";
    let rules = rules(yaml);
    let short: Vec<_> = rules.iter().map(|rule| (rule.name.as_str(), rule.alerts, rule.expr.as_str())).collect();
    assert_eq!(short, [("a:b", false, "sum(c)"), ("D", true, "a:b > 1 and c")]);
    assert_eq!(rules[1].label("scope"), Some("node"));
    assert_eq!(rules[1].text("summary"), Some("x: {{ $value }}"));
    assert_eq!((rules[0].label("scope"), rules[1].label("team")), (None, None));
}
