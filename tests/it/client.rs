//! A plain HTTP client of the API, and its streams.

use std::pin::Pin;

use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{eventually, soon};

/// Calls one server with one key. Paths are those after `/v1`.
#[derive(Clone)]
pub struct Client {
    origin: String,
    key: String,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; null if it is none.
    pub body: Value,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its position, where the stream tells.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its data; a string if it is no JSON.
    pub data: Value,
}

/// A stream of events.
pub struct Events(Pin<Box<dyn Stream<Item = Result<Event, String>> + Send>>);

impl Client {
    /// A client of the server at this origin.
    pub fn new(origin: &str, key: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build();
        Self::over(http.expect("a client can be made"), origin, key)
    }

    /// A client that makes its connections in this way.
    pub fn over(http: reqwest::Client, origin: &str, key: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            key: key.to_owned(),
            http,
        }
    }

    /// A request that is not sent yet. A path that begins with `//` is one from the root.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path = match path.strip_prefix("//") {
            Some(path) => format!("/{path}"),
            None => format!("/v1{path}"),
        };
        self.http
            .request(method, format!("{}{path}", self.origin))
            .bearer_auth(&self.key)
    }

    /// Sends a request with a body or without; an error is one of the connection.
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
        reply(request).await
    }

    /// `GET` that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        self.must(Method::GET, path, None).await
    }

    /// `POST` that must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.must(Method::POST, path, Some(&body)).await
    }

    async fn must(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let sent = self.send(method.clone(), path, body).await;
        let reply = sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.body);
        reply.body
    }

    /// All of a list, oldest first.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(&format!("{path}?order=asc&limit=100")).await;
        assert_eq!(list["has_more"], false, "tests make short lists");
        list["data"].as_array().expect("a list has data").clone()
    }

    /// A new assistant with this scripted model; its id.
    pub async fn assistant(&self, model: &str) -> String {
        self.assistant_with(json!({"model": format!("scripted/{model}")}))
            .await
    }

    /// A new assistant; its id.
    pub async fn assistant_with(&self, body: Value) -> String {
        id(&self.post("/assistants", body).await)
    }

    /// A new thread with a user's message; its id.
    pub async fn thread(&self, text: &str) -> String {
        let messages = json!([{"role": "user", "content": text}]);
        id(&self.post("/threads", json!({"messages": messages})).await)
    }

    /// A new file for assistants' tools.
    pub async fn upload(&self, name: &str, content: impl AsRef<[u8]>) -> Value {
        let reply = self.try_upload(name, content).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    /// What the server answers to the upload of a file.
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
        reply(request).await.expect("the server answers")
    }

    /// What is in a file.
    pub async fn content(&self, file: &Value) -> Vec<u8> {
        let file = file.as_str().expect("an id is text");
        let request = self.request(Method::GET, &format!("/files/{file}/content"));
        let response = request.send().await.expect("the server answers");
        assert_eq!(response.status(), 200, "{file}");
        let content = soon("the content of a file", response.bytes()).await;
        content.expect("it comes whole").to_vec()
    }

    /// A new run; its id.
    pub async fn run(&self, thread: &str, assistant: &str) -> String {
        let body = json!({"assistant_id": assistant});
        id(&self.post(&format!("/threads/{thread}/runs"), body).await)
    }

    /// The run once it has one of these statuses.
    pub async fn run_in(&self, thread: &str, run: &str, statuses: &[&str]) -> Value {
        let path = format!("/threads/{thread}/runs/{run}");
        eventually(&format!("{path} in {statuses:?}"), || async {
            let run = self.get(&path).await;
            statuses
                .contains(&run["status"].as_str().expect("a run has a status"))
                .then_some(run)
        })
        .await
    }

    /// A stream that answers a `POST`.
    pub async fn stream(&self, path: &str, body: &Value) -> Events {
        let opened = self.try_stream(path, body).await;
        opened.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// A stream that answers a `POST`; an error is one of the connection.
    pub async fn try_stream(&self, path: &str, body: &Value) -> Result<Events, reqwest::Error> {
        Events::open(self.request(Method::POST, path).json(body)).await
    }

    /// A new run, with its stream.
    pub async fn run_stream(&self, thread: &str, assistant: &str) -> Events {
        let body = json!({"assistant_id": assistant, "stream": true});
        self.stream(&format!("/threads/{thread}/runs"), &body).await
    }

    /// Follows a run from its beginning, or from after an event.
    pub async fn follow(&self, thread: &str, run: &str, after: Option<&str>) -> Events {
        let opened = self.try_follow(thread, run, after).await;
        opened.unwrap_or_else(|error| panic!("{run} cannot be followed: {error}"))
    }

    /// Follows a run; an error is one of the connection.
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
        let response = soon("the head of a stream", request.send()).await?;
        assert_eq!(response.status(), 200);
        let events = response.bytes_stream().eventsource().map(|event| {
            let event = event.map_err(|error| error.to_string())?;
            let data = serde_json::from_str(&event.data);
            Ok(Event {
                id: event.id,
                name: event.event,
                data: data.unwrap_or(Value::String(event.data)),
            })
        });
        Ok(Self(Box::pin(events)))
    }

    /// The next event; `None` when the stream has ended, an error when the connection broke.
    pub async fn try_next(&mut self) -> Option<Result<Event, String>> {
        soon("the next event of a stream", self.0.next()).await
    }

    /// The next event, which must come.
    pub async fn next(&mut self) -> Event {
        let next = self.try_next().await.expect("the stream goes on");
        next.expect("the stream does not break")
    }

    /// All events up to and including the first of this name.
    pub async fn until(&mut self, name: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let found = event.name == name;
            events.push(event);
            if found {
                return events;
            }
        }
    }

    /// All events that are left, up to `done`, after which nothing may come.
    pub async fn rest(mut self) -> Vec<Event> {
        let events = self.until("done").await;
        assert!(self.try_next().await.is_none(), "nothing follows `done`");
        events
    }
}

/// Sends a request and reads the answer.
pub async fn reply(request: RequestBuilder) -> Result<Reply, reqwest::Error> {
    let response = soon("an answer", request.send()).await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = soon("the rest of an answer", response.bytes()).await?;
    Ok(Reply {
        status,
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

/// The id of an object.
pub fn id(object: &Value) -> String {
    let id = object["id"].as_str();
    id.unwrap_or_else(|| panic!("no id in {object}")).to_owned()
}
