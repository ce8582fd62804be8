use std::io::Write as _;

use std::time::Duration;

use clap::CommandFactory as _;

use super::load::{command, with_defaults};
use super::models::{DEFAULT_UPSTREAM, OPENAI, SCRIPTED_UPSTREAM};
use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn load(file: &tempfile::NamedTempFile, flags: &[&str]) -> Result<Config, String> {
    let path = file.path().to_str().expect("a path in UTF-8");
    let arguments = [&["assistd", "--config", path], flags].concat();
    let variable = |name: &str| (name == "AZURE_KEY").then(|| "azure-secret".to_owned());
    match Cli::try_load(arguments, variable) {
        Ok(cli) => Ok(cli.config),
        Err(error) => Err(error.to_string()),
    }
}

fn load_text(text: &str) -> Result<Config, String> {
    load(&file(text), &[])
}

fn mistake(text: &str) -> String {
    load_text(text).expect_err("the file has a mistake")
}

#[test]
fn the_command_line_describes_itself_without_contradiction() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_names_every_environment_variable_and_shows_no_secret() {
    let secrets = [
        "ASSISTD_API_KEYS",
        "DATABASE_URL",
        "OPENAI_API_KEY",
        "ASSISTD_SANDBOX_TOKEN",
        "ASSISTD_DATABASE_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "ASSISTD_ADMIN_KEY",
    ];
    let settings = secrets.map(|name| {
        let value = match name {
            "ASSISTD_API_KEYS" => "very:very-secret-indeed",
            _ => "very-secret-indeed",
        };
        let is_it = |arg: &&clap::Arg| arg.get_env().is_some_and(|env| env == name);
        let command = Cli::command();
        let arg = command.get_arguments().find(is_it).expect("a setting");
        (arg.get_id().to_string(), vec![value.to_owned()])
    });
    let helps = [
        with_defaults(command(), &settings)
            .render_long_help()
            .to_string(),
        command().render_long_help().to_string(),
        command().render_help().to_string(),
    ];
    let variables: Vec<String> = Cli::command()
        .get_arguments()
        .filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned()))
        .collect();
    assert!(variables.len() > 20);
    for help in helps {
        for name in &variables {
            assert!(help.contains(&format!("[env: {name}]")), "{name}");
        }
        assert!(!help.contains("very-secret"));
    }
}

#[test]
fn what_is_not_set_has_its_default() {
    let config = load_text("").expect("an empty file is valid");
    assert_eq!(config.http.poll_after_ms, 250);
    assert_eq!(config.runs.lease, Duration::from_secs(30));
    assert_eq!(config.runs.run_expiry, Duration::from_secs(600));
    assert_eq!(config.http.max_file_bytes, Bytes(512 << 20));
    assert!(!config.http.require_beta_header);
    assert!(!config.webhooks.webhook_allow_private);
}

#[test]
fn a_file_wins_over_defaults_and_a_flag_over_the_file() {
    let file = file(
        "poll_after_ms = 7\nlease = \"5s\"\nmax_body_bytes = 1000\nrequire_beta_header = true\n\
         webhook_retry_for = \"2h\"\n\
         api_keys = [\"acme:key-of-acme\", \"other:key-of-other\"]\n",
    );
    let config = load(&file, &[]).expect("valid");
    assert_eq!(config.http.poll_after_ms, 7);
    assert_eq!(config.runs.lease, Duration::from_secs(5));
    assert_eq!(config.http.max_body_bytes, Bytes(1000));
    assert!(config.http.require_beta_header);
    assert_eq!(
        config.webhooks.webhook_retry_for,
        Duration::from_secs(7_200)
    );
    let projects: Vec<_> = config
        .http
        .api_keys
        .iter()
        .map(|key| &key.project)
        .collect();
    assert_eq!(projects, ["acme", "other"]);

    let flags = ["--poll-after-ms", "9", "--require-beta-header=false"];
    let config = load(&file, &flags).expect("valid");
    assert_eq!(config.http.poll_after_ms, 9);
    assert!(!config.http.require_beta_header);
    assert_eq!(config.runs.lease, Duration::from_secs(5));
}

