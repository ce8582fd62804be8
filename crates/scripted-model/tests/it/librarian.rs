//! What the default script does with file_search.

use super::*;

const PASSAGES: &str = "【4:0†policy.md】 under \"Refunds\"\nGoods may be returned within 30 days.\n\n\
                        【4:1†cat.txt】\nThe cat is called Miso.\n\n[Put the marker behind it.]";

fn tool(name: &str) -> Value {
    let parameters = match name {
        "file_search" => json!({
            "type": "object",
            "properties": { "queries": { "type": "array", "items": { "type": "string" } } },
            "required": ["queries"],
        }),
        "code_interpreter" => json!({
            "type": "object",
            "properties": { "code": { "type": "string" } },
            "required": ["code"],
        }),
        _ => {
            json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] })
        }
    };
    function(name, parameters)
}

async fn first(tools: &[&str], message: &str, more: Value) -> Answer {
    let tools: Vec<Value> = tools.iter().map(|name| tool(name)).collect();
    let mut request = json!({ "model": DEFAULT_MODEL, "messages": user(message), "tools": tools });
    let fields = request.as_object_mut().expect("the request is an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    ask(&bundled(), request).await
}

async fn called(tools: &[&str], message: &str) -> String {
    let turn = first(tools, message, json!({})).await;
    match turn.calls.as_slice() {
        [] => turn.text,
        calls => calls
            .iter()
            .map(|(name, arguments)| format!("{name} {arguments}"))
            .collect(),
    }
}

async fn answer(question: &str, result: &str) -> String {
    let call = json!({ "id": "c", "type": "function", "function": { "name": "file_search", "arguments": "{}" } });
    let messages = json!([
        { "role": "user", "content": question },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c", "content": result },
    ]);
    let request =
        json!({ "model": DEFAULT_MODEL, "messages": messages, "tools": [tool("file_search")] });
    let turn = ask(&bundled(), request).await;
    assert_eq!(turn.calls, []);
    turn.text
}

#[tokio::test]
async fn questions_and_talk_of_files_are_searched_for() {
    for message in [
        "What is the refund policy?",
        "Hello! How long does delivery take?",
        "Can you help me find out who the boss is?",
        "Tell me about refunds.",
        "I need a summary of the attached document",
        "Search the files for \"Miso\"",
        "explain\nthe whole thing",
    ] {
        let expected = format!("file_search {}", json!({ "queries": [message] }));
        assert_eq!(called(&["file_search"], message).await, expected);
    }
}

#[tokio::test]
async fn chat_needs_no_search() {
    for (message, beginning) in [
        ("Hello", "Hello! I am assistd's scripted model."),
        (
            "Hello! Who are you?",
            "I am assistd's scripted model: a set",
        ),
        ("What can you do?", "I am assistd's scripted model: a set"),
        (
            "I like turtles.",
            "I am assistd's scripted model, so I answer by rules",
        ),
    ] {
        let text = called(&["file_search"], message).await;
        assert!(text.starts_with(beginning), "{message}: {text}");
    }
    let unsearched = called(&[], "What is the refund policy?").await;
    assert!(unsearched.contains("do not understand"), "{unsearched}");
}

#[tokio::test]
async fn functions_and_tables_come_before_the_search() {
    let tools = ["file_search", "get_weather"];
    let weather = called(&tools, "What is the weather in Oslo?").await;
    assert_eq!(weather, r#"get_weather {"city":"Oslo"}"#);
    let search = called(&tools, "What do the files say of refunds?").await;
    assert!(search.starts_with("file_search "), "{search}");

    let with_file = async |name: &str, question: &str| {
        let system = format!("Files available to code_interpreter:\n- /mnt/data/{name}");
        let messages = json!([{ "role": "system", "content": system }, { "role": "user", "content": question }]);
        let tools = ["code_interpreter", "file_search"];
        first(&tools, question, json!({ "messages": messages }))
            .await
            .calls[0]
            .0
            .clone()
    };
    let question = "Which month was best?";
    assert_eq!(with_file("sales.csv", question).await, "code_interpreter");
    assert_eq!(with_file("manual.pdf", question).await, "file_search");
    assert_eq!(with_file("manual.pdf", "Hm.").await, "code_interpreter");
}

#[tokio::test]
async fn a_search_that_is_demanded_is_made_and_one_that_is_forbidden_is_not() {
    let demanded =
        json!({ "tool_choice": { "type": "function", "function": { "name": "file_search" } } });
    let turn = first(&["file_search"], "I like turtles.", demanded).await;
    assert_eq!(turn.calls.len(), 1);
    let forbidden = json!({ "tool_choice": "none" });
    let turn = first(&["file_search"], "What is the refund policy?", forbidden).await;
    assert_eq!(turn.calls, []);
}

#[tokio::test]
async fn the_answer_quotes_the_passage_that_fits_with_its_marker() {
    assert_eq!(
        answer("May goods be returned?", PASSAGES).await,
        "I am assistd's scripted model, so I quote what I found in the files:\n\n\
         “Goods may be returned within 30 days.”【4:0†policy.md】"
    );
    let second = answer("What is the cat called?", PASSAGES).await;
    assert!(
        second.ends_with("\n\n“The cat is called Miso.”【4:1†cat.txt】"),
        "{second}"
    );
    let nothing = answer(
        "Quo vadis?",
        "[Nothing was found. Other words may find it.]",
    )
    .await;
    assert!(nothing.contains("nothing in them fits"), "{nothing}");
}
