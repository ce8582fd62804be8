//! The faults of a script.

use super::*;

#[tokio::test]
async fn faults_happen_as_often_as_they_should_to_each_key() {
    let model = rules(
        r"
- when: { user: 'flaky (\w+)' }
  then:
    text: recovered
    fault: { http_error: { status: 429, retry_after: 1500ms }, times: 2, key: '{{user.1}}' }
- when: { user: once }
  then: { fault: { http_error: { status: 503, message: 'Out to lunch.' }, times: 1 } }
- when: { user: quota }
  then: { fault: { http_error: { status: 429, code: insufficient_quota } } }
- then: { text: fallen through }
",
    );
    let ask_text = async |message: &str| ask(&model, json!({ "messages": user(message) })).await;
    for key in ["a", "b"] {
        for _ in 0..2 {
            let Some(Failure::Status(429, error, retry_after)) =
                ask_text(&format!("flaky {key}")).await.failure
            else {
                panic!("not a rate limit")
            };
            assert_eq!(error["code"], "rate_limit_exceeded");
            assert_eq!(retry_after, Some(Duration::from_millis(1500)));
        }
        assert_eq!(ask_text(&format!("flaky {key}")).await.text, "recovered");
        assert_eq!(ask_text(&format!("flaky {key}")).await.text, "recovered");
    }
    let once = ask_text("once").await;
    assert_eq!(once.status(), Some(503));
    assert_eq!(once.error()["message"], "Out to lunch.");
    assert_eq!(ask_text("once").await.text, "fallen through");
    for _ in 0..3 {
        assert_eq!(
            ask_text("quota").await.error()["code"],
            "insufficient_quota"
        );
    }
}

#[tokio::test]
async fn answers_break_off_where_they_should() {
    let model = rules(
        "
- when: { user: gone }
  then: { text: 'one two three', fault: { disconnect_after: 2 } }
- when: { user: garbage }
  then: { text: 'one two three', fault: { garbage_after: 1 } }
- when: { user: error }
  then: { text: 'one two three', fault: { error_after: 3 } }
",
    );
    let ask_text = async |message: &str| ask(&model, json!({ "messages": user(message) })).await;
    let gone = ask_text("gone").await;
    assert_eq!(gone.text, "one two");
    assert_eq!(gone.failure, Some(Failure::ConnectionLost));
    let garbage = ask_text("garbage").await;
    assert_eq!(garbage.text, "one");
    assert_eq!(garbage.failure, Some(Failure::Garbage));
    let error = ask_text("error").await;
    assert_eq!((error.text.as_str(), error.finish()), ("one two three", ""));
    assert!(matches!(error.failure, Some(Failure::ErrorEvent(_))));
}

#[tokio::test]
async fn long_prompts_do_not_fit() {
    let model = script(
        "
models:
  small: { context_window: 20, rules: [{ then: { text: fits } }] }
  t: { rules: [{ then: { text: fits, fault: { context_length: 20 } } }] }
",
    );
    assert_eq!(model.context_window("scripted/small"), Some(20));
    for name in ["scripted/small", "scripted/t"] {
        let request = |message: &str| json!({ "model": name, "messages": user(message) });
        assert_eq!(text(&model, request("short")).await, "fits");
        let turn = ask(&model, request(&"long ".repeat(30))).await;
        assert_eq!(turn.status(), Some(400));
        assert_eq!(turn.error()["code"], "context_length_exceeded");
        let message = turn.error()["message"].to_string();
        assert!(message.contains("20 tokens") && message.contains("30 tokens"));
    }
}