#[test]
fn origins_are_read_as_browsers_write_them() {
    let config = load_text(
        "cors_origins = [\"HTTPS://App.Example:443\", \"http://localhost:3000\", \"tauri://localhost\", \"*\"]\n",
    )
    .expect("valid");
    let origins: Vec<_> = config
        .http
        .cors_origins
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        origins,
        [
            "https://app.example",
            "http://localhost:3000",
            "tauri://localhost",
            "*"
        ]
    );
}

#[test]
fn flags_may_follow_the_command() {
    let arguments = ["assistd", "doctor", "--poll-after-ms", "9"];
    let cli = Cli::try_load(arguments, |_| None).expect("valid");
    assert!(matches!(cli.command, Some(Command::Doctor)));
    assert_eq!(cli.config.http.poll_after_ms, 9);
}

#[test]
fn without_an_upstream_the_scripted_model_answers() {
    let config = load_text("").expect("valid");
    assert_eq!(config.models.upstreams, []);
    assert_eq!(config.models.routes, []);

    let config = load_text("default_model = \"scripted/mine\"\n").expect("valid");
    assert_eq!(config.models.routes[0].upstream, SCRIPTED_UPSTREAM);
    assert_eq!(
        config.models.routes[0].model.as_deref(),
        Some("scripted/mine")
    );
}

#[test]
fn a_key_alone_means_openai() {
    let config = load_text("openai_api_key = \"sk-something\"\n").expect("valid");
    assert_eq!(config.models.upstreams[0].base_url.as_str(), OPENAI);
    assert_eq!(config.models.upstreams[0].name, DEFAULT_UPSTREAM);
}

#[test]
fn upstreams_and_routes_come_in_the_files_order() {
    let config = load_text(
        r#"
        openai_base_url = "http://127.0.0.1:9/v1"
        default_model = "small"
        [[upstream]]
        name = "azure"
        kind = "azure"
        base_url = "https://example.openai.azure.com"
        api_key_env = "AZURE_KEY"
        api_version = "2024-10-21"
        [[route]]
        match = "gpt-4*"
        upstream = "azure"
        model = "gpt-4o"
        context_window = 128000
        [[route]]
        match = "test-?"
        upstream = "scripted"
        "#,
    )
    .expect("valid");
    let names: Vec<_> = config
        .models
        .upstreams
        .iter()
        .map(|one| &one.name)
        .collect();
    assert_eq!(names, ["default", "azure"]);
    let key = config.models.upstreams[1]
        .api_key
        .as_ref()
        .map(Secret::expose);
    assert_eq!(key, Some("azure-secret"));
    let patterns: Vec<_> = config
        .models
        .routes
        .iter()
        .map(|route| &route.pattern)
        .collect();
    assert_eq!(patterns, ["gpt-4*", "test-?", "*"]);
    assert_eq!(config.models.routes[2].upstream, DEFAULT_UPSTREAM);
    assert_eq!(config.models.routes[2].model.as_deref(), Some("small"));
}

#[test]
fn mistakes_in_a_file_are_named() {
    let cases = [
        ("lisen = 1\n", "there is no setting `lisen`"),
        (
            "lease = \"soon\"\n",
            "`lease`: invalid value \"soon\": expected a duration",
        ),
        ("lease = \"0s\"\n", "expected a duration longer than zero"),
        ("lease = 1.5\n", "`lease` must be a string, a number"),
        ("poll_after_ms = 0\n", "expected a whole number from 1"),
        (
            "max_body_bytes = \"3 parsecs\"\n",
            "there is no unit \"parsecs\"",
        ),
        (
            "openai_base_url = \"ftp://x\"\n",
            "expected an http:// or https:// URL",
        ),
        ("log_format = \"xml\"\n", "expected text or json"),
        ("cors_origins = [\"app.example\"]\n", "is not an origin"),
        (
            "cors_origins = \"https://a.example/\"\n",
            "more than scheme",
        ),
        (
            "cors_origins = \"https://u@a.example\"\n",
            "more than scheme",
        ),
        (
            "cors_origins = \"https://*.a.example\"\n",
            "`*` stands alone",
        ),
        ("cors_origins = \"null\"\n", "every local file"),
        ("config = \"x.toml\"\n", "cannot name another"),
        (
            "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n",
            "`listen`: ",
        ),
        ("\n\nlease = = 1\n", "line 3: "),
        ("[[upstream]]\nname = \"a\"\n", "missing field `base_url`"),
        (
            "[[upstream]]\nname = \"a\"\nbase_url = \"http://a\"\ncolour = 1\n",
            "unknown field `colour`",
        ),
        (
            "[[upstream]]\nname = \"a\"\nbase_url = \"http://a\"\napi_key_env = \"NOT_SET\"\n",
            "the environment variable NOT_SET is not set",
        ),
        (
            "[[upstream]]\nname = \"a\"\nbase_url = \"http://a\"\nkind = \"azure\"\n",
            "needs an api_version",
        ),
        (
            "[[upstream]]\nname = \"scripted\"\nbase_url = \"http://a\"\n",
            "the name \"scripted\" is taken",
        ),
        (
            "[[route]]\nmatch = \"x\"\nupstream = \"nowhere\"\n",
            "\"nowhere\", which is no upstream",
        ),
        (
            "[[route]]\nmatch = \"x\"\nupstream = \"default\"\n",
            "OPENAI_BASE_URL and",
        ),
    ];
    for (text, expected) in cases {
        let message = mistake(text);
        assert!(message.contains(expected), "{text:?} gave {message:?}");
    }
}

