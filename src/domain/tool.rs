//! Tools, tool choices and tool calls.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::ids::FileId;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Tool {
    /// Runs Python in a sandbox.
    CodeInterpreter,
    FileSearch {
        /// The client's settings under `file_search`, with defaults filled in.
        file_search: Map<String, Value>,
    },
    /// A function that the client executes.
    Function { function: Function },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// `[A-Za-z0-9_-]`, 1 to 64 characters.
    pub name: String,
    pub description: Option<String>,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    pub strict: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    None,
    Auto,
    Required,
    CodeInterpreter,
    FileSearch,
    Function(String),
}

/// A tool call in a run step. It has no output until it was executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// `call_…`, from the upstream or generated.
    pub id: String,
    #[serde(flatten)]
    pub body: ToolCallBody,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCallBody {
    Function(FunctionCall),
    CodeInterpreter(CodeCall),
    FileSearch(SearchCall),
}

impl ToolCall {
    pub fn is_answered(&self) -> bool {
        match &self.body {
            ToolCallBody::Function(call) => call.output.is_some(),
            ToolCallBody::CodeInterpreter(call) => call.outputs.is_some(),
            ToolCallBody::FileSearch(call) => call.results.is_some(),
        }
    }

    /// Whether the server executes the call.
    pub fn is_built_in(&self) -> bool {
        match &self.body {
            ToolCallBody::Function(_) => false,
            ToolCallBody::CodeInterpreter(_) | ToolCallBody::FileSearch(_) => true,
        }
    }

    pub fn images(&self) -> impl Iterator<Item = &FileId> {
        let outputs = match &self.body {
            ToolCallBody::Function(_) | ToolCallBody::FileSearch(_) => None,
            ToolCallBody::CodeInterpreter(call) => call.outputs.as_ref(),
        };
        outputs
            .into_iter()
            .flatten()
            .filter_map(|output| match output {
                CodeOutput::Image(file) => Some(file),
                CodeOutput::Logs(_) => None,
            })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    pub name: String,
    /// The model's text, which is not always valid JSON.
    pub arguments: String,
    pub output: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeCall {
    pub input: String,
    pub outputs: Option<Vec<CodeOutput>>,
    /// Additional sentences for the model, which clients do not see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether the code ran in a new session although the thread had one before.
    #[serde(default)]
    pub restarted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeOutput {
    /// Standard output, results and tracebacks.
    Logs(String),
    Image(FileId),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchCall {
    /// The queries as JSON text, as the model wrote it.
    pub arguments: String,
    pub ranker: String,
    /// Minimum score of a result, 0 to 1.
    pub score_threshold: f64,
    /// Number of the search in its thread; citations begin with it.
    #[serde(rename = "place")]
    pub ordinal: usize,
    /// Best first; `None` until the search was executed.
    pub results: Option<Vec<SearchResult>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    pub file: FileId,
    pub file_name: String,
    /// 0 to 1.
    pub score: f64,
    pub attributes: Map<String, Value>,
    /// The chunk begins on this page, under this heading.
    pub page: Option<i32>,
    pub heading: Option<String>,
    pub content: String,
}

impl SearchCall {
    /// The marker with which the model cites result `n` of this search.
    pub fn marker(&self, n: usize, file_name: &str) -> String {
        let name = name_in_marker(file_name);
        format!("\u{3010}{}:{n}\u{2020}{name}\u{3011}", self.ordinal)
    }
}

/// A file's name in a citation marker. A marker is on one line, so control characters and line
/// breaks become blanks.
pub fn name_in_marker(file_name: &str) -> String {
    let is_break = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}');
    file_name.replace(is_break, " ")
}
