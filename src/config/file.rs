//! The configuration file: settings by their flags' names, upstreams and routes.

use std::path::Path;

use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;
use reqwest::Url;
use serde::Deserialize;

use super::DEFAULT_UPSTREAM;
use super::SCRIPTED_UPSTREAM;
use super::Secret;
use super::environment;
use super::values;

/// A server that answers Chat Completions requests: an `[[upstream]]` table, or the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What routes call it.
    pub name: String,
    /// How it is spoken to.
    pub kind: UpstreamKind,
    /// What `/chat/completions` is appended to; for Azure, the resource's address.
    pub base_url: Url,
    /// Sent with every request, if there is one.
    pub api_key: Option<Secret>,
    /// Azure's `api-version`.
    pub api_version: Option<String>,
    /// Request parameters that it does not know and must not be sent.
    pub unsupported: Vec<String>,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    /// As OpenAI's own API and its many relatives.
    #[default]
    OpenAi,
    /// As Azure OpenAI: deployments, `api-version`, the header `api-key`.
    Azure,
}

/// Says which upstream and model a model name stands for: a `[[route]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Model names it is for; `*` stands for any text, `?` for one character.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Name of an upstream, or [`SCRIPTED_UPSTREAM`].
    pub upstream: String,
    /// The model's name at the upstream; absent: as the client wrote it.
    pub model: Option<String>,
    /// Tokens that prompt and answer may have together, where it is known.
    pub context_window: Option<u32>,
}

/// The id of an argument and its values, as text.
pub(super) type Setting = (String, Vec<String>);

/// What a configuration file says.
pub(super) struct File {
    pub(super) settings: Vec<Setting>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) routes: Vec<Route>,
}

/// What is wrong with a configuration file. Its text contains no values that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// It is not TOML, or a table in it has the wrong shape.
    #[error("{0}")]
    Malformed(String),
    /// A setting that does not exist.
    #[error("there is no setting `{0}`; `assistd --help` lists them (write `-` as `_`)")]
    Unknown(String),
    /// A setting with a value of the wrong kind.
    #[error("`{0}` must be a string, a number, true or false, or a list of these")]
    WrongKind(String),
    /// A setting with a value that cannot be.
    #[error("`{setting}`: {reason}")]
    Invalid {
        /// Its name in the file.
        setting: String,
        /// What is wrong.
        reason: String,
    },
}

/// `[[upstream]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamTable {
    name: String,
    #[serde(default)]
    kind: UpstreamKind,
    base_url: String,
    api_key: Option<String>,
    /// Name of the environment variable that has the key.
    api_key_env: Option<String>,
    api_version: Option<String>,
    #[serde(default)]
    unsupported: Vec<String>,
}

/// Reads `path`. `command` knows the settings; `variable` looks up environment variables.
pub(super) fn read(
    path: &Path,
    command: clap::Command,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<File, FileError> {
    let text = std::fs::read_to_string(path)?;
    let mut table: toml::Table = text.parse().map_err(|error| malformed(&text, &error))?;

    let upstreams: Vec<UpstreamTable> = take(&mut table, "upstream")?;
    let upstreams = upstreams
        .into_iter()
        .map(|upstream| self::upstream(upstream, &variable))
        .collect::<Result<_, _>>()?;
    let routes = take(&mut table, "route")?;

    let mut settings = Vec::new();
    for (id, value) in table {
        let Some(arg) = command.get_arguments().find(|arg| *arg.get_id() == id) else {
            return Err(FileError::Unknown(id));
        };
        if id == "config" {
            return Err(FileError::Invalid {
                setting: id,
                reason: "a configuration file cannot name another".to_owned(),
            });
        }
        let values = match value {
            toml::Value::Array(items) => items.iter().map(plain).collect(),
            value => plain(&value).map(|text| vec![text]),
        };
        let values = values.ok_or_else(|| FileError::WrongKind(id.clone()))?;
        check(&command, arg, &id, &values)?;
        settings.push((id, values));
    }
    Ok(File {
        settings,
        upstreams,
        routes,
    })
}

/// Fails if two upstreams have one name, or a route names an upstream that does not exist.
pub(super) fn check_routes(upstreams: &[Upstream], routes: &[Route]) -> Result<(), FileError> {
    let invalid = |setting: &str, reason: String| FileError::Invalid {
        setting: setting.to_owned(),
        reason,
    };
    for (index, upstream) in upstreams.iter().enumerate() {
        let earlier = &upstreams[..index];
        if upstream.name == SCRIPTED_UPSTREAM
            || earlier.iter().any(|other| other.name == upstream.name)
        {
            let reason = format!("the name {:?} is taken", upstream.name);
            return Err(invalid("upstream", reason));
        }
    }
    for route in routes {
        let name = &route.upstream;
        if name == SCRIPTED_UPSTREAM || upstreams.iter().any(|upstream| upstream.name == *name) {
            continue;
        }
        let mut reason = format!("{:?} is for {name:?}, which is no upstream", route.pattern);
        if name == DEFAULT_UPSTREAM {
            reason += " as long as OPENAI_BASE_URL and OPENAI_API_KEY are not set";
        }
        return Err(invalid("route", reason));
    }
    Ok(())
}

fn take<T: serde::de::DeserializeOwned>(
    table: &mut toml::Table,
    name: &str,
) -> Result<Vec<T>, FileError> {
    match table.remove(name) {
        None => Ok(Vec::new()),
        Some(value) => value.try_into().map_err(|error: toml::de::Error| {
            // `message` leaves out the text around the mistake, which may be a key.
            FileError::Malformed(format!("in a [[{name}]] table: {}", error.message()))
        }),
    }
}

fn upstream(
    table: UpstreamTable,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Upstream, FileError> {
    let invalid = |reason: String| FileError::Invalid {
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

/// A value in the notation of the command line.
fn plain(value: &toml::Value) -> Option<String> {
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

/// Parses the values as if they stood on the command line, so that a mistake is reported as the
/// file's.
pub(super) fn check(
    command: &clap::Command,
    arg: &clap::Arg,
    id: &str,
    values: &[String],
) -> Result<(), FileError> {
    let long = arg.get_long().expect("every setting has a long flag");
    let arguments = values.iter().map(|value| format!("--{long}={value}"));
    let arguments = std::iter::once("assistd".to_owned()).chain(arguments);
    let Err(error) = command.clone().try_get_matches_from(arguments) else {
        return Ok(());
    };
    let expected = expected(&error);
    let reason = match arg.is_hide_env_values_set() {
        true => expected,
        false => format!("invalid value {:?}: {expected}", values.join(",")),
    };
    Err(FileError::Invalid {
        setting: id.to_owned(),
        reason,
    })
}

/// What a setting can be, from the error about a value that it cannot be.
fn expected(error: &clap::Error) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(possible)) if !possible.is_empty() => {
            format!("expected {}", possible.join(" or "))
        }
        _ if error.kind() == ErrorKind::ArgumentConflict => "expected one value".to_owned(),
        _ => "expected a value".to_owned(),
    }
}

/// Says where and what, without the line itself, which may have a key in it.
fn malformed(text: &str, error: &toml::de::Error) -> FileError {
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .bytes()
        .take(start)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1;
    FileError::Malformed(format!("line {line}: {}", error.message()))
}
