//! The names of called functions.

use std::collections::HashSet;

use async_openai::types::chat::ChatCompletionTools;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::json_escapes;
use crate::models::request::ChatRequest;

/// The prefix that models trained on OpenAI's internal format put before function names.
const NAMESPACE: &str = "functions.";

/// The function by which such models make several calls at once.
const BUNDLE: &str = "multi_tool_use.parallel";

#[derive(Clone, Debug, Default)]
pub(in crate::models) struct CallNames {
    offered: HashSet<String>,
}

#[derive(Deserialize)]
struct Bundle<'a> {
    #[serde(borrow)]
    tool_uses: Vec<BundledCall<'a>>,
}

#[derive(Deserialize)]
struct BundledCall<'a> {
    recipient_name: String,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
}

impl CallNames {
    pub(in crate::models) fn of(request: &ChatRequest) -> Self {
        let functions = request.tools.iter().filter_map(|tool| match tool {
            ChatCompletionTools::Function(tool) => Some(tool.function.name.as_str()),
            ChatCompletionTools::Custom(_) => None,
        });
        let names = functions.chain(request.aliases.iter().copied());
        Self {
            offered: names.map(str::to_owned).collect(),
        }
    }

    /// The offered function that a name means; other names are returned as they are.
    pub(super) fn plain(&self, name: &str) -> String {
        let plain = name
            .strip_prefix(NAMESPACE)
            .filter(|plain| self.offered.contains(*plain) && !self.offered.contains(name));
        plain.unwrap_or(name).to_owned()
    }

    pub(super) fn is_bundle(&self, name: &str) -> bool {
        name == BUNDLE && !self.offered.contains(name)
    }

    /// The names and arguments of the calls in a bundle; empty if it is not valid.
    pub(super) fn unbundle(&self, arguments: &str) -> Vec<(String, String)> {
        let arguments = json_escapes::replace_unstorable(arguments);
        let Ok(Bundle { tool_uses }) = serde_json::from_str(&arguments) else {
            return Vec::new();
        };
        let calls = tool_uses.into_iter().map(|call| {
            let parameters = call.parameters.map_or("{}", RawValue::get);
            // Some models write the arguments as a string, as in other calls.
            let arguments = serde_json::from_str(parameters);
            let arguments = arguments.unwrap_or_else(|_| parameters.to_owned());
            (self.plain(&call.recipient_name), arguments)
        });
        calls.collect()
    }
}
