//! The parts of a chat completion request that rules refer to.

use serde_json::Value;

/// The line of the system message before the list of files for code_interpreter, whose lines read
/// `- /mnt/data/sales.csv (also /mnt/data/file-abc)`.
const FILES_HEADING: &str = "Files available to code_interpreter:";

#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) model: String,
    /// The text of the last user message.
    pub(crate) user: String,
    /// The texts of the earlier user messages, latest first.
    pub(crate) history: Vec<String>,
    /// The texts of system and developer messages.
    pub(crate) instructions: String,
    /// The paths of the files for code_interpreter: first those that the last user message names,
    /// then the others, both latest first.
    pub(crate) files: Vec<String>,
    /// The tool results at the end of the conversation.
    pub(crate) results: Vec<ToolResult>,
    /// The number of user messages.
    pub(crate) turn: u32,
    /// The number of assistant messages since the last user message.
    pub(crate) step: u32,
    pub(crate) functions: Vec<Function>,
    pub(crate) tool_choice: ToolChoice,
    pub(crate) allows_parallel_calls: bool,
    pub(crate) format: Format,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) stop: Vec<String>,
    pub(crate) is_streamed: bool,
    pub(crate) includes_usage: bool,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) parameters: Value,
}

#[derive(Debug, PartialEq)]
pub(crate) struct ToolResult {
    pub(crate) name: String,
    pub(crate) arguments: String,
    pub(crate) output: String,
}

#[derive(Debug, PartialEq)]
pub(crate) enum ToolChoice {
    Auto,
    None,
    Required,
    Function(String),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Format {
    Text,
    JsonObject,
    JsonSchema(Value),
}

impl Prompt {
    /// Reads a request.
    ///
    /// # Errors
    /// When there are no messages; the text is for the client.
    pub(crate) fn read(request: &Value) -> Result<Self, String> {
        let messages = request["messages"]
            .as_array()
            .filter(|messages| !messages.is_empty())
            .ok_or("'messages' must be a list with at least one message.")?;
        let role = |message: &Value, role: &str| message["role"] == role;
        let mut user: Vec<String> = messages
            .iter()
            .rev()
            .filter(|message| role(message, "user"))
            .map(|message| text(&message["content"]))
            .collect();
        let turn = user.len() as u32;
        let history = user.split_off(user.len().min(1));
        let since_user = messages
            .iter()
            .rev()
            .take_while(|message| !role(message, "user"));
        let instructions: Vec<String> = messages
            .iter()
            .filter(|message| role(message, "system") || role(message, "developer"))
            .map(|message| text(&message["content"]))
            .collect();
        let user = user.pop().unwrap_or_default();
        let instructions = instructions.join("\n");
        Ok(Self {
            model: request["model"].as_str().unwrap_or_default().to_owned(),
            files: files(&instructions, &user),
            user,
            history,
            instructions,
            results: results(messages),
            turn,
            step: since_user
                .filter(|message| role(message, "assistant"))
                .count() as u32,
            functions: functions(&request["tools"]),
            tool_choice: tool_choice(&request["tool_choice"]),
            allows_parallel_calls: request["parallel_tool_calls"].as_bool().unwrap_or(true),
            format: format(&request["response_format"]),
            max_tokens: ["max_completion_tokens", "max_tokens"]
                .iter()
                .find_map(|field| request[field].as_u64())
                .map(|tokens| tokens.try_into().unwrap_or(u32::MAX)),
            stop: match &request["stop"] {
                Value::String(stop) => vec![stop.clone()],
                list => strings(list),
            },
            is_streamed: request["stream"].as_bool().unwrap_or(false),
            includes_usage: request["stream_options"]["include_usage"]
                .as_bool()
                .unwrap_or(false),
        })
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// The outputs of the tools: one as it is, several as `name: output; name: output`.
    pub(crate) fn results_as_text(&self) -> String {
        match self.results.as_slice() {
            [only] => only.output.clone(),
            several => {
                let lines = several
                    .iter()
                    .map(|result| format!("{}: {}", result.name, result.output));
                lines.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

fn results(messages: &[Value]) -> Vec<ToolResult> {
    let start = messages
        .iter()
        .rposition(|message| message["role"] != "tool")
        .map_or(0, |i| i + 1);
    let calls = match start.checked_sub(1) {
        Some(before) => messages[before]["tool_calls"]
            .as_array()
            .map_or(&[][..], Vec::as_slice),
        None => &[],
    };
    messages[start..]
        .iter()
        .map(|message| {
            let call = calls
                .iter()
                .find(|call| call["id"] == message["tool_call_id"]);
            let field = |name: &str| {
                call.and_then(|call| call["function"][name].as_str())
                    .unwrap_or_default()
                    .to_owned()
            };
            ToolResult {
                name: field("name"),
                arguments: field("arguments"),
                output: text(&message["content"]),
            }
        })
        .collect()
}

fn files(instructions: &str, user: &str) -> Vec<String> {
    let user = user.to_lowercase();
    let lines = instructions
        .lines()
        .skip_while(|line| *line != FILES_HEADING)
        .skip(1);
    let mut files: Vec<String> = lines
        .map_while(|line| line.strip_prefix("- "))
        .map(|line| line.rsplit_once(" (also ").map_or(line, |(path, _)| path))
        .map(str::to_owned)
        .collect();
    files.reverse();
    let is_named = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        user.contains(&name.to_lowercase())
    };
    files.sort_by_key(|path| !is_named(path));
    files
}

fn functions(tools: &Value) -> Vec<Function> {
    let tools = tools.as_array().into_iter().flatten();
    tools
        .filter_map(|tool| {
            let function = &tool["function"];
            Some(Function {
                name: function["name"].as_str()?.to_owned(),
                description: function["description"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                parameters: function["parameters"].clone(),
            })
        })
        .collect()
}

fn tool_choice(choice: &Value) -> ToolChoice {
    match choice.as_str() {
        Some("none") => ToolChoice::None,
        Some("required") => ToolChoice::Required,
        Some(_) => ToolChoice::Auto,
        None => match choice["function"]["name"].as_str() {
            Some(name) => ToolChoice::Function(name.to_owned()),
            None => ToolChoice::Auto,
        },
    }
}

fn format(format: &Value) -> Format {
    match format["type"].as_str() {
        Some("json_object") => Format::JsonObject,
        Some("json_schema") => Format::JsonSchema(format["json_schema"]["schema"].clone()),
        Some(_) | None => Format::Text,
    }
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}
