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

/// A worker that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(150);

/// What a connection may run over.
pub trait Wire: Read + Write + Send {
    /// Makes reads fail that wait for longer.
    fn limit(&self, wait: Duration);
    /// Ends the connection for all who hold it.
    fn hang_up(&self);
}

impl Wire for UnixStream {
    fn limit(&self, wait: Duration) {
        self.set_read_timeout(Some(wait)).expect("not zero");
    }
    fn hang_up(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Wire for TcpStream {
    fn limit(&self, wait: Duration) {
        self.set_read_timeout(Some(wait)).expect("not zero");
    }
    fn hang_up(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

/// A connection to a worker.
pub struct Client {
    wire: Box<dyn Wire>,
    report: Option<Report>,
}

/// What a cell did.
#[derive(Debug)]
pub struct Cell {
    /// Its text in the order it came.
    pub pieces: Vec<(TextSource, String)>,
    /// Its pictures.
    pub images: Vec<(String, Vec<u8>)>,
    /// How it ended.
    pub executed: Executed,
}

impl Cell {
    /// All text, whatever its source.
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

    /// Fails unless the cell ran to its end; gives back what it wrote.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.executed.status, ExecStatus::Ok, "{}", self.text());
        self.text()
    }

    /// The paths of the files it wrote.
    pub fn files(&self) -> Vec<&str> {
        let names = self.executed.files.iter().map(|file| file.path.as_str());
        names.collect()
    }

    /// What is told of one file.
    pub fn file(&self, path: &str) -> Option<&ChangedFile> {
        self.executed.files.iter().find(|file| file.path == path)
    }
}

impl Client {
    /// A connection over which nothing was said yet.
    pub fn raw(wire: impl Wire + 'static) -> Client {
        wire.limit(PATIENCE);
        Client {
            wire: Box::new(wire),
            report: None,
        }
    }

    /// Says hello. The error is the worker's refusal, or that it hung up.
    pub fn greet(wire: impl Wire + 'static, token: Option<&str>) -> Result<Client, String> {
        let mut client = Client::raw(wire);
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

    /// What the worker said of itself.
    pub fn report(&self) -> &Report {
        self.report.as_ref().expect("it has said hello")
    }

    /// Sends a request and does not wait.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.send_frame(&Frame::message(request).expect("requests can be written"))
    }

    /// Sends data.
    pub fn send_data(&mut self, data: &[u8]) -> io::Result<()> {
        data.chunks(1 << 20)
            .try_for_each(|piece| self.send_frame(&Frame::Data(piece.to_vec())))
    }

    fn send_frame(&mut self, frame: &Frame) -> io::Result<()> {
        self.send_bytes(&frame.encode().expect("it is small enough"))
    }

    /// Sends whatever.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)
    }

    fn receive_frame(&mut self) -> io::Result<Frame> {
        let mut header = [0; HEADER_BYTES];
        self.wire.read_exact(&mut header)?;
        let (kind, length) = parse_header(header).map_err(io::Error::other)?;
        let mut body = vec![0; length];
        self.wire.read_exact(&mut body)?;
        Frame::new(kind, body).map_err(io::Error::other)
    }

    /// The next response.
    pub fn receive(&mut self) -> io::Result<Response> {
        self.receive_frame()?.read().map_err(io::Error::other)
    }

    /// Data frames that add up to `size`.
    pub fn receive_data(&mut self, size: u64) -> Vec<u8> {
        let mut data = Vec::new();
        while (data.len() as u64) < size {
            match self.receive_frame().expect("the data goes on") {
                Frame::Data(piece) => data.extend(piece),
                Frame::Message(_) => panic!("a message within {size} bytes of data"),
            }
        }
        assert_eq!(data.len() as u64, size, "more data than was announced");
        data
    }

    /// Asks and takes the one answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Response {
        self.send(request).expect("the worker reads");
        self.receive().expect("the worker answers")
    }

    /// Asks for a session.
    #[track_caller]
    pub fn open(&mut self, session: &str, create: bool) -> Response {
        self.open_for("tests", session, create)
    }

    /// Asks for a session of this project.
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

    /// Puts a file: the refusal, if there was one.
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
        self.send_data(data).expect("it reads the data to its end");
        match self.receive().expect("the worker answers") {
            Response::Stored => Ok(()),
            Response::Refused { message } => Err(message),
            other => panic!("a strange answer to Put: {other:?}"),
        }
    }

    /// Reads a file: its content, or the refusal.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>, String> {
        match self.ask(&Request::Get {
            path: path.to_owned(),
        }) {
            Response::File { size } => Ok(self.receive_data(size)),
            Response::Refused { message } => Err(message),
            other => panic!("a strange answer to Get: {other:?}"),
        }
    }

    /// Starts a cell.
    pub fn start(&mut self, code: &str) {
        self.send(&Request::Exec {
            code: code.to_owned(),
        })
        .expect("the worker reads");
    }

    /// Reads what the running cell writes until `enough`, and gives that back.
    #[track_caller]
    pub fn read_until(&mut self, enough: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(enough) {
            match self.receive().expect("the cell goes on") {
                Response::Text { text, .. } => seen += &text,
                other => panic!("waiting for {enough:?} after {seen:?}: {other:?}"),
            }
        }
        seen
    }

    /// Waits for the running cell's end.
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
                other => panic!("a strange answer to Exec: {other:?}"),
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
        self.wire.hang_up();
    }
}

/// A session that this connection holds, and ends when it is dropped.
pub struct Session {
    name: String,
    client: Option<Client>,
}

impl Session {
    /// Makes the session.
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

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets go of the connection and leaves the session to itself.
    pub fn let_go(mut self) {
        self.client = None;
    }
}

impl std::ops::Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        self.client.as_ref().expect("only let_go takes it")
    }
}

impl std::ops::DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("only let_go takes it")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(client) = &mut self.client
            && !std::thread::panicking()
            && client.send(&Request::Close).is_ok()
        {
            // Whatever is still on its way comes before the answer.
            while client.receive_frame().is_ok_and(|frame| {
                !matches!(
                    frame.read::<Response>(),
                    Ok(Response::Closed | Response::Refused { .. })
                )
            }) {}
        }
    }
}
