//! Settings in files of their own: `NAME_FILE` names a file that holds the value of `NAME`, as
//! those who run containers hand out secrets.

use super::file::FileError;
use super::file::Setting;
use super::file::check;

/// The value of an environment variable, be it there or in the file that `NAME_FILE` names. One
/// that is empty counts as not set.
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

/// All settings that are in files of their own. Lists have one item a line, or commas between.
pub(super) fn settings(
    command: &clap::Command,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<Setting>, FileError> {
    let mut settings = Vec::new();
    for arg in command.get_arguments() {
        let Some(name) = arg.get_env().and_then(|name| name.to_str()) else {
            continue;
        };
        if variable(&file_of(name)).is_none_or(|path| path.is_empty()) {
            continue;
        }
        let Some(text) = value(name, variable)? else {
            continue;
        };
        let values = match arg.get_value_delimiter() {
            Some(_) => text.lines().map(str::to_owned).collect(),
            None => vec![text],
        };
        check(command, arg, &file_of(name), &values)?;
        settings.push((arg.get_id().to_string(), values));
    }
    Ok(settings)
}

/// The variable that names the file.
pub(super) fn file_of(name: &str) -> String {
    format!("{name}_FILE")
}