#[test]
fn secrets_do_not_show() {
    let config = load_text(
        "openai_api_key = \"sk-hidden-1\"\ndatabase_url = \"postgres://u:hidden-2@h/d\"\n\
         api_keys = \"acme:hidden-3\"\n\
         [[upstream]]\nname = \"a\"\nbase_url = \"http://a\"\napi_key = \"hidden-4\"\n",
    )
    .expect("valid");
    let debug = format!("{config:?}");
    assert!(!debug.contains("hidden"), "{debug}");
    assert!(debug.contains("[redacted]"), "{debug}");

    for text in [
        "openai_api_key = \"hidden\n",
        "api_keys = \"hidden\"\n",
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://a\"\napi_key = [\"hidden\"]\n",
    ] {
        let message = mistake(text);
        assert!(!message.contains("hidden"), "{message}");
    }
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in [
        ("1", 1),
        ("10 kB", 10_000),
        ("2MiB", 2 << 20),
        ("1 GiB", 1 << 30),
    ] {
        assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
    }
    for text in [
        "",
        "0",
        "-1",
        "MiB",
        "99999999999999999999",
        "99999999999GiB",
    ] {
        assert!(text.parse::<Bytes>().is_err(), "{text}");
    }
}

#[test]
fn every_configuration_that_the_documents_show_can_be_used() {
    let documents = [
        include_str!("../../docs/configuration.md"),
        include_str!("../../docs/operations.md"),
    ];
    let blocks: Vec<&str> = documents
        .iter()
        .flat_map(|document| document.split("```toml\n").skip(1))
        .filter_map(|rest| Some(rest.split_once("```")?.0))
        .collect();
    assert!(blocks.len() > 8, "the documents have examples");
    for block in blocks {
        let file = file(block);
        let path = file.path().to_str().expect("a path in UTF-8");
        let keys = |name: &str| {
            name.ends_with("_KEY")
                .then(|| "a-secret-of-the-operator".to_owned())
        };
        let read = Cli::try_load(["assistd", "--config", path], keys);
        if let Err(error) = read {
            panic!("{error}\nin\n{block}");
        }
    }
}

