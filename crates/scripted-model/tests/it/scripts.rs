//! Whether a script is valid.

use super::*;

fn refusal(yaml: &str) -> String {
    let refusal = ScriptedModels::parse(yaml, "ci.yaml").err();
    refusal.expect("the script is not valid").to_string()
}

#[test]
fn an_invalid_script_is_refused_with_place_and_reason() {
    let rule = |rule: &str| refusal(&format!("models:\n  ci:\n    rules:\n      - {rule}\n"));
    let cases = [
        (
            rule("{ name: a, when: { usr: x }, then: { text: x } }"),
            "models.ci.rules[0].when: unknown field `usr`",
        ),
        (
            rule("{ when: { turn: soon }, then: { text: x } }"),
            "models.ci.rules[0].when.turn: invalid value: string \"soon\", expected a number such as `2`, `2+` or `1-3`",
        ),
        (
            rule("{ then: { text: x, latency: 3 parsecs } }"),
            "models.ci.rules[0].then: ",
        ),
        (
            rule("{ name: a, when: { user: '(' }, then: { text: x } }"),
            "model `ci`: rule 1 (`a`): when.user: regex parse error",
        ),
        (
            rule("{ then: {} }"),
            "model `ci`: rule 1: then: gives no answer",
        ),
        (
            rule("{ then: { text: a, refusal: b } }"),
            "rule 1: then: give one of `text`, `refusal` and `generate_json`",
        ),
        (
            rule("{ then: { text: '{{user.city}}' } }"),
            "rule 1: then.text: `{{user.city}}`: `when.user` has no group `city`",
        ),
        (
            rule("{ then: { text: '{{usr}}' } }"),
            "then.text: `{{usr}}`: there is no value `usr`",
        ),
        (
            rule("{ then: { text: '{{user' } }"),
            "then.text: `{{user` is not closed by `}}`",
        ),
        (
            rule("{ then: { text: '{{user | upper}}' } }"),
            "there is no filter `upper`, only `json`, `quoted` and `quotes`",
        ),
        (
            rule("{ when: { user: '(?P<name>x)' }, then: { text: '{{file.name}}' } }"),
            "then.text: `{{file.name}}`: `when.file` has no group `name`",
        ),
        (
            rule("{ then: { tool_calls: [{ name: f, arguments: { a: '{{x}}' } }] } }"),
            "then.tool_calls[0].arguments: `{{x}}`",
        ),
        (
            rule("{ then: { text: x, fault: { times: 1 } } }"),
            "then.fault: give exactly one of",
        ),
        (
            rule("{ then: { text: x, fault: { http_error: { status: 200 } } } }"),
            "then.fault: http_error.status: 200 is not an error status",
        ),
        (
            rule("{ then: { fault: { disconnect_after: 1 } } }"),
            "then.fault: there is no answer to break off",
        ),
        (
            rule("{ then: { text: x, tokens_per_second: 0 } }"),
            "then.tokens_per_second: must be more than 0",
        ),
        (refusal("models: []"), "models: invalid type"),
    ];
    for (message, expected) in cases {
        assert!(
            message.starts_with("ci.yaml: ") && message.contains(expected),
            "{message}\nlacks {expected}"
        );
    }
}

#[tokio::test]
async fn the_documentation_shows_scripts_that_work() {
    let text = include_str!("../../../../docs/scripted-model.md");
    let blocks = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let scripts: Vec<ScriptedModels> = blocks.map(script).collect();
    let [weather, counter, librarian, flaky] = scripts.as_slice() else {
        panic!("four scripts")
    };
    let request = json!({ "model": "scripted/weather", "messages": user("Weather in Oslo?") });
    let call = ("get_weather".to_owned(), r#"{"city":"Oslo"}"#.to_owned());
    assert_eq!(ask(weather, request).await.calls, [call]);
    let files = "Files available to code_interpreter:\n- /mnt/data/a.csv (also /mnt/data/file-1)";
    let request = json!({
        "model": "scripted/counter",
        "messages": [{"role": "system", "content": files}, {"role": "user", "content": "Count"}],
        "tools": [function("code_interpreter", json!({}))],
    });
    let calls = ask(counter, request).await.calls;
    assert!(
        calls[0].1.contains(r#"open(\"/mnt/data/a.csv\").read()"#),
        "{calls:?}"
    );
    let passages = "【4:0†my returns.md】 page 2\nGoods may be returned.\n\n[Put it behind.]";
    let request = json!({
        "model": "scripted/librarian",
        "messages": [
            {"role": "user", "content": "May goods be returned?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function",
                "function": {"name": "file_search", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": passages},
        ],
        "tools": [function("file_search", json!({}))],
    });
    assert_eq!(
        ask(librarian, request).await.text,
        "See 【4:0†my returns.md】. It says: “Goods may be returned.”【4:0†my returns.md】"
    );
    let request = json!({ "model": "scripted/flaky", "messages": user("break off") });
    assert_eq!(ask(flaky, request).await.text, "This answer is");
}
