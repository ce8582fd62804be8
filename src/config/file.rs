//! The configuration file: settings under the names of their flags, upstreams and routes.

use std::path::Path;

use serde::Deserialize;

use super::environment;
use super::models::Route;
use super::models::Upstream;
use super::models::UpstreamKind;
use super::setting::Setting;
use super::setting::SettingError;
use super::setting::check;
use super::values;
use super::values::Secret;

pub(super) struct File {
    pub(super) settings: Vec<Setting>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) routes: Vec<Route>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamTable {
    name: String,
    #[serde(default)]
    kind: UpstreamKind,
    base_url: String,
    api_key: Option<String>,
    api_key_env: Option<String>,
    api_version: Option<String>,
    #[serde(default)]
    unsupported: Vec<String>,
}

pub(super) fn read(
    path: &Path,
    command: &clap::Command,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<File, SettingError> {
    let text = std::fs::read_to_string(path)?;
    let mut table: toml::Table = text.parse().map_err(|error| malformed(&text, &error))?;

    let upstreams: Vec<UpstreamTable> = take_tables(&mut table, "upstream")?;
    let upstreams = upstreams
        .into_iter()
        .map(|table| build_upstream(table, &variable))
        .collect::<Result<_, _>>()?;
    let routes = take_tables(&mut table, "route")?;

    let mut settings = Vec::new();
    for (id, value) in table {
        let Some(arg) = command.get_arguments().find(|arg| *arg.get_id() == id) else {
            return Err(SettingError::Unknown(id));
        };
        if id == "config" {
            return Err(SettingError::Invalid {
                setting: id,
                reason: "a configuration file cannot name another".to_owned(),
            });
        }
        let values = match value {
            toml::Value::Array(items) => items.iter().map(as_text).collect(),
            value => as_text(&value).map(|text| vec![text]),
        };
        let values = values.ok_or_else(|| SettingError::WrongKind(id.clone()))?;
        check(command, arg, &id, &values)?;
        settings.push((id, values));
    }
    Ok(File {
        settings,
        upstreams,
        routes,
    })
}

fn take_tables<T: serde::de::DeserializeOwned>(
    table: &mut toml::Table,
    name: &str,
) -> Result<Vec<T>, SettingError> {
    match table.remove(name) {
        None => Ok(Vec::new()),
        Some(value) => value.try_into().map_err(|error: toml::de::Error| {
            // Not `Display`: that quotes the line, which may contain a key.
            SettingError::Malformed(format!("in a [[{name}]] table: {}", error.message()))
        }),
    }
}

fn build_upstream(
    table: UpstreamTable,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Upstream, SettingError> {
    let invalid = |reason: String| SettingError::Invalid {
        setting: format!("upstream {:?}", table.name),
        reason,
    };
    let api_key = match (&table.api_key, &table.api_key_env) {
        (Some(_), Some(_)) => {
            return Err(invalid("has both api_key and api_key_env".to_owned()));
        }
        (Some(key), None) => Some(key.as_str().into()),
        (None, Some(name)) => {
            let key = environment::value(name, &variable)?;
            Some(Secret::from(key.ok_or_else(|| {
                invalid(format!("the environment variable {name} is not set"))
            })?))
        }
        (None, None) => None,
    };
    match (table.kind, &table.api_version) {
        (UpstreamKind::OpenAi, Some(_)) => {
            return Err(invalid("api_version is for kind = \"azure\"".to_owned()));
        }
        (UpstreamKind::Azure, None) => {
            return Err(invalid("kind = \"azure\" needs an api_version".to_owned()));
        }
        (UpstreamKind::OpenAi, None) | (UpstreamKind::Azure, Some(_)) => {}
    }
    let base_url = values::http_url(&table.base_url)
        .map_err(|reason| invalid(format!("base_url: {reason}")))?;
    Ok(Upstream {
        name: table.name,
        kind: table.kind,
        base_url,
        api_key,
        api_version: table.api_version,
        unsupported: table.unsupported,
    })
}

/// A value in the notation of the command line; `None` for kinds that no setting has.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

/// Names the line, but does not quote it: it may contain a key.
fn malformed(text: &str, error: &toml::de::Error) -> SettingError {
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .bytes()
        .take(start)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1;
    SettingError::Malformed(format!("line {line}: {}", error.message()))
}
