//! Settings in the environment: the value of `NAME`, or the file that `NAME_FILE` names, as those who
//! run containers hand out secrets.

use clap::CommandFactory as _;

use super::Cli;
use super::file::FileError;
use super::file::Setting;
use super::file::check;

/// The value of an environment variable, in itself or in the file that `NAME_FILE` names. An empty
/// one counts as not set: compose files and CI systems pass such.
pub(super) fn value(
    name: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, FileError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let invalid = |reason: String| FileError::Invalid {
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

/// All settings that are set in the environment. A list in a file of its own has one item a line,
/// or commas between.
pub(super) fn settings(
    command: &clap::Command,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<Setting>, FileError> {
    let mut settings = Vec::new();
    for arg in Cli::command().get_arguments() {
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
        let set_by = match is_in_file {
            true => file_of(name),
            false => name.to_owned(),
        };
        check(command, arg, &set_by, &values)?;
        settings.push((arg.get_id().to_string(), values));
    }
    Ok(settings)
}

/// The variable that names the file.
pub(super) fn file_of(name: &str) -> String {
    format!("{name}_FILE")
}
