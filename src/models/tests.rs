//! Turns and passed-on requests against a real HTTP server.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use async_openai::types::chat::ChatCompletionRequestUserMessage;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{Request, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::body::read_body;
use super::*;

struct ModelServer {
    address: SocketAddr,
    state: Arc<ServerState>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct ServerState {
    responses: Mutex<VecDeque<Response<Body>>>,
    requests: Mutex<Vec<ReceivedRequest>>,
}

#[derive(Clone, Debug)]
struct ReceivedRequest {
    path: String,
    headers: HeaderMap,
    body: Value,
    client: SocketAddr,
}

impl ModelServer {
    async fn start(responses: impl IntoIterator<Item = Response<Body>>) -> Self {
        let state = Arc::new(ServerState {
            responses: Mutex::new(responses.into_iter().collect()),
            requests: Mutex::default(),
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service)
                .await
                .expect("the server runs");
        });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    fn options(&self) -> UpstreamOptions {
        UpstreamOptions {
            name: "local".into(),
            kind: UpstreamKind::OpenAi,
            base_url: format!("http://{}/v1", self.address),
            api_key: Some("sk-secret".into()),
            unsupported: Vec::new(),
        }
    }

    fn upstreams(&self) -> Upstreams {
        upstreams(Options {
            upstreams: vec![self.options()],
            ..Options::default()
        })
    }

    fn requests(&self) -> Vec<ReceivedRequest> {
        self.state.requests.lock().clone()
    }
}

async fn answer(
    State(state): State<Arc<ServerState>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("the client sends the whole body");
    let path = parts
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    state.requests.lock().push(ReceivedRequest {
        path,
        headers: parts.headers,
        body,
        client,
    });
    state
        .responses
        .lock()
        .pop_front()
        .expect("there is a response for every request")
}

fn upstreams(options: Options) -> Upstreams {
    Upstreams::new(options).expect("the options are valid")
}

fn error_response(status: u16, body: &str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("retry-after-ms", "1")
        .body(Body::from(body.to_owned()))
        .expect("the parts are valid")
}

fn streamed(body: Body) -> Response<Body> {
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(body).expect("the parts are valid")
}

fn chunk(text: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"delta": {"content": text}}]})
    )
}

fn success() -> Response<Body> {
    let finish = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
    streamed(Body::from(format!(
        "{}data: {finish}\n\ndata: [DONE]\n\n",
        chunk("hello")
    )))
}

fn request(model: &str) -> ChatRequest {
    ChatRequest {
        model: model.into(),
        messages: vec![ChatCompletionRequestUserMessage::from("hi").into()],
        ..Default::default()
    }
}

async fn collect(stream: TurnStream) -> (String, Option<UpstreamError>) {
    let mut text = String::new();
    let mut error = None;
    for event in stream.collect::<Vec<_>>().await {
        match event {
            Ok(TurnEvent::Text(more)) => text.push_str(&more),
            Ok(TurnEvent::Finish(_)) => text.push('.'),
            Ok(_) => {}
            Err(failed) => error = Some(failed),
        }
    }
    (text, error)
}

async fn turn(upstreams: &Upstreams, request: ChatRequest) -> Result<String, UpstreamError> {
    let (text, error) = collect(upstreams.turn(request).await?).await;
    error.map_or(Ok(text), Err)
}

async fn failed_turn(upstreams: &Upstreams) -> UpstreamError {
    upstreams
        .turn(request("m"))
        .await
        .err()
        .expect("the turn fails")
}

