//! A small blocking client of the worker's protocol.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sandbox_protocol::ChangedFile;
use sandbox_protocol::ExecStatus;
use sandbox_protocol::Executed;
use sandbox_protocol::Frame;
use sandbox_protocol::HEADER_BYTES;
use sandbox_protocol::Report;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::TextSource;
use sandbox_protocol::VERSION;
use sandbox_protocol::parse_header;

/// A worker that sends nothing for this long hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// The transport of a connection.
pub trait Transport: Read + Write + Send {
    fn set_timeout(&self, timeout: Duration);
    /// Ends the connection in both directions.
    fn shut_down(&self);
}

impl Transport for UnixStream {
    fn set_timeout(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout))
            .expect("the timeout is not zero");
    }
    fn shut_down(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Transport for TcpStream {
    fn set_timeout(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout))
            .expect("the timeout is not zero");
    }
    fn shut_down(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

/// A connection to a worker.
pub struct Client {
    transport: Box<dyn Transport>,
    report: Option<Report>,
}

/// The output and the result of a cell.
#[derive(Debug)]
pub struct Cell {
    /// Its text in order of arrival.
    pub pieces: Vec<(TextSource, String)>,
    /// Its images: MIME type and content.
    pub images: Vec<(String, Vec<u8>)>,
    pub executed: Executed,
}

impl Cell {
    /// All text of all sources.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// The text of one source.
    pub fn text_of(&self, source: TextSource) -> String {
        self.pieces
            .iter()
            .filter(|(from, _)| *from == source)
            .map(|(_, text)| text.as_str())
            .collect()
    }

    /// Fails unless the cell has completed. Returns its text.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.executed.status, ExecStatus::Ok, "{}", self.text());
        self.text()
    }

    /// The paths of its changed files.
    pub fn files(&self) -> Vec<&str> {
        let names = self.executed.files.iter().map(|file| file.path.as_str());
        names.collect()
    }

    /// The report of one changed file.
    pub fn file(&self, path: &str) -> Option<&ChangedFile> {
        self.executed.files.iter().find(|file| file.path == path)
    }
}

impl Client {
    /// A connection without a hello.
    pub fn raw(transport: impl Transport + 'static) -> Client {
        transport.set_timeout(READ_TIMEOUT);
        Client {
            transport: Box::new(transport),
            report: None,
        }
    }

    /// Sends the hello. The error is the worker's refusal, or that it closed the connection.
    pub fn greet(
        transport: impl Transport + 'static,
        token: Option<&str>,
    ) -> Result<Client, String> {
        let mut client = Client::raw(transport);
        let hello = Request::Hello {
            version: VERSION,
            token: token.map(str::to_owned),
        };
        client.send(&hello).map_err(|error| error.to_string())?;
        match client.receive() {
            Ok(Response::Hello(report)) => {
                client.report = Some(report);
                Ok(client)
            }
            Ok(Response::Refused { message }) => Err(message),
            other => Err(format!("{other:?}")),
        }
    }

    /// The worker's report.
    pub fn report(&self) -> &Report {
        self.report.as_ref().expect("the hello was answered")
    }

