//! Settings of runs reach the model unchanged, to the last digit.

use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::Db;
use crate::event_stream::TERMINAL;
use crate::fake_model::FakeModel;
use crate::server::Server;

struct ModelFixture {
    model: FakeModel,
    client: Client,
    _server: Server,
    _db: Db,
}

impl ModelFixture {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let db = Db::new().await;
        let model = FakeModel::start().await;
        let server = Server::start(&db, &[&model.settings()[..], settings].concat()).await;
        Self {
            model,
            client: server.client(),
            _server: server,
            _db: db,
        }
    }

    /// Executes a run with these settings; the request that the model received.
    async fn request(&self, settings: &Value) -> Value {
        let mut body = json!({"model": "fake"});
        let fields = settings.as_object().expect("settings are an object");
        for (name, value) in fields {
            // Assistants do not have these settings.
            if ![
                "tool_choice",
                "parallel_tool_calls",
                "max_completion_tokens",
            ]
            .contains(&&**name)
            {
                body[name] = value.clone();
            }
        }
        let assistant = self.client.create_assistant_with(body.clone()).await;
        let thread = self.client.create_thread("Hello?").await;
        let mut run = json!({"assistant_id": assistant});
        for (name, value) in fields.iter().filter(|(name, _)| body.get(name).is_none()) {
            run[name] = value.clone();
        }
        let path = format!("/threads/{thread}/runs");
        let run = self.client.post(&path, run).await;
        let call = self.model.next_call().await;
        let request = call.request.clone();
        call.answer_text("Hello!").await;
        let run = run["id"].as_str().expect("the first column is the id");
        let ended = self.client.wait_for_status(&thread, run, &TERMINAL).await;
        assert_eq!(ended["status"], "completed", "{settings}: {ended}");
        request
    }
}

/// Replaces numbers by floats, so that 1 equals 1.0.
fn with_equal_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(with_equal_numbers).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), with_equal_numbers(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A function definition with every field.
fn function(name: &str) -> Value {
    json!({"type": "function", "function": {
        "name": name,
        "description": "Says \"hello\".\u{fffd}\n",
        "parameters": {
            "type": "object", "x-own": [0.1, 1e-7, 12345678901234567_u64, null, true],
            "required": ["b", "a"], "additionalProperties": false, "$defs": {"n": {"multipleOf": 0.3}},
            "properties": {"b": {"$ref": "#/$defs/n"}, "a": {"enum": ["", 1, 2.5]}},
        },
        "strict": true,
    }})
}

#[tokio::test]
async fn every_setting_reaches_the_model_as_it_was_given() {
    let fixture = ModelFixture::new(&[]).await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "number", "minimum": 0.7}}});
    let named = |fields: Value| {
        let mut format = json!({"name": "x"});
        for (name, value) in fields.as_object().into_iter().flatten() {
            format[name] = value.clone();
        }
        json!({"response_format": {"type": "json_schema", "json_schema": format}})
    };
    let mut cases = vec![
        json!({"response_format": {"type": "text"}}),
        json!({"response_format": {"type": "json_object"}}),
        named(json!({})),
        named(json!({"strict": false})),
        named(json!({"description": "d", "strict": true, "schema": schema})),
        named(json!({"schema": {"anyOf": [{"type": "null"}, {"x-own": 1e300}]}})),
        json!({"tools": [function("f"), function("g")]}),
        json!({"max_completion_tokens": 4_000_000_000_u32}),
    ];
    let with_tools = |mut settings: Value| {
        settings["tools"] = json!([function("f")]);
        settings
    };
    let choice = json!({"type": "function", "function": {"name": "f"}});
    for choice in [json!("none"), json!("required"), choice] {
        cases.push(with_tools(json!({"tool_choice": choice})));
    }
    cases.push(with_tools(json!({"parallel_tool_calls": false})));
    for effort in ["none", "minimal", "low", "medium", "high", "xhigh", "max"] {
        cases.push(json!({"reasoning_effort": effort}));
    }
    for number in [
        "0",
        "1",
        "2",
        "0.1",
        "0.7",
        "1.3",
        "0.9452706955539223",
        "0.3333333333333333",
        "1e-9",
    ] {
        let number: Value = serde_json::from_str(number).expect("the value is a number");
        cases.push(json!({"temperature": number}));
        if number.as_f64().is_some_and(|number| number <= 1.0) {
            cases.push(json!({"top_p": number}));
        }
    }
    for mut settings in cases {
        let mut request = fixture.request(&settings).await;
        settings["model"] = json!("fake");
        settings["stream"] = json!(true);
        settings["stream_options"] = json!({"include_usage": true});
        settings["messages"] = json!([{"role": "user", "content": "Hello?"}]);
        assert_eq!(with_equal_numbers(&request), with_equal_numbers(&settings));
        // The order of keys matters as well: models fill in a schema in this order.
        for name in ["response_format", "tools"] {
            let order = |value: &mut Value| value[name].take().to_string();
            assert_eq!(order(&mut request), order(&mut settings));
        }
    }
}

#[tokio::test]
async fn settings_that_say_nothing_are_not_sent() {
    let fixture = ModelFixture::new(&[]).await;
    let nothing = json!({
        "response_format": "auto", "temperature": null, "top_p": null, "reasoning_effort": null,
        "tool_choice": "auto", "parallel_tool_calls": false,
    });
    let request = fixture.request(&nothing).await;
    let names: Vec<&String> = request
        .as_object()
        .expect("the request is an object")
        .keys()
        .collect();
    assert_eq!(names, ["model", "messages", "stream", "stream_options"]);
}

#[tokio::test]
async fn pictures_have_a_bound_together() {
    let fixture = ModelFixture::new(&[("ASSISTD_MAX_PROMPT_PICTURE_BYTES", "1KiB")]).await;
    let assistant = fixture
        .client
        .create_assistant_with(json!({"model": "fake"}))
        .await;
    let picture = [&b"\x89PNG\r\n\x1a\n"[..], &[0; 592]].concat();
    let picture = fixture.client.upload("a.png", picture).await;
    let image = json!({"type": "image_file", "image_file": {"file_id": picture["id"]}});
    let run = async |content: Value| {
        let messages = json!([{"role": "user", "content": content}]);
        let body = json!({"assistant_id": assistant, "thread": {"messages": messages}});
        let run = fixture.client.post("/threads/runs", body).await;
        let name = |field: &str| run[field].as_str().expect("a run has ids").to_owned();
        (name("thread_id"), name("id"))
    };
    let (thread, one) = run(json!([image])).await;
    let call = fixture.model.next_call().await;
    let sent = call.request["messages"][0]["content"][0].to_string();
    assert!(sent.contains("data:image/png;base64,"), "{sent}");
    call.answer_text("One.").await;
    fixture
        .client
        .wait_for_status(&thread, &one, &["completed"])
        .await;
    let (thread, two) = run(json!([image, image])).await;
    let failed = fixture
        .client
        .wait_for_status(&thread, &two, &TERMINAL)
        .await;
    assert_eq!(failed["last_error"]["code"], "invalid_prompt", "{failed}");
    let message = failed["last_error"]["message"].to_string();
    assert!(
        message.contains("more than 1024 bytes")
            && message.contains("ASSISTD_MAX_PROMPT_PICTURE_BYTES"),
        "{message}"
    );
}
