//! Settings in the environment: the value of `NAME`, or the contents of the file that `NAME_FILE`
//! names, which is how containers get their secrets.

use super::setting::Setting;
use super::setting::SettingError;
use super::setting::check;

/// An empty value counts as not set: compose files and CI systems pass variables without a value
/// like that.
pub(super) fn value(
    name: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, SettingError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let invalid = |reason: String| SettingError::Invalid {
        setting: file_of(name),
        reason,
    };
    match (set(name), set(&file_of(name))) {
        (Some(_), Some(_)) => Err(invalid(format!("{name} is set, too"))),
        (value, None) => Ok(value),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| invalid(format!("{path}: {error}")))?;
            let text = text.trim_end_matches(['\r', '\n']);
            Ok((!text.is_empty()).then(|| text.to_owned()))
        }
    }
}

/// Reads and checks all settings of the environment. `declared` has the names of the variables,
/// `command` parses the values. A list in a file has its items on lines of their own, or separated by
/// commas.
pub(super) fn settings(
    declared: &clap::Command,
    command: &clap::Command,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<Setting>, SettingError> {
    let mut settings = Vec::new();
    for arg in declared.get_arguments() {
        let Some(name) = arg.get_env().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some(text) = value(name, variable)? else {
            continue;
        };
        let is_in_file = variable(name).is_none_or(|value| value.is_empty());
        let values = match arg.get_value_delimiter() {
            Some(_) if is_in_file => text.lines().map(str::to_owned).collect(),
            _ => vec![text],
        };
        let source = match is_in_file {
            true => file_of(name),
            false => name.to_owned(),
        };
        check(command, arg, &source, &values)?;
        settings.push((arg.get_id().to_string(), values));
    }
    Ok(settings)
}

/// The variables `ASSISTD_SANDBOX_…` that `declared` does not have: settings of the sandbox worker.
pub(super) fn sandbox_variables(declared: &clap::Command) -> Vec<(String, String)> {
    let is_declared = |variable: &str| {
        declared
            .get_arguments()
            .filter_map(|arg| arg.get_env()?.to_str())
            .any(|name| variable == name || variable == file_of(name))
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("ASSISTD_SANDBOX_") && !is_declared(name))
        .collect()
}

pub(super) fn file_of(name: &str) -> String {
    format!("{name}_FILE")
}