    /// Sends a request without waiting for the response.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.send_frame(&Frame::message(request).expect("requests can be encoded"))
    }

    /// Sends data frames.
    pub fn send_data(&mut self, data: &[u8]) -> io::Result<()> {
        data.chunks(1 << 20)
            .try_for_each(|piece| self.send_frame(&Frame::Data(piece.to_vec())))
    }

    fn send_frame(&mut self, frame: &Frame) -> io::Result<()> {
        self.send_bytes(&frame.encode().expect("the frame is below the maximum"))
    }

    /// Sends arbitrary bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transport.write_all(bytes)
    }

    fn receive_frame(&mut self) -> io::Result<Frame> {
        let mut header = [0; HEADER_BYTES];
        self.transport.read_exact(&mut header)?;
        let (kind, length) = parse_header(header).map_err(io::Error::other)?;
        let mut body = vec![0; length];
        self.transport.read_exact(&mut body)?;
        Frame::new(kind, body).map_err(io::Error::other)
    }

    /// Receives the next response.
    pub fn receive(&mut self) -> io::Result<Response> {
        self.receive_frame()?.read().map_err(io::Error::other)
    }

    /// Receives data frames until they add up to `size`.
    pub fn receive_data(&mut self, size: u64) -> Vec<u8> {
        let mut data = Vec::new();
        while (data.len() as u64) < size {
            match self.receive_frame().expect("more data follows") {
                Frame::Data(piece) => data.extend(piece),
                Frame::Message(_) => panic!("a message within {size} bytes of data"),
            }
        }
        assert_eq!(data.len() as u64, size, "more data than was announced");
        data
    }

    /// Sends a request and receives its only response.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Response {
        self.send(request).expect("the worker reads");
        self.receive().expect("the worker answers")
    }

    /// Opens a session.
    #[track_caller]
    pub fn open(&mut self, session: &str, create: bool) -> Response {
        self.open_for("tests", session, create)
    }

    /// Opens a session with this project label.
    #[track_caller]
    pub fn open_for(&mut self, project: &str, session: &str, create: bool) -> Response {
        self.ask(&Request::Open {
            session: session.to_owned(),
            project: project.to_owned(),
            create,
        })
    }

    /// Removes files that were put.
    #[track_caller]
    pub fn remove(&mut self, tags: &[&str]) -> Response {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        self.ask(&Request::Remove { tags })
    }

    /// Puts a file. The error is the refusal.
    #[track_caller]
    pub fn put(
        &mut self,
        path: &str,
        alias: Option<&str>,
        tag: &str,
        data: &[u8],
    ) -> Result<(), String> {
        self.send(&Request::Put {
            path: path.to_owned(),
            alias: alias.map(str::to_owned),
            tag: tag.to_owned(),
            size: data.len() as u64,
        })
        .expect("the worker reads");
        self.send_data(data).expect("the worker reads all data");
        match self.receive().expect("the worker answers") {
            Response::Stored => Ok(()),
            Response::Refused { message } => Err(message),
            other => panic!("unexpected response to Put: {other:?}"),
        }
    }

    /// Reads a file. The error is the refusal.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>, String> {
        match self.ask(&Request::Get {
            path: path.to_owned(),
        }) {
            Response::File { size } => Ok(self.receive_data(size)),
            Response::Refused { message } => Err(message),
            other => panic!("unexpected response to Get: {other:?}"),
        }
    }

    /// Starts a cell.
    pub fn start(&mut self, code: &str) {
        self.send(&Request::Exec {
            code: code.to_owned(),
        })
        .expect("the worker reads");
    }

    /// Receives output of the running cell until it contains `text`, and returns it.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.receive().expect("the cell goes on") {
                Response::Text { text: more, .. } => seen += &more,
                other => panic!("waiting for {text:?} after {seen:?}: {other:?}"),
            }
        }
        seen
    }

    /// Waits for the end of the running cell.
    #[track_caller]
    pub fn finish(&mut self) -> Cell {
        let (mut pieces, mut images) = (Vec::new(), Vec::new());
        loop {
            match self.receive().expect("the cell ends") {
                Response::Text { source, text } => pieces.push((source, text)),
                Response::Image { mime, size } => images.push((mime, self.receive_data(size))),
                Response::Executed(executed) => {
                    return Cell {
                        pieces,
                        images,
                        executed,
                    };
                }
                other => panic!("unexpected response to Exec: {other:?}"),
            }
        }
    }

    /// Runs a cell.
    #[track_caller]
    pub fn run(&mut self, code: &str) -> Cell {
        self.start(code);
        self.finish()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.transport.shut_down();
    }
}

/// A session held by this connection. Dropping it ends the session.
pub struct Session {
    name: String,
    client: Option<Client>,
}

impl Session {
    /// Opens a session, and creates it if needed.
    #[track_caller]
    pub fn open(mut client: Client, name: &str) -> Session {
        match client.open(name, true) {
            Response::Opened { .. } => Session {
                name: name.to_owned(),
                client: Some(client),
            },
            other => panic!("no session: {other:?}"),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Closes the connection without ending the session.
    pub fn detach(mut self) {
        self.client = None;
    }
}

impl std::ops::Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        self.client.as_ref().expect("only detach takes the client")
    }
}

impl std::ops::DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("only detach takes the client")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(client) = &mut self.client
            && !std::thread::panicking()
            && client.send(&Request::Close).is_ok()
        {
            // Responses to earlier requests come before the answer to Close.
            while client.receive_frame().is_ok_and(|frame| {
                !matches!(
                    frame.read::<Response>(),
                    Ok(Response::Closed | Response::Refused { .. })
                )
            }) {}
        }
    }
}