fn load_with(variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
    let arguments = [&["assistd"], flags].concat();
    let variable = |name: &str| {
        let variable = variables.iter().find(|(other, _)| *other == name);
        variable.map(|(_, value)| (*value).to_owned())
    };
    match Cli::try_load(arguments, variable) {
        Ok(cli) => Ok(cli.config),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_variable_may_be_in_a_file_of_its_own() {
    let path = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    let key = file("sk-of-a-file\n");
    let keys = file("acme:key-of-acme\r\nother:key-of-other,third:key-of-third\n");
    let empty = file("\n");
    let (key, keys, empty) = (path(&key), path(&keys), path(&empty));
    let variables = [
        ("OPENAI_API_KEY_FILE", key.as_str()),
        ("ASSISTD_API_KEYS_FILE", &keys),
        ("ASSISTD_SANDBOX_TOKEN_FILE", &empty),
        ("ASSISTD_DATABASE_PASSWORD_FILE", ""),
    ];
    let config = load_with(&variables, &[]).expect("valid");
    let exposed = |secret: &Option<Secret>| secret.as_ref().map(|it| it.expose().to_owned());
    assert_eq!(
        exposed(&config.models.openai_api_key).as_deref(),
        Some("sk-of-a-file")
    );
    let projects: Vec<_> = config
        .http
        .api_keys
        .iter()
        .map(|key| &key.project)
        .collect();
    assert_eq!(projects, ["acme", "other", "third"]);
    assert_eq!(config.sandbox.sandbox_token, None);
    assert_eq!(config.database.database_password, None);

    let config = load_with(&variables, &["--openai-api-key=sk-of-a-flag"]).expect("valid");
    assert_eq!(
        exposed(&config.models.openai_api_key).as_deref(),
        Some("sk-of-a-flag")
    );
}

#[test]
fn a_variables_file_wins_over_the_configuration_file_and_may_hold_an_upstreams_key() {
    let lease = file("7s");
    let key = file("sk-of-azure\n");
    let settings = file(
        "lease = \"9s\"\nrun_expiry = \"9m\"\n[[upstream]]\nname = \"a\"\n\
         base_url = \"http://a\"\napi_key_env = \"A_KEY\"\n",
    );
    let path = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    let (lease, key, settings) = (path(&lease), path(&key), path(&settings));
    let variables = [("ASSISTD_LEASE_FILE", lease.as_str()), ("A_KEY_FILE", &key)];
    let config = load_with(&variables, &["--config", &settings]).expect("valid");
    assert_eq!(config.runs.lease, Duration::from_secs(7));
    assert_eq!(config.runs.run_expiry, Duration::from_secs(540));
    let key = config.models.upstreams[0]
        .api_key
        .as_ref()
        .map(Secret::expose);
    assert_eq!(key, Some("sk-of-azure"));
}

#[test]
fn mistakes_in_a_variables_file_are_reported_without_its_contents() {
    let hidden = file("hidden");
    let hidden = hidden.path().display().to_string();
    for (variables, expected) in [
        (
            vec![("OPENAI_API_KEY_FILE", "/no/such/file")],
            "`OPENAI_API_KEY_FILE`: /no/such/file: ",
        ),
        (
            vec![
                ("OPENAI_API_KEY_FILE", hidden.as_str()),
                ("OPENAI_API_KEY", "hidden"),
            ],
            "`OPENAI_API_KEY_FILE`: OPENAI_API_KEY is set, too",
        ),
        (
            vec![("ASSISTD_API_KEYS_FILE", hidden.as_str())],
            "`ASSISTD_API_KEYS_FILE`: expected PROJECT:KEY",
        ),
    ] {
        let message = load_with(&variables, &[]).expect_err("it is a mistake");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("hidden"), "{message}");
    }
}

/// Settings that accept any text: names, paths and secrets.
const FREE: &[&str] = &[
    "aws_access_key_id",
    "aws_secret_access_key",
    "blobs",
    "config",
    "data_dir",
    "database_password",
    "database_url",
    "default_model",
    "embedding_model",
    "log",
    "openai_api_key",
    "pdfium",
    "postgres_bin",
    "postgres_user",
    "rerank_model",
    "sandbox_program",
    "sandbox_token",
    "script",
    "tls_cert",
    "tls_key",
];

/// An invalid value of each other setting, and the format that the message must name.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("admin_key", "short", "at least 16 visible ASCII characters"),
    ("api_keys", "no-project", "PROJECT:KEY"),
    (
        "body_timeout",
        "0s",
        "a duration longer than zero, such as 30s",
    ),
    ("console", "maybe", "true or false"),
    ("cors_origins", "app.example", "scheme://host[:port]"),
    ("database_connections", "1", "a whole number from 2 to"),
    ("event_retention", "a day", "a duration, such as"),
    ("idle_timeout", "10", "a duration, such as"),
    ("lease", "soon", "a duration, such as"),
    (
        "listen",
        "localhost:8000",
        "an IP address and a port, such as 127.0.0.1:8000",
    ),
    ("log_format", "xml", "text or json"),
    ("max_body_bytes", "3 parsecs", "a number of bytes, such as"),
    ("max_body_memory", "much", "a number of bytes, such as"),
    (
        "max_prompt_picture_bytes",
        "many",
        "a number of bytes, such as",
    ),
    (
        "max_upstream_answer_bytes",
        "0",
        "a number of bytes, such as",
    ),
    (
        "max_upstream_line_bytes",
        "-1",
        "a number of bytes, such as",
    ),
    ("max_concurrent_runs", "many", "a whole number from 1 to"),
    ("max_connections", "0", "a whole number from 1 to"),
    ("max_file_bytes", "-1", "a number of bytes, such as"),
    ("openai_base_url", "localhost", "an http:// or https:// URL"),
    (
        "otlp_endpoint",
        "grpc://collector",
        "an http:// or https:// URL",
    ),
    ("poll_after_ms", "1.5", "a whole number from 1 to"),
    ("reader_timeout", "5 parsecs", "a duration, such as"),
    ("request_timeout", "abc", "a duration, such as"),
    ("require_beta_header", "yes", "true or false"),
    (
        "run_expiry",
        "abc",
        "a duration, such as 500ms, 30s, 10m, 24h or 7d",
    ),
    (
        "sandbox",
        "here",
        "embedded, off, or unix:/PATH or tcp:HOST:PORT",
    ),
    ("shutdown_grace", "abc", "a duration, such as"),
    (
        "thread_store_expiry",
        "400",
        "a number of days up to 365, such as 7d",
    ),
    ("upstream_retries", "-1", "a whole number from 0 to"),
    ("upstream_timeout", "abc", "a duration, such as"),
    ("webhook_allow_private", "1", "true or false"),
    ("webhook_disable_after", "abc", "a duration, such as"),
    ("webhook_retry_for", "abc", "a duration, such as"),
];

