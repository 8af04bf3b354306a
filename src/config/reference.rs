//! The reference of the settings, made from their doc comments: `default-config`, `config-schema` and docs/config.md.
//! Loading checks keys against the same schema, so no key is undocumented.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::settings::Config;

/// A table of settings.
#[derive(Clone, Debug, Default)]
pub struct Section {
    fields: Vec<Field>,
}

/// A key of a table.
#[derive(Clone, Debug)]
pub struct Field {
    name: String,
    about: String,
    default: Option<Value>,
    section: Option<Section>,
    is_list: bool,
}

impl Section {
    /// The key with this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The names of all keys.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// The paths of all scalar keys, without lists.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        for field in &self.fields {
            match &field.section {
                Some(_) if field.is_list => {}
                Some(section) => {
                    paths.extend(section.paths().into_iter().map(|mut path| {
                        path.insert(0, field.name.clone());
                        path
                    }));
                }
                None => paths.push(vec![field.name.clone()]),
            }
        }
        paths
    }
}

impl Field {
    /// The table below the key, if it is a table; elements of lists are not included.
    #[must_use]
    pub fn section(&self) -> Option<&Section> {
        self.section.as_ref().filter(|_| !self.is_list)
    }
}

/// The JSON Schema (2020-12) of the configuration file.
#[must_use]
pub fn json_schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// All settings as sections and keys.
#[must_use]
pub fn schema() -> Section {
    let root = json_schema();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    section(&root, &root, Some(&defaults))
}

/// The default configuration as a TOML file with comments.
#[must_use]
pub fn default_toml() -> String {
    let mut out = String::from("# Every setting with its default. A setting that is omitted keeps it.\n");
    write_toml(&schema(), "", &mut out);
    out
}

/// The reference page in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\nGenerated from the settings' own documentation. The layers in this order, where a later one overrides: embedded defaults, \
         `/etc/liveqos/liveqos.toml` (or `--config FILE`), variables, flags.\nA variable is the key's path in upper case with \
         `LIVEQOS_` before it: `LIVEQOS_NODE_NAME` is `node.name`. Unknown keys and variables are refused.\nDurations are text: \
         `\"250ms\"`, `\"5s\"`, `\"1m30s\"`.\n",
    );
    write_markdown(&schema(), "", &mut out);
    for kind in liveqos_probes::KINDS {
        let own = (kind.schema)().to_value();
        writeln!(out, "\n## `[[sources]]` of kind `{}`\n\n{}", kind.name, kind.about).unwrap_or_default();
        let (url, interval) = (kind.default_url, crate::platform::duration::format(kind.default_interval));
        writeln!(
            out,
            "\nWithout `url`: `{url}`; without `interval`: `{interval}`; media ports: {:?}.",
            kind.media_ports
        )
        .unwrap_or_default();
        write_markdown(&section(&own, &own, None), "", &mut out);
    }
    out
}

fn section(schema: &Value, root: &Value, defaults: Option<&Value>) -> Section {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let fields = properties.into_iter().map(|(name, property)| {
        let default = defaults.and_then(|defaults| defaults.get(&name)).cloned();
        let target = resolve(&property, root);
        let items = resolve(&target["items"], root);
        let is_list = target["type"] == "array" && items["properties"].is_object();
        let inner = if is_list { items } else { target };
        let about = [&property, inner].into_iter().find_map(|at| at["description"].as_str()).unwrap_or_default();
        let about = about.replace('\n', " ");
        let section = inner["properties"].is_object().then(|| section(inner, root, default.as_ref()));
        Field { name, about, default: default.filter(|value| !value.is_null()), section, is_list }
    });
    let mut fields: Vec<Field> = fields.collect();
    // In TOML the plain keys of a table come before its tables.
    fields.sort_by_key(|field| field.section.is_some());
    Section { fields }
}

fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let schema =
        schema["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null")).unwrap_or(schema);
    let schema = schema["allOf"].as_array().and_then(|all| all.first()).unwrap_or(schema);
    match schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        Some(path) => root.pointer(path).unwrap_or(schema),
        None => schema,
    }
}

fn write_toml(section: &Section, path: &str, out: &mut String) {
    for field in &section.fields {
        let about = wrapped(&field.about);
        match &field.section {
            Some(inner) if field.is_list => {
                writeln!(out, "\n{about}# [[{path}{}]]", field.name).unwrap_or_default();
                let mut list = String::new();
                write_toml(inner, "", &mut list);
                for line in list.lines().filter(|line| !line.is_empty()) {
                    writeln!(out, "# {}", line.trim_start_matches("# ")).unwrap_or_default();
                }
            }
            Some(inner) => {
                writeln!(out, "\n{about}[{path}{}]", field.name).unwrap_or_default();
                write_toml(inner, &format!("{path}{}.", field.name), out);
            }
            None => {
                let value = field.default.as_ref().map(toml_text);
                let line =
                    value.map_or_else(|| format!("# {} =", field.name), |value| format!("{} = {value}", field.name));
                writeln!(out, "{about}{line}").unwrap_or_default();
            }
        }
    }
}

fn write_markdown(section: &Section, path: &str, out: &mut String) {
    if section.fields.iter().any(|field| field.section.is_none()) {
        out.push_str("\n| key | default | meaning |\n| --- | --- | --- |\n");
    }
    for field in &section.fields {
        if field.section.is_none() {
            let default = field.default.as_ref().map_or_else(String::new, |value| format!("`{}`", toml_text(value)));
            let about = field.about.replace('|', "\\|");
            writeln!(out, "| `{path}{}` | {default} | {about} |", field.name).unwrap_or_default();
        }
    }
    for field in &section.fields {
        if let Some(inner) = &field.section {
            let brackets = if field.is_list { ("[[", "]]") } else { ("[", "]") };
            writeln!(out, "\n## `{}{path}{}{}`\n\n{}", brackets.0, field.name, brackets.1, field.about)
                .unwrap_or_default();
            write_markdown(inner, &format!("{path}{}.", field.name), out);
        }
    }
}

fn wrapped(about: &str) -> String {
    if about.is_empty() { String::new() } else { format!("# {about}\n") }
}

fn toml_text(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let map: BTreeMap<_, _> = map.iter().collect();
            let pairs: Vec<String> =
                map.into_iter().map(|(key, value)| format!("{key} = {}", toml_text(value))).collect();
            format!("{{ {} }}", pairs.join(", ")).replace("{  }", "{}")
        }
        other => other.to_string(),
    }
}
