//! How error responses of model servers are classified.

use super::*;
use crate::models::FailureCode;

fn error(status: u16, body: &str) -> UpstreamError {
    let status = StatusCode::from_u16(status).expect("the cases have valid statuses");
    ErrorObject::from_body(body).into_error("local", status, None)
}

#[test]
fn prompts_that_are_too_long_are_recognised_across_servers() {
    let openai = r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let vllm = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens","type":"BadRequestError","param":null,"code":400}"#;
    let llama = r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":4104,"n_ctx":4096}}"#;
    let cases = [
        (400, openai, Some(8_192)),
        (400, vllm, Some(4_096)),
        (400, llama, Some(4_096)),
        (
            500,
            r#"{"error":"the input length exceeds the context length"}"#,
            None,
        ),
        (
            400,
            r#"{"error":{"message":"litellm.ContextWindowExceededError: too long","code":"400"}}"#,
            None,
        ),
        (
            422,
            r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"}"#,
            None,
        ),
        (
            400,
            r#"{"message":"The input (5000 tokens) is longer than the model's context length (4096 tokens)."}"#,
            Some(4_096),
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            None,
        ),
        (
            413,
            "Please reduce the length of the messages or completion.",
            None,
        ),
    ];
    for (status, body, expected) in cases {
        let UpstreamError::ContextLength { limit, .. } = error(status, body) else {
            panic!("{body}")
        };
        assert_eq!(limit, expected, "{body}");
    }
}

#[test]
fn other_refusals_keep_their_meaning_and_code() {
    use FailureCode::InvalidPrompt;
    use FailureCode::RateLimitExceeded;
    use FailureCode::ServerError;
    let cases = [
        (
            400,
            r#"{"error":{"message":"bad","code":"x","param":"tools"}}"#,
            "invalid_request",
            InvalidPrompt,
            "bad",
        ),
        (
            404,
            r#"{"error":{"message":"no model"}}"#,
            "invalid_request",
            ServerError,
            "no model",
        ),
        (
            422,
            r#"{"detail":[{"loc":["body"],"msg":"m"}]}"#,
            "invalid_request",
            InvalidPrompt,
            r#"[{"loc":["body"],"msg":"m"}]"#,
        ),
        (
            401,
            r#"{"error":{"message":"wrong key sk-1"}}"#,
            "auth",
            ServerError,
            "The upstream `local` refused this server's credentials (status 401).",
        ),
        (
            429,
            r#"[{"error":{"message":"quota","status":"RESOURCE_EXHAUSTED"}}]"#,
            "rate_limited",
            RateLimitExceeded,
            "quota",
        ),
        (
            429,
            r#"{"error":{"message":"Request too large: maximum context length"}}"#,
            "rate_limited",
            RateLimitExceeded,
            "Request too large: maximum context length",
        ),
        (
            502,
            "<html>Bad gateway</html>",
            "unavailable",
            ServerError,
            "The upstream `local` answered with status 502.",
        ),
        (
            529,
            "",
            "unavailable",
            ServerError,
            "The upstream `local` answered with status 529.",
        ),
        (
            503,
            "out of order",
            "unavailable",
            ServerError,
            "out of order",
        ),
        (
            301,
            "",
            "broken",
            ServerError,
            "The upstream `local` answered with status 301; its base URL may be wrong.",
        ),
    ];
    for (status, body, kind, code, message) in cases {
        let error = error(status, body);
        assert_eq!(
            (error.kind(), error.failure_code(), error.message().as_str()),
            (kind, code, message),
            "{status} {body}"
        );
    }
}

#[test]
fn only_transient_failures_are_retried() {
    let cases = [
        (429, "{}", true),
        (429, r#"{"error":{"code":"insufficient_quota"}}"#, false),
        (408, "", true),
        (500, "", true),
        (503, "", true),
        (501, "", false),
        (400, "", false),
        (401, "", false),
        (404, "", false),
    ];
    for (status, body, is_transient) in cases {
        assert_eq!(
            error(status, body).retry_after().is_some(),
            is_transient,
            "{status} {body}"
        );
    }
}
