//! Merges the layers of the configuration and checks the result. An error names the file or variable, the key and the
//! most similar known key.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::settings::Config;
use crate::intake::Source;
use crate::intake::access_log::settings;
use crate::notify;
use crate::platform::suggest::suggest;

/// The default configuration file.
pub(crate) const DEFAULT_FILE: &str = "/etc/liveqos/liveqos.toml";

/// Largest configuration file read, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why the configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("reading configuration {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// The file or a variable contains something that is not a valid setting.
    #[error("{place}: {detail}")]
    Wrong {
        /// The file or variable.
        place: String,
        /// What is wrong and how to fix it.
        detail: String,
    },
}

/// Loads `file`, or the default file if it exists, then the variables.
///
/// # Errors
/// [`ConfigError`], with the file or variable, the key and how to fix it.
pub(crate) fn load(file: Option<&Path>, variables: &[(String, String)]) -> Result<Config, ConfigError> {
    let default = Path::new(DEFAULT_FILE);
    load_only(file.or(default.exists().then_some(default)), variables)
}

/// As [`load`], without the default file: a demonstration must not use the node's own settings.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_only(file: Option<&Path>, variables: &[(String, String)]) -> Result<Config, ConfigError> {
    let mut table = file.map_or_else(|| Ok(Table::new()), read)?;
    let schema = super::reference::schema();
    overlay(&mut table, variables, &schema)?;
    let place = file.map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
    let mut config: Config = Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Wrong { place, detail: error.to_string().trim().to_owned() })?;
    let lookup = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    config
        .otlp
        .overlay_env(lookup)
        .map_err(|error| ConfigError::Wrong { place: "environment".to_owned(), detail: error.to_string() })?;
    validate(&config)?;
    Ok(config)
}

/// Parses the text of a file, without variables.
///
/// # Errors
/// [`ConfigError`] as [`load`].
pub(crate) fn parse(place: &str, text: &str) -> Result<Table, ConfigError> {
    let wrong = |detail| ConfigError::Wrong { place: place.to_owned(), detail };
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string().trim().to_owned()))?;
    known(&table, &super::reference::schema(), "").map_err(wrong)?;
    // Deserialized here for an error with the line, which the merged table does not have.
    toml::from_str::<Config>(text).map_err(|error| wrong(error.to_string().trim().to_owned()))?;
    Ok(table)
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let failed = |error| ConfigError::Read { path: path.to_owned(), error };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        let detail = format!("has {size} bytes; at most {MAX_FILE_BYTES} are read");
        return Err(ConfigError::Wrong { place: path.display().to_string(), detail });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parse(&path.display().to_string(), &text)
}

/// Rejects keys that the schema does not contain, except below `sources`, whose further keys belong to the probes.
fn known(table: &Table, schema: &super::reference::Section, at: &str) -> Result<(), String> {
    for (key, value) in table {
        let Some(field) = schema.field(key) else {
            let near =
                suggest(key, schema.names()).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
            return Err(format!("unknown key \"{at}{key}\"{near}"));
        };
        if let (Value::Table(inner), Some(section)) = (value, field.section()) {
            known(inner, section, &format!("{at}{key}."))?;
        }
    }
    Ok(())
}

/// Sets `LIVEQOS_*` variables in the table: `LIVEQOS_NODE_NAME` is `node.name`.
fn overlay(
    table: &mut Table,
    variables: &[(String, String)],
    schema: &super::reference::Section,
) -> Result<(), ConfigError> {
    let paths = schema.paths();
    for (name, value) in variables {
        let Some(wanted) = name.strip_prefix("LIVEQOS_").filter(|wanted| !NOT_SETTINGS.contains(wanted)) else {
            continue;
        };
        let variable = |path: &[String]| path.join("_").to_uppercase();
        let Some(path) = paths.iter().find(|path| variable(path) == wanted) else {
            let names: Vec<String> = paths.iter().map(|path| variable(path)).collect();
            let near = suggest(wanted, names.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; did you mean LIVEQOS_{near}?"));
            return Err(ConfigError::Wrong { place: name.clone(), detail: format!("no such setting{near}") });
        };
        let mut at = &mut *table;
        for part in &path[..path.len() - 1] {
            let inner = at.entry(part.clone()).or_insert_with(|| Value::Table(Table::new()));
            at = inner.as_table_mut().ok_or_else(|| ConfigError::Wrong {
                place: name.clone(),
                detail: format!("\"{part}\" is not a table in the file"),
            })?;
        }
        at.insert(path[path.len() - 1].clone(), scalar(value));
    }
    Ok(())
}

/// A variable's text as a TOML value if it is one, otherwise as text.
fn scalar(text: &str) -> Value {
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    match parsed {
        Some(value @ (Value::Boolean(_) | Value::Integer(_) | Value::Float(_) | Value::String(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn validate(config: &Config) -> Result<(), ConfigError> {
    let wrong = |detail: String| Err(ConfigError::Wrong { place: "configuration".to_owned(), detail });
    let ratios = [
        ("objectives.stutter_ratio", config.objectives.stutter_ratio),
        ("objectives.loss_ratio", config.objectives.loss_ratio),
        ("objectives.fps_ratio", config.objectives.fps_ratio),
        ("objectives.load_ratio", config.objectives.load_ratio),
    ];
    for (key, value) in ratios {
        if !(0.0..=1.0).contains(&value) {
            return wrong(format!("{key} = {value} must be between 0 and 1 (1 % is 0.01)"));
        }
    }
    if config.sessions.max == 0 {
        return wrong("sessions.max must be at least 1".to_owned());
    }
    if let Err(error) = config.listen.parse::<std::net::SocketAddr>() {
        return wrong(format!(
            "listen = \"{}\" is not an address and port such as 127.0.0.1:9480: {error}",
            config.listen
        ));
    }
    if let Err(error) = config.otlp.check() {
        return wrong(error.to_string());
    }
    if let Err(detail) = config.sampling.check() {
        return wrong(detail);
    }
    if let Err(error) = notify::check(&config.alerts) {
        return wrong(error.to_string());
    }
    if let Err(error) = settings::check(&config.logs) {
        return wrong(error.to_string());
    }
    let names = config.logs.iter().map(settings::AccessLogSettings::shown_name);
    if let Err(error) = config.ingest.check().and_then(|()| config.cmcd.check(names)) {
        return wrong(error.to_string());
    }
    let sources = match Source::all(&config.sources, liveqos_probes::KINDS) {
        Ok(sources) => sources,
        Err(error) => return wrong(error.to_string()),
    };
    let logs = config.logs.iter().map(settings::AccessLogSettings::shown_name);
    let taken = sources.iter().map(|source| &*source.name).chain(logs);
    config.paths.check(taken).or_else(|error| wrong(error.to_string()))
}

/// Variables with the prefix that are not settings.
const NOT_SETTINGS: [&str; 2] = ["CONFIG", "URL"];