#[tokio::test]
async fn a_turn_asks_the_routed_model_for_a_stream_with_usage() {
    let server = ModelServer::start([success()]).await;
    let upstreams = upstreams(Options {
        upstreams: vec![server.options()],
        routes: vec![RouteOptions {
            pattern: "gpt-*".into(),
            upstream: "local".into(),
            model: Some("qwen3".into()),
            context_window: None,
        }],
        ..Options::default()
    });
    let chat_request = ChatRequest {
        temperature: Some(0.7),
        ..request("gpt-4-turbo")
    };
    assert_eq!(
        turn(&upstreams, chat_request).await,
        Ok("hello.".to_owned())
    );
    let [received] =
        <[ReceivedRequest; 1]>::try_from(server.requests()).expect("there was one request");
    assert_eq!(received.path, "/v1/chat/completions");
    assert_eq!(received.headers["authorization"], "Bearer sk-secret");
    assert_eq!(
        received.body,
        json!({
            "model": "qwen3",
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 0.7,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}

#[tokio::test]
async fn azure_has_its_own_paths_and_header() {
    let server = ModelServer::start([success(), success()]).await;
    let kind = UpstreamKind::Azure {
        api_version: "2024-10-21".into(),
    };
    let base_url = format!("http://{}", server.address);
    let azure = UpstreamOptions {
        kind,
        base_url,
        ..server.options()
    };
    let upstreams = upstreams(Options {
        upstreams: vec![azure],
        ..Options::default()
    });
    assert_eq!(
        turn(&upstreams, request("my-gpt")).await,
        Ok("hello.".to_owned())
    );
    let received = &server.requests()[0];
    assert_eq!(
        received.path,
        "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    );
    assert_eq!(received.headers["api-key"], "sk-secret");
    assert!(!received.headers.contains_key("authorization"));
    assert!(turn(&upstreams, request("../a/b?c")).await.is_ok());
    let path = &server.requests()[1].path;
    assert!(
        path.starts_with("/openai/deployments/..%2Fa%2Fb%3Fc/chat/completions?"),
        "{path}"
    );
}

#[tokio::test]
async fn transient_failures_are_retried() {
    let cut_off = streamed(Body::empty());
    let server = ModelServer::start([
        cut_off,
        error_response(429, "{}"),
        error_response(503, ""),
        success(),
    ])
    .await;
    assert_eq!(
        turn(&server.upstreams(), request("m")).await,
        Ok("hello.".to_owned())
    );
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn the_last_failure_is_returned_when_retrying_does_not_help() {
    let answers = [
        error_response(500, ""),
        error_response(429, r#"{"error": {"message": "busy"}}"#),
    ];
    let server = ModelServer::start(answers).await;
    let options = Options {
        upstreams: vec![server.options()],
        retries: 1,
        ..Options::default()
    };
    let error = failed_turn(&upstreams(options)).await;
    assert_eq!(
        (error.failure_code(), error.message().as_str()),
        (FailureCode::RateLimitExceeded, "busy")
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn permanent_failures_are_not_retried_and_reveal_no_secret() {
    let quota =
        r#"{"error": {"code": "insufficient_quota", "message": "Pay for sk-secret first."}}"#;
    let answers = [
        error_response(400, r#"{"error": {"message": "no"}}"#),
        error_response(
            401,
            r#"{"error": {"message": "Incorrect API key: sk-secret"}}"#,
        ),
        error_response(429, quota),
    ];
    let server = ModelServer::start(answers).await;
    let upstreams = server.upstreams();
    assert_eq!(failed_turn(&upstreams).await.message(), "no");
    let refused = failed_turn(&upstreams).await.message();
    assert_eq!(
        refused,
        "The upstream `local` refused this server's credentials (status 401)."
    );
    assert_eq!(
        failed_turn(&upstreams).await.message(),
        "Pay for *** first."
    );
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn keys_are_redacted_after_an_error_was_classified() {
    let too_long = r#"{"error": {"message": "The prompt exceeds the context size.", "code": "context_length_exceeded"}}"#;
    let in_stream =
        r#"{"error": {"message": "Overloaded by context_length_exceeded.", "code": 503}}"#;
    let in_stream = || streamed(Body::from(format!("{}data: {in_stream}\n\n", chunk("hel"))));
    let long = format!("{}context_length_exceeded", "x".repeat(990));
    let long = json!({"error": {"message": long}}).to_string();
    let server = ModelServer::start([
        error_response(400, too_long),
        in_stream(),
        error_response(404, &long),
        error_response(404, too_long),
        error_response(400, too_long),
    ])
    .await;
    let with_key = |key: &str| {
        let options = UpstreamOptions {
            api_key: Some(key.into()),
            ..server.options()
        };
        upstreams(Options {
            upstreams: vec![options],
            ..Options::default()
        })
    };
    let hiding = with_key("context_length_exceeded");
    let error = failed_turn(&hiding).await;
    assert!(
        matches!(error, UpstreamError::ContextLength { .. }),
        "{error:?}"
    );
    let (text, error) = collect(hiding.turn(request("m")).await.expect("the turn starts")).await;
    let message = error.map(|error| error.message());
    assert_eq!(
        (text.as_str(), message.as_deref()),
        ("hel", Some("Overloaded by ***."))
    );
    let message = failed_turn(&hiding).await.message();
    assert!(message.ends_with("x***"), "{message}");
    let probe = hiding.probe().await;
    let refused = probe[0].outcome.as_ref().expect_err("404");
    assert!(
        matches!(refused, UpstreamError::ContextLength { .. }),
        "{refused:?}"
    );

    // Seven characters, and no secret.
    let message = failed_turn(&with_key("context")).await.message();
    assert_eq!(message, "The prompt exceeds the context size.");
}

#[tokio::test]
async fn nothing_is_repeated_after_the_first_event() {
    let (sender, receiver) = mpsc::channel(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let server = ModelServer::start([streamed(body)]).await;
    sender
        .send(Ok(chunk("hel")))
        .await
        .expect("the server reads");
    let stream = server
        .upstreams()
        .turn(request("m"))
        .await
        .expect("the turn starts");
    sender
        .send(Err(std::io::Error::other("gone")))
        .await
        .expect("the server reads");
    assert_eq!(
        collect(stream).await,
        ("hel".to_owned(), Some(UpstreamError::disconnected()))
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    drop(listener);
    let gone = UpstreamOptions {
        name: "gone".into(),
        kind: UpstreamKind::OpenAi,
        base_url: format!("http://user:pass@{address}/v1"),
        api_key: None,
        unsupported: Vec::new(),
    };
    let upstreams = upstreams(Options {
        upstreams: vec![gone],
        retries: 0,
        ..Options::default()
    });
    assert_eq!(
        failed_turn(&upstreams).await.message(),
        "The upstream `gone` could not be reached."
    );
    let described = upstreams.describe();
    assert_eq!(
        described,
        format!("every model → gone (gone at http://{address}/v1)")
    );
    let probes = upstreams.probe().await;
    assert!(
        probes[0].outcome.is_err() && probes[1].outcome.is_ok(),
        "{probes:?}"
    );
}

#[tokio::test]
async fn silence_ends_a_call_without_repetition() {
    let silence = || {
        streamed(Body::from_stream(stream::pending::<
            Result<Bytes, std::io::Error>,
        >()))
    };
    let hello =
        stream::iter([Ok(chunk("hel"))]).chain(stream::pending::<Result<_, std::io::Error>>());
    let server = ModelServer::start([silence(), streamed(Body::from_stream(hello))]).await;
    let options = Options {
        upstreams: vec![server.options()],
        idle_timeout: Duration::from_millis(400),
        ..Options::default()
    };
    let upstreams = upstreams(options);
    let late = "The model server did not answer in time.";
    assert_eq!(failed_turn(&upstreams).await.message(), late);
    let stream = upstreams.turn(request("m")).await.expect("the turn starts");
    let (text, error) = collect(stream).await;
    assert_eq!(
        (text.as_str(), error.map(|error| error.message())),
        ("hel", Some(late.to_owned()))
    );
}

#[tokio::test]
async fn parameters_that_a_server_does_not_know_are_left_out_from_then_on() {
    let answers = [
        error_response(
            400,
            r#"{"error": {"message": "Unrecognized request argument supplied: stream_options"}}"#,
        ),
        error_response(
            422,
            r#"{"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"]}]}"#,
        ),
        success(),
        success(),
    ];
    let server = ModelServer::start(answers).await;
    let upstreams = server.upstreams();
    let chat_request = || ChatRequest {
        max_completion_tokens: Some(9),
        ..request("m")
    };
    for _ in 0..2 {
        assert_eq!(
            turn(&upstreams, chat_request()).await,
            Ok("hello.".to_owned())
        );
    }
    let bodies: Vec<Value> = server
        .requests()
        .into_iter()
        .map(|received| received.body)
        .collect();
    assert_eq!(bodies.len(), 4);
    let adapted = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "stream": true});
    assert_eq!(bodies[2], adapted);
    assert_eq!(bodies[3], adapted);
}

#[tokio::test]
async fn parameters_can_be_left_out_by_setting() {
    let server = ModelServer::start([success()]).await;
    let unsupported = vec![
        "parallel_tool_calls".to_owned(),
        "stream_options".to_owned(),
    ];
    let older = UpstreamOptions {
        unsupported,
        ..server.options()
    };
    let upstreams = upstreams(Options {
        upstreams: vec![older],
        ..Options::default()
    });
    let chat_request = ChatRequest {
        parallel_tool_calls: Some(true),
        ..request("m")
    };
    assert_eq!(
        turn(&upstreams, chat_request).await,
        Ok("hello.".to_owned())
    );
    let body = &server.requests()[0].body;
    assert!(
        body.get("parallel_tool_calls").is_none() && body.get("stream_options").is_none(),
        "{body}"
    );
}

#[tokio::test]
async fn a_refused_value_is_not_taken_for_an_unknown_parameter() {
    let message = "max_completion_tokens is too large: 90000. This model supports at most 4096.";
    let body = json!({"error": {"message": message, "param": "max_completion_tokens"}}).to_string();
    let server = ModelServer::start([error_response(400, &body)]).await;
    let chat_request = ChatRequest {
        max_completion_tokens: Some(90_000),
        ..request("m")
    };
    let error = server
        .upstreams()
        .turn(chat_request)
        .await
        .err()
        .expect("the turn fails");
    assert_eq!(error.message(), message);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_finished_stream_leaves_its_connection_for_the_next() {
    let server = ModelServer::start([success(), success()]).await;
    let upstreams = server.upstreams();
    for _ in 0..2 {
        assert_eq!(
            turn(&upstreams, request("m")).await,
            Ok("hello.".to_owned())
        );
    }
    let received = server.requests();
    assert_eq!(received[0].client, received[1].client);
}

#[tokio::test]
async fn dropping_the_stream_ends_the_call() {
    let (sender, receiver) = mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let server = ModelServer::start([streamed(body)]).await;
    sender
        .send(Ok(chunk("hel")))
        .await
        .expect("the server reads");
    let stream = server
        .upstreams()
        .turn(request("m"))
        .await
        .expect("the turn starts");
    drop(stream);
    // Ends when the server notices the disconnect and drops the body.
    sender.closed().await;
}

#[tokio::test]
async fn calls_are_passed_on_byte_for_byte() {
    let body = format!("{}: a comment\n\n", chunk("hello"));
    let missing = Response::builder()
        .status(404)
        .header("content-type", "application/json")
        .header("retry-after", "7")
        .body(Body::from("{\"error\": 1}"))
        .expect("the parts are valid");
    let server = ModelServer::start([
        streamed(Body::from(body.clone())),
        missing,
        error_response(401, ""),
        success(),
    ])
    .await;
    let upstreams = server.upstreams();
    let chat_request = || json!({"model": "m", "messages": [], "stream": true, "extra": 1});
    let read = async |passed: Passthrough| read_body(passed.body, usize::MAX).await;

    let passed = upstreams
        .chat(chat_request())
        .await
        .expect("the upstream answers");
    assert_eq!(
        (passed.status, passed.content_type.as_deref()),
        (200, Some("text/event-stream"))
    );
    assert_eq!(read(passed).await, body);
    assert_eq!(server.requests()[0].body, chat_request());

    let passed = upstreams
        .chat(chat_request())
        .await
        .expect("the upstream answers");
    assert_eq!(
        (passed.status, passed.retry_after.as_deref()),
        (404, Some("7"))
    );
    assert_eq!(read(passed).await, "{\"error\": 1}");

    let refused = upstreams
        .chat(chat_request())
        .await
        .err()
        .expect("the turn fails");
    assert!(matches!(refused, UpstreamError::Auth { .. }), "{refused:?}");

    upstreams
        .embeddings(json!({"model": "e", "input": "x"}))
        .await
        .expect("the upstream answers");
    assert_eq!(server.requests()[3].path, "/v1/embeddings");
}

#[tokio::test]
async fn the_default_server_is_asked_for_its_models_once_in_a_while() {
    let list = || {
        error_response(
            200,
            r#"{"object": "list", "data": [{"id": "a"}, {"id": "b"}]}"#,
        )
    };
    let server = ModelServer::start([list(), list()]).await;
    let upstreams = server.upstreams();
    let probes = upstreams.probe().await;
    assert_eq!(probes[0].outcome, Ok("reachable; models: 2".to_owned()));
    for _ in 0..2 {
        let ids: Vec<String> = upstreams
            .available_models()
            .await
            .into_iter()
            .map(|model| model.id)
            .collect();
        assert_eq!(ids, ["scripted/default", "a", "b"]);
    }
    let paths: Vec<String> = server
        .requests()
        .into_iter()
        .map(|received| received.path)
        .collect();
    assert_eq!(paths, ["/v1/models", "/v1/models"]);
}

#[tokio::test]
async fn a_server_without_a_list_is_no_obstacle() {
    let server = ModelServer::start([error_response(404, "")]).await;
    let models = server.upstreams().available_models().await;
    assert_eq!(models.len(), 1, "{models:?}");
    let route = RouteOptions {
        pattern: "*".into(),
        upstream: "local".into(),
        model: Some("qwen3".into()),
        context_window: None,
    };
    let upstreams = upstreams(Options {
        upstreams: vec![server.options()],
        routes: vec![route],
        ..Options::default()
    });
    let ids: Vec<String> = upstreams
        .available_models()
        .await
        .into_iter()
        .map(|model| model.id)
        .collect();
    assert_eq!(ids, ["qwen3", "scripted/default"]);
}

#[tokio::test]
async fn the_scripted_model_takes_the_way_of_all_others() {
    let folder = tempfile::tempdir().expect("the folder can be made");
    let path = folder.path().join("ci.yaml");
    let script = "
models:
  ci:
    context_window: 1000
    rules:
      - then: { text: fine, fault: { http_error: { status: 429, retry_after: 1ms }, times: 3, key: '{{user}}' } }
";
    std::fs::write(&path, script).expect("the file can be written");
    let upstreams = upstreams(Options {
        script: Some(path),
        ..Options::default()
    });
    assert_eq!(
        turn(&upstreams, request("scripted/ci")).await,
        Ok("fine.".to_owned())
    );
    assert_eq!(upstreams.route("scripted/ci").context_window, Some(1_000));
    let listed: Vec<String> = upstreams
        .models()
        .into_iter()
        .map(|model| model.id)
        .collect();
    assert_eq!(listed, ["scripted/ci", "scripted/default"]);
    let described = upstreams.describe();
    assert_eq!(
        described,
        "every model → scripted (the built-in scripted model: no upstream is configured)"
    );

    let chat_request =
        json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]});
    let passed = upstreams
        .chat(chat_request)
        .await
        .expect("the upstream answers");
    let completion: Value =
        serde_json::from_str(&read_body(passed.body, usize::MAX).await).expect("the text is JSON");
    assert_eq!(completion["model"], "scripted/default");
    let prompt_tokens = tokens::PER_PROMPT + tokens::PER_MESSAGE + tokens::count_text("", "hello");
    assert_eq!(completion["usage"]["prompt_tokens"], prompt_tokens);
    let passed = upstreams
        .embeddings(json!({"model": "any", "input": "x"}))
        .await
        .expect("the upstream answers");
    assert_eq!(passed.status, 200);
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let options = |base_url: &str, unsupported: &[&str]| UpstreamOptions {
        name: "local".into(),
        kind: UpstreamKind::OpenAi,
        base_url: base_url.into(),
        api_key: Some("sk-secret".into()),
        unsupported: unsupported.iter().map(|name| (*name).to_owned()).collect(),
    };
    let refused = |upstreams: Vec<UpstreamOptions>| {
        Upstreams::new(Options {
            upstreams,
            ..Options::default()
        })
        .err()
        .expect("the options are refused")
        .to_string()
    };
    let good = options("http://127.0.0.1/v1", &[]);
    assert!(!format!("{good:?}").contains("secret"));
    assert_eq!(
        refused(vec![good.clone(), good]),
        "two upstreams are called `local`"
    );
    assert!(
        refused(vec![options("nonsense", &[])])
            .starts_with("upstream `local`: the base URL is invalid")
    );
    let scheme = refused(vec![options("ftp://host/", &[])]);
    assert_eq!(
        scheme,
        "upstream `local`: the base URL must begin with http:// or https://"
    );
    let parameter = refused(vec![options("http://host/", &["temperature"])]);
    assert!(
        parameter.starts_with("upstream `local`: `temperature` cannot be left out"),
        "{parameter}"
    );
}
