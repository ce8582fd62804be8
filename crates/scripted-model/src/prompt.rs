//! What the scripted model sees of a chat completion request.

use serde_json::Value;

/// The line of the system message that the files for code_interpreter follow, one a line:
/// `- /mnt/data/sales.csv (also /mnt/data/file-abc)`.
const FILES_HEADING: &str = "Files available to code_interpreter:";

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) model: String,
    /// The text of the last user message.
    pub(super) user: String,
    /// The texts of the user messages before it, latest first.
    pub(super) history: Vec<String>,
    /// System and developer messages.
    pub(super) instructions: String,
    /// The paths of the files for code_interpreter by their own names: first those that the user's
    /// message names, each kind latest first.
    pub(super) files: Vec<String>,
    /// The tool results at the very end of the conversation.
    pub(super) results: Vec<ToolResult>,
    /// How many user messages there are: 1 in the first turn of a conversation.
    pub(super) turn: u32,
    /// How many answers the model has given since the last user message.
    pub(super) step: u32,
    pub(super) functions: Vec<Function>,
    pub(super) tool_choice: ToolChoice,
    pub(super) parallel: bool,
    pub(super) format: Format,
    /// Longest answer in tokens.
    pub(super) max_tokens: Option<u32>,
    pub(super) stop: Vec<String>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// An offered function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) parameters: Value,
}

/// What a tool returned.
#[derive(Debug, PartialEq)]
pub(super) struct ToolResult {
    pub(super) name: String,
    pub(super) arguments: String,
    pub(super) output: String,
}

/// Whether the model must, may or must not call tools.
#[derive(Debug, PartialEq)]
pub(super) enum ToolChoice {
    Auto,
    None,
    Required,
    Function(String),
}

/// The form of the answer.
#[derive(Debug, PartialEq)]
pub(super) enum Format {
    Text,
    JsonObject,
    JsonSchema(Value),
}

impl Prompt {
    /// Reads a request.
    ///
    /// # Errors
    /// The message of a 400 when there are no messages.
    pub(super) fn read(request: &Value) -> Result<Self, String> {
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
            parallel: request["parallel_tool_calls"].as_bool().unwrap_or(true),
            format: format(&request["response_format"]),
            max_tokens: ["max_completion_tokens", "max_tokens"]
                .iter()
                .find_map(|field| request[field].as_u64())
                .map(|tokens| tokens.try_into().unwrap_or(u32::MAX)),
            stop: match &request["stop"] {
                Value::String(stop) => vec![stop.clone()],
                list => strings(list),
            },
            stream: request["stream"].as_bool().unwrap_or(false),
            include_usage: request["stream_options"]["include_usage"]
                .as_bool()
                .unwrap_or(false),
        })
    }

    pub(super) fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// The tool results as a sentence can hold them: one as it is, several with their names.
    pub(super) fn results_in_words(&self) -> String {
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
    let named = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        user.contains(&name.to_lowercase())
    };
    files.sort_by_key(|path| !named(path));
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

/// The text of a message's content: a string, or the text parts of a list.
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
