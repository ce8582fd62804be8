//! What scripts can say about files and code, and what the default script does with both.

use super::*;

/// A conversation with code_interpreter in which the test plays the tool.
struct Conversation {
    name: &'static str,
    models: ScriptedModels,
    messages: Vec<Value>,
}

impl Conversation {
    fn bundled(files: &[&str]) -> Self {
        Self::new(DEFAULT_MODEL, bundled(), files)
    }

    fn new(name: &'static str, models: ScriptedModels, files: &[&str]) -> Self {
        let mut instructions = "You are a data analyst.".to_owned();
        if !files.is_empty() {
            instructions.push_str("\n\nFiles available to code_interpreter:");
            for (number, name) in files.iter().enumerate() {
                instructions.push_str(&format!(
                    "\n- /mnt/data/{name} (also /mnt/data/file-{number})"
                ));
            }
            instructions.push_str("\n\nSomething else:\n- /mnt/data/other.csv");
        }
        let system = json!({ "role": "system", "content": instructions });
        Self {
            name,
            models,
            messages: vec![system],
        }
    }

    async fn ask(&mut self, message: &str) -> Answer {
        self.messages
            .push(json!({ "role": "user", "content": message }));
        self.turn().await
    }

    async fn output(&mut self, output: &str) -> Answer {
        let id =
            self.messages.last().expect("the model called a tool")["tool_calls"][0]["id"].clone();
        self.messages
            .push(json!({ "role": "tool", "tool_call_id": id, "content": output }));
        self.turn().await
    }

    async fn turn(&mut self) -> Answer {
        let parameters = json!({"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"], "additionalProperties": false});
        let tool = function("code_interpreter", parameters);
        let request = json!({ "model": self.name, "messages": self.messages, "tools": [tool] });
        let turn = ask(&self.models, request).await;
        let calls = turn.calls.iter().map(|(name, arguments)| json!(
            { "id": format!("c{}", self.messages.len()), "type": "function", "function": { "name": name, "arguments": arguments } }));
        let answer = json!({ "role": "assistant", "content": turn.text, "tool_calls": calls.collect::<Vec<_>>() });
        self.messages.push(answer);
        turn
    }

    async fn second_cell(question: &str) -> String {
        let mut talk = Self::bundled(&["sales.csv"]);
        let first = code(&talk.ask(question).await);
        assert!(first.contains("pd.read_csv"), "{question}: {first}");
        code(
            &talk
                .output("Loaded sales.csv: 2 rows, 3 columns\nmonth str\n")
                .await,
        )
    }
}

fn code(turn: &Answer) -> String {
    let [(name, arguments)] = turn.calls.as_slice() else {
        panic!("not one call: {turn:?}")
    };
    assert_eq!(name, "code_interpreter");
    let arguments: Value = serde_json::from_str(arguments).expect("the text is JSON");
    arguments["code"]
        .as_str()
        .expect("the argument is text")
        .to_owned()
}

#[tokio::test]
async fn a_rule_finds_the_file_that_is_named_or_else_the_latest() {
    let model = || {
        rules(
            r"
- when: { file: '(?P<stem>[^/]+)\.csv$' }
  then: { text: '{{file}} {{file.stem}} {{file.stem | quoted}}' }
- then: { text: none }
",
        )
    };
    let answer = async |files: &[&str], message: &str| {
        Conversation::new("scripted/t", model(), files)
            .ask(message)
            .await
            .text
    };
    let files = ["Old.csv", "a \"b\" (also c).csv", "notes.txt"];
    assert_eq!(
        answer(&files, "Look at it").await,
        r#"/mnt/data/a "b" (also c).csv a "b" (also c) "a \"b\" (also c)""#
    );
    assert_eq!(
        answer(&files, "Look at old.csv and notes.txt").await,
        r#"/mnt/data/Old.csv Old "Old""#
    );
    assert_eq!(answer(&["notes.txt"], "Look at it").await, "none");
    assert_eq!(answer(&[], "Look at /mnt/data/x.csv").await, "none");
}

