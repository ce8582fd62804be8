//! code_interpreter as models see it: a function definition, and the outputs of its calls.

use async_openai::types::chat::{ChatCompletionTool, ChatCompletionTools, FunctionObject};
use serde_json::json;

use crate::domain::run::RunConfig;
use crate::domain::tool::{CodeCall, CodeOutput, Tool};
use crate::engine::truncate::truncate_middle;

pub(in crate::engine) const NAME: &str = "code_interpreter";

/// The name under which some models were trained to call it.
pub(in crate::engine) const ALIAS: &str = "python";

/// Longer outputs of a call are truncated in the middle.
const MAX_OUTPUT_BYTES: usize = 32 << 10;

const DESCRIPTION: &str = "\
Runs Python code in a stateful notebook and returns what it prints and the value of its last \
expression. Variables, imports and files stay for the rest of the conversation. Use it for \
calculations, for analysing data and files, for charts, and whenever an answer can be computed \
instead of guessed. Files from the user are in /mnt/data. Figures made with matplotlib are shown \
to the user: call plt.show(), and do not save a figure only to show it. To give the user a file, \
write it to /mnt/data and link to it in your answer as [name](sandbox:/mnt/data/name). numpy, \
pandas, matplotlib, scipy, scikit-learn, openpyxl and other usual packages for data are installed. \
There is no internet access, and no package can be installed.";

pub(in crate::engine) fn definition() -> ChatCompletionTools {
    ChatCompletionTools::Function(ChatCompletionTool {
        function: FunctionObject {
            name: NAME.to_owned(),
            description: Some(DESCRIPTION.to_owned()),
            parameters: Some(json!({
                "type": "object",
                "properties": {
                    "code": {
                        "type": "string",
                        "description": "The Python code of the cell.",
                    },
                },
                "required": ["code"],
                "additionalProperties": false,
            })),
            strict: None,
        },
    })
}

pub(in crate::engine) fn is_offered(config: &RunConfig) -> bool {
    config.tools.contains(&Tool::CodeInterpreter)
}

/// Whether a call of this name is one to code_interpreter. The caller's functions of the same name
/// come first.
pub(in crate::engine) fn is_call_to(config: &RunConfig, name: &str) -> bool {
    let function = |tool: &Tool| match tool {
        Tool::Function { function } => function.name == name,
        Tool::CodeInterpreter | Tool::FileSearch { .. } => false,
    };
    (name == NAME || name == ALIAS) && is_offered(config) && !config.tools.iter().any(function)
}

pub(in crate::engine) fn arguments(code: &str) -> String {
    json!({ "code": code }).to_string()
}

pub(in crate::engine) fn output_for_model(call: &CodeCall) -> Option<String> {
    let outputs = call.outputs.as_ref()?;
    let mut lines: Vec<&str> = Vec::new();
    if call.restarted {
        lines.push("[The Python session was restarted: files are there, variables are gone.]");
    }
    for output in outputs {
        lines.push(match output {
            CodeOutput::Logs(logs) => logs.trim_end_matches('\n'),
            CodeOutput::Image(_) => "[The picture was shown to the user.]",
        });
    }
    if outputs.is_empty() {
        lines.push("[No output.]");
    }
    lines.extend(call.notes.iter().map(String::as_str));
    let text = lines.join("\n");
    Some(if text.len() > MAX_OUTPUT_BYTES {
        truncate_middle(&text, MAX_OUTPUT_BYTES)
    } else {
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::FileId;

    #[test]
    fn a_model_is_told_all_that_came_of_its_code() {
        let mut call = CodeCall {
            input: "1".into(),
            outputs: Some(vec![
                CodeOutput::Logs("4\n".into()),
                CodeOutput::Image(FileId::generate()),
            ]),
            notes: vec!["[Files written: /mnt/data/a.csv]".into()],
            restarted: true,
        };
        let output = output_for_model(&call).expect("the call has outputs");
        let lines: Vec<&str> = output.lines().collect();
        assert!(lines[0].contains("variables are gone"));
        assert_eq!(
            lines[1..],
            [
                "4",
                "[The picture was shown to the user.]",
                "[Files written: /mnt/data/a.csv]"
            ]
        );
        call.outputs = Some(vec![CodeOutput::Logs("x".repeat(MAX_OUTPUT_BYTES * 3))]);
        let truncated = output_for_model(&call).expect("the call has outputs");
        assert!(truncated.len() < MAX_OUTPUT_BYTES + 200 && truncated.contains("left out"));
        call.outputs = None;
        assert_eq!(output_for_model(&call), None);
    }
}
