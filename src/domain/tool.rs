//! Tools an assistant may call, and how a run chooses among them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::ids::FileId;

/// A tool offered to the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Tool {
    /// Python in a sandbox.
    CodeInterpreter,
    /// Search in vector stores.
    FileSearch {
        /// Word for word what the client set under `file_search`, defaults filled in.
        file_search: Map<String, Value>,
    },
    /// A function that the caller runs.
    Function {
        /// Its name and parameters.
        function: Function,
    },
}

/// A function as the model is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// `[A-Za-z0-9_-]`, 1 to 64 characters.
    pub name: String,
    /// When and how to use it.
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    pub parameters: Value,
    /// Whether the model must keep to the schema exactly.
    pub strict: bool,
}

/// How the model may choose among the tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// No tool at all.
    None,
    /// As the model likes.
    Auto,
    /// At least one.
    Required,
    /// This built-in tool.
    CodeInterpreter,
    /// This built-in tool.
    FileSearch,
    /// The function of this name.
    Function(String),
}

/// A call of a tool, as a run step records it: before it runs without output, afterwards with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// `call_…`, from the upstream or made here.
    pub id: String,
    /// What is called.
    #[serde(flatten)]
    pub body: ToolCallBody,
}

/// What a tool call calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCallBody {
    /// One of the caller's functions.
    Function(FunctionCall),
    /// Python in the sandbox.
    CodeInterpreter(CodeCall),
    /// A search in vector stores.
    FileSearch(SearchCall),
}

impl ToolCall {
    /// Whether it has its output.
    pub fn is_answered(&self) -> bool {
        match &self.body {
            ToolCallBody::Function(call) => call.output.is_some(),
            ToolCallBody::CodeInterpreter(call) => call.outputs.is_some(),
            ToolCallBody::FileSearch(call) => call.results.is_some(),
        }
    }

    /// Whether the server runs it.
    pub fn is_built_in(&self) -> bool {
        match &self.body {
            ToolCallBody::Function(_) => false,
            ToolCallBody::CodeInterpreter(_) | ToolCallBody::FileSearch(_) => true,
        }
    }

    /// Pictures among its outputs.
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

/// A call of one of the caller's functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Which function.
    pub name: String,
    /// JSON text as the model wrote it; not always valid JSON.
    pub arguments: String,
    /// What the caller answered; `None` until then.
    pub output: Option<String>,
}

/// A cell of Python that the model wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeCall {
    /// The code.
    pub input: String,
    /// What came of it; `None` until it has run.
    pub outputs: Option<Vec<CodeOutput>>,
    /// What the model is told besides, a sentence each. Clients do not see it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether it ran in a new session although the thread had one before.
    #[serde(default)]
    pub restarted: bool,
}

/// Something a cell put out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeOutput {
    /// Text: standard output, results, tracebacks.
    Logs(String),
    /// A picture, stored as a file.
    Image(FileId),
}

/// A search that the model asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchCall {
    /// JSON text as the model wrote it: the queries.
    pub arguments: String,
    /// How results were ranked.
    pub ranker: String,
    /// Lowest score of a result.
    pub score_threshold: f64,
    /// Number of this search in its thread, which citations begin with.
    pub place: usize,
    /// What was found, best first; `None` until then.
    pub results: Option<Vec<SearchResult>>,
}

/// A passage that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// The file it is from.
    pub file: FileId,
    /// The file's name.
    pub file_name: String,
    /// 0 to 1.
    pub score: f64,
    /// The file's attributes in its store.
    pub attributes: Map<String, Value>,
    /// The page it begins on.
    pub page: Option<i32>,
    /// The heading it begins under.
    pub heading: Option<String>,
    /// Its text.
    pub content: String,
}

impl SearchCall {
    /// How the model cites result number `n` of this search.
    pub fn marker(&self, n: usize, file_name: &str) -> String {
        let name = name_in_marker(file_name);
        format!("\u{3010}{}:{n}\u{2020}{name}\u{3011}", self.place)
    }
}

/// A file's name as markers have it. They stand on one line, so line breaks and other control
/// characters become blanks.
pub fn name_in_marker(file_name: &str) -> String {
    let is_break = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}');
    file_name.replace(is_break, " ")
}
