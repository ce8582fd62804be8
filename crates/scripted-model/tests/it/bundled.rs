//! The bundled script as a demonstration that needs no model server.

use super::*;

fn weather() -> Value {
    function(
        "get_current_weather",
        json!({"type": "object", "properties": {"location": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}, "required": ["location"]}),
    )
}

async fn ask_bundled(request: Value) -> Answer {
    let mut request = request;
    request["model"] = json!("scripted/default");
    ask(&bundled(), request).await
}

#[tokio::test]
async fn it_says_what_it_is() {
    for message in ["Hello", "Tell me a joke", "What can you do?"] {
        let turn = ask_bundled(json!({ "messages": user(message) })).await;
        assert!(turn.text.contains("scripted model"), "{}", turn.text);
        assert!(turn.text_deltas > 10);
    }
}

#[tokio::test]
async fn it_calls_what_the_message_speaks_of() {
    let time = function(
        "get_time",
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
    );
    let mail = json!({"type": "function", "function": {"name": "notify", "description": "Send an e-mail to someone", "parameters": {"type": "object", "properties": {"recipient": {"type": "string"}}, "required": ["recipient"]}}});
    let call = async |message: &str| {
        let tools = json!([weather(), time, mail]);
        let turn = ask_bundled(json!({ "messages": user(message), "tools": tools })).await;
        turn.calls
            .into_iter()
            .map(|(name, arguments)| format!("{name}{arguments}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        call("What's the weather in San Francisco?").await,
        [r#"get_current_weather{"location":"San Francisco"}"#]
    );
    assert_eq!(
        call("What is the weather in Paris and London in celsius?").await,
        [
            r#"get_current_weather{"location":"Paris","unit":"celsius"}"#,
            r#"get_current_weather{"location":"London","unit":"celsius"}"#
        ]
    );
    assert_eq!(
        call("Tell me the time and the weather in Tokyo").await,
        [
            r#"get_current_weather{"location":"Tokyo"}"#,
            r#"get_time{"city":"Tokyo"}"#
        ]
    );
    assert_eq!(
        call("Please send this to Ann").await,
        [r#"notify{"recipient":"Ann"}"#]
    );
    assert!(call("How are you today?").await.is_empty());
}

#[tokio::test]
async fn it_repeats_what_the_tool_returned() {
    let messages = json!([
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_current_weather", "arguments": "{\"location\":\"Paris\"}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees and sunny"}]);
    let turn = ask_bundled(json!({ "messages": messages, "tools": [weather()] })).await;
    assert!(turn.text.contains("18 degrees and sunny"), "{}", turn.text);
    assert!(turn.calls.is_empty());
}

#[tokio::test]
async fn it_remembers_a_name_and_writes_json() {
    let messages = json!([{"role": "user", "content": "Hi, my name is Ada."}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "What's my name?"}]);
    let turn = ask_bundled(json!({ "messages": messages })).await;
    assert!(turn.text.contains("Ada"), "{}", turn.text);
    let format = json!({"type": "json_object"});
    let turn = ask_bundled(
        json!({ "messages": user("Hello, in JSON please"), "response_format": format }),
    )
    .await;
    assert!(
        serde_json::from_str::<Value>(&turn.text)
            .expect("the text is JSON")
            .is_object()
    );
}
