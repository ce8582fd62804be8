//! A plain HTTP client of the API and its event streams.

use std::pin::Pin;

use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{eventually, with_timeout};

/// A client of one server with one API key. Paths are relative to `/v1`.
#[derive(Clone)]
pub struct Client {
    origin: String,
    key: String,
    http: reqwest::Client,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The sequence number; empty where the stream has none.
    pub id: String,
    pub name: String,
    /// The data as JSON; a string if it is not JSON.
    pub data: Value,
}

pub struct Events(Pin<Box<dyn Stream<Item = Result<Event, String>> + Send>>);

impl Client {
    pub fn new(origin: &str, key: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.expect("the default TLS configuration is valid");
        Self::with_http(http, origin, key)
    }

    pub fn with_http(http: reqwest::Client, origin: &str, key: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            key: key.to_owned(),
            http,
        }
    }

    /// Builds a request. A path that starts with `//` is relative to the server's root.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path = match path.strip_prefix("//") {
            Some(path) => format!("/{path}"),
            None => format!("/v1{path}"),
        };
        self.http
            .request(method, format!("{}{path}", self.origin))
            .bearer_auth(&self.key)
    }

    /// Sends a request; an error is one of the connection, not an HTTP status.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, reqwest::Error> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        send_request(request).await
    }

    /// Sends a `GET` that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        self.send_expecting_ok(Method::GET, path, None).await
    }

    /// Sends a `POST` that must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.send_expecting_ok(Method::POST, path, Some(&body))
            .await
    }

    async fn send_expecting_ok(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let sent = self.send(method.clone(), path, body).await;
        let reply = sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.body);
        reply.body
    }

    /// Lists at most 100 objects, oldest first.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(&format!("{path}?order=asc&limit=100")).await;
        assert_eq!(
            list["has_more"], false,
            "tests create fewer than 100 objects"
        );
        list["data"].as_array().expect("a list has `data`").clone()
    }

    /// Creates an assistant that uses a scripted model; its id.
    pub async fn create_assistant(&self, model: &str) -> String {
        self.create_assistant_with(json!({"model": format!("scripted/{model}")}))
            .await
    }

    pub async fn create_assistant_with(&self, body: Value) -> String {
        id(&self.post("/assistants", body).await)
    }

    /// Creates a thread with one user message; its id.
    pub async fn create_thread(&self, text: &str) -> String {
        let messages = json!([{"role": "user", "content": text}]);
        id(&self.post("/threads", json!({"messages": messages})).await)
    }

    /// Uploads a file with the purpose `assistants`.
    pub async fn upload(&self, name: &str, content: impl AsRef<[u8]>) -> Value {
        let reply = self.try_upload(name, content).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    pub async fn try_upload(&self, name: &str, content: impl AsRef<[u8]>) -> Reply {
        let disposition = "content-disposition: form-data; name=";
        let head = format!(
            "--edge\r\n{disposition}\"purpose\"\r\n\r\nassistants\r\n\
             --edge\r\n{disposition}\"file\"; filename=\"{name}\"\r\n\r\n"
        );
        let form = [head.as_bytes(), content.as_ref(), b"\r\n--edge--\r\n"].concat();
        let request = self
            .request(Method::POST, "/files")
            .header("content-type", "multipart/form-data; boundary=edge")
            .body(form);
        send_request(request).await.expect("the server is running")
    }

    /// Downloads a file's content.
    pub async fn file_content(&self, file: &Value) -> Vec<u8> {
        let file = file.as_str().expect("an id is a string");
        let request = self.request(Method::GET, &format!("/files/{file}/content"));
        let response = request.send().await.expect("the server is running");
        assert_eq!(response.status(), 200, "{file}");
        let content = with_timeout("the content of a file", response.bytes()).await;
        content.expect("the server is running").to_vec()
    }

    /// Creates a run; its id.
    pub async fn create_run(&self, thread: &str, assistant: &str) -> String {
        let body = json!({"assistant_id": assistant});
        id(&self.post(&format!("/threads/{thread}/runs"), body).await)
    }

    /// Polls the run until it has one of the statuses.
    pub async fn wait_for_status(&self, thread: &str, run: &str, statuses: &[&str]) -> Value {
        let path = format!("/threads/{thread}/runs/{run}");
        eventually(&format!("{path} in {statuses:?}"), || async {
            let run = self.get(&path).await;
            statuses
                .contains(&run["status"].as_str().expect("a run has a status"))
                .then_some(run)
        })
        .await
    }

    /// Sends a `POST` that is answered with a stream.
    pub async fn stream(&self, path: &str, body: &Value) -> Events {
        let opened = self.try_stream(path, body).await;
        opened.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Like [`Client::stream`]; an error is one of the connection.
    pub async fn try_stream(&self, path: &str, body: &Value) -> Result<Events, reqwest::Error> {
        Events::open(self.request(Method::POST, path).json(body)).await
    }

    /// A new run, with its stream.
    pub async fn stream_run(&self, thread: &str, assistant: &str) -> Events {
        let body = json!({"assistant_id": assistant, "stream": true});
        self.stream(&format!("/threads/{thread}/runs"), &body).await
    }

    /// Follows a run from its first event, or from the one after `after`.
    pub async fn follow(&self, thread: &str, run: &str, after: Option<&str>) -> Events {
        let opened = self.try_follow(thread, run, after).await;
        opened.unwrap_or_else(|error| panic!("{run} cannot be followed: {error}"))
    }

    /// Like [`Client::follow`]; an error is one of the connection.
    pub async fn try_follow(
        &self,
        thread: &str,
        run: &str,
        after: Option<&str>,
    ) -> Result<Events, reqwest::Error> {
        let path = format!("/threads/{thread}/runs/{run}/stream");
        let request = self.request(Method::GET, &path);
        Events::open(match after {
            Some(id) => request.header("last-event-id", id),
            None => request,
        })
        .await
    }
}

impl Events {
    async fn open(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = with_timeout("the headers of a stream", request.send()).await?;
        assert_eq!(response.status(), 200);
        Ok(Self::new(response))
    }

    pub fn new(response: reqwest::Response) -> Self {
        let events = response.bytes_stream().eventsource().map(|event| {
            let event = event.map_err(|error| error.to_string())?;
            let data = serde_json::from_str(&event.data);
            Ok(Event {
                id: event.id,
                name: event.event,
                data: data.unwrap_or(Value::String(event.data)),
            })
        });
        Self(Box::pin(events))
    }

    /// The next event; `None` at the end of the stream, an error if the connection broke.
    pub async fn try_next(&mut self) -> Option<Result<Event, String>> {
        with_timeout("the next event of a stream", self.0.next()).await
    }

    /// The next event; panics if there is none.
    pub async fn next(&mut self) -> Event {
        let next = self.try_next().await.expect("the stream has not ended");
        next.expect("the server is running")
    }

    /// Reads up to and including the first event of this name.
    pub async fn until(&mut self, name: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let is_last = event.name == name;
            events.push(event);
            if is_last {
                return events;
            }
        }
    }

    /// Reads up to `done`, which must be the last event.
    pub async fn read_to_end(mut self) -> Vec<Event> {
        let events = self.until("done").await;
        assert!(self.try_next().await.is_none(), "an event after `done`");
        events
    }
}

/// Sends a request and reads the whole response.
pub async fn send_request(request: RequestBuilder) -> Result<Reply, reqwest::Error> {
    let response = with_timeout("a response", request.send()).await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = with_timeout("a response body", response.bytes()).await?;
    Ok(Reply {
        status,
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

pub fn id(object: &Value) -> String {
    let id = object["id"].as_str();
    id.unwrap_or_else(|| panic!("no id in {object}")).to_owned()
}
