//! Settings from outside of the command line, and their validation.

use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

/// Id of an argument, with its values in the notation of the command line.
pub(super) type Setting = (String, Vec<String>);

/// Why the environment or the configuration file is not valid. The text contains no secret values.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// The file is not TOML, or one of its tables has unknown or missing fields.
    #[error("{0}")]
    Malformed(String),
    #[error("there is no setting `{0}`; `assistd --help` lists them (write `-` as `_`)")]
    Unknown(String),
    #[error("`{0}` must be a string, a number, true or false, or a list of these")]
    WrongKind(String),
    #[error("`{setting}`: {reason}")]
    Invalid {
        /// Name of the environment variable, or the key in the file.
        setting: String,
        reason: String,
    },
}

/// Parses the values with the parser of the command line. The error names `source`: the environment
/// variable, or the key in the file.
pub(super) fn check(
    command: &clap::Command,
    arg: &clap::Arg,
    source: &str,
    values: &[String],
) -> Result<(), SettingError> {
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
    Err(SettingError::Invalid {
        setting: source.to_owned(),
        reason,
    })
}

/// The expected format, from the error about an invalid value.
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