#[tokio::test]
async fn a_table_is_loaded_then_analysed_and_the_answer_is_what_the_code_said() {
    let mut talk = Conversation::bundled(&["sales.csv"]);
    let question = "Which month was best,\nand which \"worst\"?";
    let load = code(&talk.ask(question).await);
    assert!(
        load.contains(r#"path = Path("/mnt/data/sales.csv")"#),
        "{load}"
    );
    let literal = r#"question = "Which month was best,\nand which \"worst\"?""#;
    assert!(load.contains(literal), "{load}");
    let analysis = code(
        &talk
            .output("Loaded sales.csv: 2 rows, 2 columns\nmonth str\n")
            .await,
    );
    assert!(analysis.contains("Best {label}"), "{analysis}");
    let findings = "Findings:\n- Best month: Jul (7)\n- Worst month: Aug (-1)\n";
    let last = talk.output(findings).await;
    assert!(last.calls.is_empty());
    assert_eq!(
        last.text,
        "I am assistd's scripted model. The code that I wrote by rules says about sales.csv:\n\n\
         - Best month: Jul (7)\n- Worst month: Aug (-1)"
    );
}

#[tokio::test]
async fn the_message_decides_what_is_done_with_a_table() {
    let plots = [
        "plot revenue over time and describe the trend",
        "Draw a bar chart",
        "Visualise it, please",
    ];
    for question in plots {
        let cell = Conversation::second_cell(question).await;
        assert!(
            cell.contains("plt.show()") && cell.contains("set_title"),
            "{question}: {cell}"
        );
    }
    for question in [
        "Save it as report.xlsx",
        "write the rows to `/mnt/data/out.tsv`",
        "Export it to Excel",
        "Can I have this as a spreadsheet?",
        "convert sales.csv to JSON",
        "Please create a new file with the sorted rows",
        "export it",
    ] {
        let cell = Conversation::second_cell(question).await;
        assert!(cell.contains("File: {target}"), "{question}: {cell}");
        assert!(!cell.contains("plt.show()"), "{question}: {cell}");
    }
    for question in [
        "What does sales.csv say?",
        "Summarise the file",
        "Which store did we make most in?",
        "Hello, which month was best?",
        "help me with it",
    ] {
        let cell = Conversation::second_cell(question).await;
        assert!(cell.contains("Best {label}"), "{question}: {cell}");
    }
}

#[tokio::test]
async fn a_written_file_is_linked_by_the_path_that_the_code_printed() {
    let mut talk = Conversation::bundled(&["sales.csv"]);
    talk.ask("export it").await;
    talk.output("[The Python session was restarted: files are there, variables are gone.]\nLoaded sales.csv: 2 rows, 2 columns\n").await;
    let output =
        "Findings:\n- x.csv has 2 rows.\nFile: /mnt/data/x.csv\n[Files written: /mnt/data/x.csv]";
    let last = talk.output(output).await;
    let expected =
        "about sales.csv:\n\n- x.csv has 2 rows.\n\n[Download x.csv](sandbox:/mnt/data/x.csv)";
    assert!(last.text.ends_with(expected), "{}", last.text);
}

#[tokio::test]
async fn a_failure_is_reported_and_nothing_is_made_up() {
    let failures = [
        (
            "---------\nFileNotFoundError                  Traceback (most recent call last)\nCell In[1], line 3\n----> 3 open('x')\n\nFileNotFoundError: [Errno 2] No such file: 'x'\n",
            "`FileNotFoundError: [Errno 2] No such file: 'x'`",
        ),
        (
            "Loaded x: 3 rows\nTraceback (most recent call last):\n  File \"x\"\npandas.errors.ParserError: bad line\n[Files written: /mnt/data/x.csv]",
            "`pandas.errors.ParserError: bad line`",
        ),
        (
            "  Cell In[1], line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n",
            "`SyntaxError: invalid syntax`",
        ),
        (
            "Traceback (most recent call last)\nKeyboardInterrupt: ",
            "`KeyboardInterrupt: `",
        ),
        (
            "Loaded sales.csv: 0 rows, 2 columns\n",
            "sales.csv has no rows",
        ),
        ("[The session was lost.]\n", "[The session was lost.]"),
    ];
    for (output, expected_text) in failures {
        let mut talk = Conversation::bundled(&["sales.csv"]);
        talk.ask("Which month was best?").await;
        let last = talk.output(output).await;
        assert!(
            last.text.contains(expected_text) && last.calls.is_empty(),
            "{output}: {last:?}"
        );
    }
}

#[tokio::test]
async fn sums_and_code_of_the_users_are_run() {
    let cases = [
        (
            "what is 2**100?",
            "print(2**100)",
            "1267\n",
            "2**100 = 1267",
        ),
        (
            "What's (1 + 2.5) * -3 =",
            "print((1 + 2.5) * -3)",
            "-10.5\n",
            "(1 + 2.5) * -3 = -10.5",
        ),
        ("17*3", "print(17*3)", "51", "17*3 = 51"),
        (
            "Run this code: x = 41",
            "x = 41",
            "[No output.]",
            "[No output.]",
        ),
        (
            "Try\n```python\nx = 1\nprint(x)\n```\nplease",
            "x = 1\nprint(x)",
            "1\n",
            "```\n1\n```",
        ),
        (
            "1/0",
            "print(1/0)",
            "Traceback (most recent call last)\nZeroDivisionError: division by zero",
            "`ZeroDivisionError: division by zero`",
        ),
    ];
    for (message, expected, output, expected_text) in cases {
        let mut talk = Conversation::bundled(&[]);
        assert_eq!(code(&talk.ask(message).await), expected, "{message}");
        let last = talk.output(output).await;
        assert!(
            last.text.contains(expected_text),
            "{message}: {}",
            last.text
        );
    }
    for message in [
        "Call 555-1234",
        "It was 2024-05-01 then",
        "write code",
        "Hello!",
    ] {
        let turn = Conversation::bundled(&[]).ask(message).await;
        assert!(turn.calls.is_empty(), "{message}: {turn:?}");
    }
}

#[tokio::test]
async fn a_demanded_call_is_valid_code_and_a_forbidden_one_is_not_made() {
    let tool = function("code_interpreter", json!({}));
    let request = |choice: &str| json!({ "model": DEFAULT_MODEL, "messages": user("say \"hi\""), "tools": [tool], "tool_choice": choice });
    let model = script("models: {}");
    assert_eq!(
        code(&ask(&model, request("required")).await),
        r#"print("say \"hi\"")"#
    );
    let forbidden = ask(&model, request("none")).await;
    assert!(forbidden.calls.is_empty() && !forbidden.text.is_empty());
}
