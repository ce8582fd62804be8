//! The YAML of a script. `docs/scripted-model.md` gives the meaning of every field.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::http_error::HttpError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScriptYaml {
    pub(crate) models: BTreeMap<String, ModelYaml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelYaml {
    pub(crate) context_window: Option<u32>,
    #[serde(default, deserialize_with = "crate::duration::optional")]
    pub(crate) latency: Option<Duration>,
    pub(crate) tokens_per_second: Option<f64>,
    pub(crate) rules: Vec<RuleYaml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleYaml {
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) when: WhenYaml,
    pub(crate) then: ThenYaml,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhenYaml {
    pub(crate) user: Option<String>,
    pub(crate) history: Option<String>,
    pub(crate) instructions: Option<String>,
    pub(crate) file: Option<String>,
    #[serde(default)]
    pub(crate) offers: Vec<String>,
    pub(crate) tool_result: Option<ToolResultYaml>,
    #[serde(default)]
    pub(crate) turn: Count,
    #[serde(default)]
    pub(crate) step: Count,
    pub(crate) response_format: Option<FormatYaml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolResultYaml {
    pub(crate) name: Option<String>,
    pub(crate) output: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatYaml {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThenYaml {
    pub(crate) reasoning: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) refusal: Option<String>,
    #[serde(default)]
    pub(crate) tool_calls: Vec<CallYaml>,
    #[serde(default)]
    pub(crate) call_mentioned: bool,
    #[serde(default)]
    pub(crate) generate_json: bool,
    pub(crate) finish: Option<FinishYaml>,
    pub(crate) usage: Option<UsageYaml>,
    #[serde(default, deserialize_with = "crate::duration::optional")]
    pub(crate) latency: Option<Duration>,
    pub(crate) tokens_per_second: Option<f64>,
    pub(crate) fault: Option<FaultYaml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallYaml {
    pub(crate) name: String,
    pub(crate) arguments: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishYaml {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageYaml {
    pub(crate) prompt_tokens: Option<u32>,
    pub(crate) completion_tokens: Option<u32>,
    #[serde(default)]
    pub(crate) cached_tokens: u32,
    #[serde(default)]
    pub(crate) reasoning_tokens: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultYaml {
    pub(crate) http_error: Option<HttpError>,
    pub(crate) context_length: Option<u32>,
    pub(crate) disconnect_after: Option<u32>,
    pub(crate) garbage_after: Option<u32>,
    pub(crate) error_after: Option<u32>,
    pub(crate) times: Option<u32>,
    pub(crate) key: Option<String>,
}

/// A range of numbers: `2`, `2+` or `1-3`; any number when absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    min: u32,
    max: u32,
}

impl Count {
    pub(crate) fn contains(self, number: u32) -> bool {
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
                Count::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}
