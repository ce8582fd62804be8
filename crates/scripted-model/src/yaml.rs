//! A script file as it is written: YAML. Meanings and defaults are in `docs/scripted-model.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::Visitor;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptFile {
    pub(super) models: BTreeMap<String, ModelFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    pub(super) context_window: Option<u32>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) latency: Option<Duration>,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) rules: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFile {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) when: WhenFile,
    pub(super) then: ThenFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhenFile {
    pub(super) user: Option<String>,
    pub(super) history: Option<String>,
    pub(super) instructions: Option<String>,
    pub(super) file: Option<String>,
    #[serde(default)]
    pub(super) offers: Vec<String>,
    pub(super) tool_result: Option<ToolResultFile>,
    #[serde(default)]
    pub(super) turn: Count,
    #[serde(default)]
    pub(super) step: Count,
    pub(super) response_format: Option<FormatFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolResultFile {
    pub(super) name: Option<String>,
    pub(super) output: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum FormatFile {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThenFile {
    pub(super) reasoning: Option<String>,
    pub(super) text: Option<String>,
    pub(super) refusal: Option<String>,
    #[serde(default)]
    pub(super) tool_calls: Vec<CallFile>,
    #[serde(default)]
    pub(super) call_mentioned: bool,
    #[serde(default)]
    pub(super) generate_json: bool,
    pub(super) finish: Option<FinishFile>,
    pub(super) usage: Option<UsageFile>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) latency: Option<Duration>,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) fault: Option<FaultFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallFile {
    pub(super) name: String,
    pub(super) arguments: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishFile {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageFile {
    pub(super) prompt_tokens: Option<u32>,
    pub(super) completion_tokens: Option<u32>,
    #[serde(default)]
    pub(super) cached_tokens: u32,
    #[serde(default)]
    pub(super) reasoning_tokens: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultFile {
    pub(super) http_error: Option<HttpErrorFile>,
    pub(super) context_length: Option<u32>,
    pub(super) disconnect_after: Option<u32>,
    pub(super) garbage_after: Option<u32>,
    pub(super) error_after: Option<u32>,
    pub(super) times: Option<u32>,
    pub(super) key: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpErrorFile {
    pub(super) status: u16,
    pub(super) message: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) code: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) retry_after: Option<Duration>,
}

/// How often something happened: `2`, `2+` or `1-3`. Any number when absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    min: u32,
    max: u32,
}

impl Count {
    pub(super) fn contains(self, number: u32) -> bool {
        (self.min..=self.max).contains(&number)
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        if let Some(min) = text.trim().strip_suffix('+') {
            return Some(Self {
                min: number(min)?,
                max: u32::MAX,
            });
        }
        let (min, max) = match text.split_once('-') {
            Some((min, max)) => (number(min)?, number(max)?),
            None => (number(text)?, number(text)?),
        };
        (min <= max).then_some(Self { min, max })
    }
}

impl Default for Count {
    fn default() -> Self {
        Self {
            min: 0,
            max: u32::MAX,
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl Visitor<'_> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number such as `2`, `2+` or `1-3`")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Count, E> {
                Count::parse(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

/// A duration with its unit, such as `200ms`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(D::Error::custom)
}
