//! Loads the settings from the command line, the environment and the configuration file.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::FromArgMatches;

use super::Cli;
use super::environment;
use super::file;
use super::models::check_routes;
use super::setting::Setting;
use super::setting::SettingError;

impl Cli {
    /// Ends the process with the help text if that is asked for, and with an error message if a
    /// setting is invalid.
    pub fn load() -> Self {
        let mut cli = Self::try_load(std::env::args_os(), |name| std::env::var(name).ok())
            .unwrap_or_else(|error| error.exit());
        cli.config.sandbox.sandbox_environment = environment::sandbox_variables(&Self::command());
        cli
    }

    pub(super) fn try_load(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let invalid = |message: String| {
            Self::command().error(clap::error::ErrorKind::ValueValidation, message)
        };
        let from_environment = match environment::settings(&Self::command(), &command(), &variable)
        {
            Ok(settings) => settings,
            // `--help` works with an invalid environment, too: it helps to correct it.
            Err(error) => match Self::parse(command(), &arguments) {
                Err(help) if !help.use_stderr() => return Err(help),
                _ => return Err(invalid(error.to_string())),
            },
        };
        let without_file = Self::parse(with_defaults(command(), &from_environment), &arguments)?;
        let Some(path) = without_file.config.config.clone() else {
            return Ok(without_file.completed());
        };

        let invalid = |error: SettingError| {
            invalid(format!("configuration file {}: {error}", path.display()))
        };
        let file = file::read(&path, &command(), &variable).map_err(invalid)?;
        let command = with_defaults(command(), &file.settings);
        let mut cli = Self::parse(with_defaults(command, &from_environment), &arguments)?;
        cli.config.models.upstreams = file.upstreams;
        cli.config.models.routes = file.routes;
        let cli = cli.completed();
        let models = &cli.config.models;
        check_routes(&models.upstreams, &models.routes).map_err(invalid)?;
        Ok(cli)
    }

    fn parse(command: clap::Command, arguments: &[OsString]) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// Fills in what depends on several settings or on the working directory.
    fn completed(mut self) -> Self {
        let data_dir = &mut self.config.files.data_dir;
        // Messages are to show where it is.
        if let Ok(absolute) = std::path::absolute(&data_dir) {
            *data_dir = absolute;
        }
        self.config.models.add_defaults();
        self
    }
}

/// Makes settings of the environment or of the file defaults of the flags, so that flags win.
pub(super) fn with_defaults(command: clap::Command, settings: &[Setting]) -> clap::Command {
    settings
        .iter()
        .cloned()
        .fold(command, |command, (id, values)| {
            command.mut_arg(id, |arg| arg.default_values(values))
        })
}

/// The command line. Settings may stand before or after the command.
///
/// clap does not read the environment: its errors would name the flag where the variable is at
/// fault, and repeat secrets.
pub(super) fn command() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let arg = arg.global(true);
        let name = arg.get_env().and_then(|name| name.to_str());
        let Some(name) = name.map(str::to_owned) else {
            return arg;
        };
        let with_name = |help: &clap::builder::StyledStr| format!("{help} [env: {name}]");
        let help = arg.get_help().map(with_name);
        let long_help = arg.get_long_help().map(with_name);
        let mut arg = arg.env(None::<&'static str>);
        if let Some(help) = help {
            arg = arg.help(help);
        }
        match long_help {
            Some(help) => arg.long_help(help),
            None => arg,
        }
    })
}