#[test]
fn a_wrong_value_is_refused_by_a_message_that_names_setting_value_and_format() {
    let all = Cli::command();
    let settings = all.get_arguments().filter(|arg| arg.get_env().is_some());
    for arg in settings.filter(|arg| !FREE.contains(&arg.get_id().as_str())) {
        let id = arg.get_id().as_str();
        let mistake = MISTAKES.iter().find(|(setting, ..)| *setting == id);
        let (_, value, expected) = mistake.unwrap_or_else(|| panic!("no mistake of {id} is tried"));
        let name = arg.get_env().and_then(|name| name.to_str()).expect("text");
        let expected = format!("expected {expected}");
        let of_variable = load_with(&[(name, value)], &[]).expect_err(id);
        let of_file = mistake_in_file(id, value);
        for (message, setting) in [(&of_variable, name), (&of_file, id)] {
            assert!(message.contains(&format!("`{setting}`")), "{message}");
            assert!(message.contains(&expected), "{message}");
            let is_shown = message.contains(&format!("{value:?}"));
            assert_eq!(is_shown, !arg.is_hide_env_values_set(), "{message}");
        }
        let flag = format!("--{}={value}", arg.get_long().expect("a flag"));
        let of_flag = load_with(&[], &[&flag]).expect_err(id);
        assert!(of_flag.contains(id.replace('_', "-").as_str()), "{of_flag}");
    }
}

fn mistake_in_file(id: &str, value: &str) -> String {
    mistake(&format!("{id} = {value:?}\n"))
}

#[test]
fn the_help_is_shown_whatever_is_wrong_with_the_environment() {
    let variable = |name: &str| (name == "ASSISTD_LEASE").then(|| "soon".to_owned());
    let help = Cli::try_load(["assistd", "--help"], variable).expect_err("the help");
    assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp);
}

#[test]
fn a_variable_wins_over_the_configuration_file_and_a_flag_over_the_variable() {
    let settings = file("lease = \"9s\"\n");
    let path = settings.path().display().to_string();
    let variables = [("ASSISTD_LEASE", "7s"), ("ASSISTD_RUN_EXPIRY", "")];
    let config = load_with(&variables, &["--config", &path]).expect("valid");
    assert_eq!(config.runs.lease, Duration::from_secs(7));
    assert_eq!(config.runs.run_expiry, Duration::from_secs(600));
    let config = load_with(&variables, &["--config", &path, "--lease=5s"]).expect("valid");
    assert_eq!(config.runs.lease, Duration::from_secs(5));
}
