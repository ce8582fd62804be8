//! The types of settings that need more than the standard library's parsers.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

/// Text that must not be shown: its `Debug` form is `[redacted]`, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A key that is to be accepted from the start, and the project it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedKey {
    /// Name of the project.
    pub project: String,
    /// The key, as clients send it.
    pub key: Secret,
}

impl FromStr for SeedKey {
    type Err = &'static str;

    /// Reads `project:key`. The messages never repeat the text, which may be a key.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (project, key) = text.split_once(':').ok_or("expected PROJECT:KEY")?;
        let project = name(project.trim())
            .map_err(|_| "expected PROJECT:KEY, with a project of 1 to 200 characters")?;
        let key = key.trim();
        // A header can carry nothing else.
        if key.len() < 8 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected PROJECT:KEY, with a key of at least 8 visible ASCII characters");
        }
        Ok(Self {
            project,
            key: key.into(),
        })
    }
}

/// An origin whose web pages may call the API, as browsers write it, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOrigin(String);

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CorsOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        let wrong = |why: &str| {
            format!(
                "{text:?} is not an origin: {why}; expected scheme://host[:port], such as \
                 https://app.example, or *"
            )
        };
        if text.contains('*') {
            return Err(wrong("`*` stands alone, not for part of a name"));
        }
        if text == "null" || text.starts_with("file:") {
            return Err(wrong("every local file and sandboxed page has it"));
        }
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(wrong("it has no host"));
        };
        let is_bare = matches!(url.path(), "" | "/") && !text.ends_with('/');
        let has_more = url.query().is_some() || url.fragment().is_some();
        let has_user = !url.username().is_empty() || url.password().is_some();
        if !is_bare || has_more || has_user {
            return Err(wrong("it has more than scheme, host and port"));
        }
        // The origin of schemes such as `tauri` is opaque to the URL standard, but browsers send it.
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        Ok(Self(format!("{}://{host}{port}", url.scheme())))
    }
}

/// The embedding model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbeddingModel {
    /// Nothing: search goes by words.
    Off,
    /// The model that set-up has installed, if it has.
    Installed,
    /// A local model in this folder.
    Folder(PathBuf),
    /// A model of this name, routed like those that chat.
    Upstream(String),
}

impl FromStr for EmbeddingModel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "" => return Err("expected installed, off, a folder, or the name of a model"),
            "off" => Self::Off,
            "installed" => Self::Installed,
            folder if Path::new(folder).is_dir() => Self::Folder(folder.into()),
            name => Self::Upstream(name.to_owned()),
        })
    }
}

/// Who runs the code of code_interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// Nobody.
    Off,
    /// A worker that this program starts.
    Embedded,
    /// Workers at these addresses.
    Workers(Vec<String>),
}

impl FromStr for Sandbox {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_address = |address: &&str| {
            let path = address
                .strip_prefix("unix:")
                .is_some_and(|path| path.starts_with('/'));
            path || address
                .strip_prefix("tcp:")
                .is_some_and(|place| place.contains(':'))
        };
        match text {
            "off" => Ok(Self::Off),
            "embedded" => Ok(Self::Embedded),
            addresses => {
                let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
                if !addresses.iter().all(is_address) {
                    return Err(
                        "expected embedded, off, or unix:/PATH or tcp:HOST:PORT, several \
                                of these with commas between",
                    );
                }
                Ok(Self::Workers(
                    addresses.into_iter().map(str::to_owned).collect(),
                ))
            }
        }
    }
}

/// What [`Bytes`] are written like.
const SIZE: &str = "expected a number of bytes, such as 1048576, 512KiB, 32MiB or 1GiB";

/// A number of bytes, written `1048576`, `1MiB` or `1 MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1000 * 1000,
            "GB" => 1000 * 1000 * 1000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            other => return Err(format!("{SIZE}; there is no unit {other:?}")),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .filter(|bytes| *bytes > 0)
            .map(Self)
            .ok_or_else(|| SIZE.to_owned())
    }
}

/// A number of days up to a year, written `7d` or `7`; none is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u16);

impl Days {
    /// How many; `None` is for ever.
    pub fn days(self) -> Option<i32> {
        (self.0 > 0).then_some(self.0.into())
    }
}

impl FromStr for Days {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let number = text.strip_suffix('d').unwrap_or(text).trim_end();
        match number.parse() {
            Ok(days) if days <= 365 => Ok(Self(days)),
            _ => Err("expected a number of days up to 365, such as 7d; 0 is never"),
        }
    }
}

/// A limit that can be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<i64>);

impl Limit {
    /// Reads `none`, or a number from 1 to `max`, which may have a unit of bytes.
    pub(in crate::config) fn parse(text: &str, max: i64) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number = text.parse::<Bytes>().ok();
        number
            .and_then(|Bytes(number)| i64::try_from(number).ok())
            .filter(|number| *number <= max)
            .map(|number| Self(Some(number)))
            .ok_or_else(|| format!("expected none, or a whole number from 1 to {max}"))
    }
}

/// The key of the admin API.
pub(in crate::config) fn admin_key(text: &str) -> Result<Secret, String> {
    if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected at least 16 visible ASCII characters".to_owned());
    }
    Ok(text.into())
}

/// A duration in humantime's notation.
pub(in crate::config) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration, such as 500ms, 30s, 10m, 24h or 7d".to_owned())
}

/// A duration that is longer than zero.
pub(in crate::config) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err("expected a duration longer than zero, such as 30s or 10m".to_owned())
        }
        duration => Ok(duration),
    }
}

/// A parser of whole numbers, of which the least is given.
pub(in crate::config) fn at_least(least: u32) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| *number >= least);
        number.ok_or_else(|| format!("expected a whole number from {least} to {}", u32::MAX))
    }
}

/// An address to listen on.
pub(in crate::config) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8000 or [::]:8000".to_owned()
    })
}

/// A name for people: not empty, one line.
pub(in crate::config) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
        return Err("a name has 1 to 200 characters, all on one line".to_owned());
    }
    Ok(text.to_owned())
}

/// A URL that HTTP can be spoken to.
pub(in crate::config) fn http_url(text: &str) -> Result<Url, String> {
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let url = Url::parse(text).ok().filter(is_http);
    url.ok_or_else(|| "expected an http:// or https:// URL".to_owned())
}
