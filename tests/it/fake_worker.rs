//! A sandbox worker without Python: a cell's code is a list of commands, one per line.
//!
//! | command         | effect                                                        |
//! |-----------------|---------------------------------------------------------------|
//! | `say TEXT`      | prints a line                                                 |
//! | `result TEXT`   | returns this value                                            |
//! | `show`          | outputs an image                                              |
//! | `write A TEXT`  | writes a file                                                 |
//! | `read A`        | prints a file                                                 |
//! | `nul`           | puts U+0000 into every text field                             |
//! | `wait`          | blocks until it is interrupted or [`FakeWorker::go_on`]       |
//! | `lose`          | exceeds the memory limit, which ends the session              |
//! | `die`           | drops the connection, as a dying worker does                  |

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sandbox_protocol::{
    ChangedFile, ExecStatus, Executed, Frame, HEADER_BYTES, Notice, PlacedFile, Report, Request,
    Response, TextSource, Tier, VERSION, parse_header,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;

use crate::eventually;

/// The image that `show` outputs.
pub const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0";

pub struct FakeWorker {
    address: String,
    state: Arc<State>,
    /// The folder of the Unix socket.
    _folder: Option<tempfile::TempDir>,
}

#[derive(Default)]
struct State {
    sessions: Mutex<BTreeMap<String, FakeSession>>,
    /// The executed requests and commands, one per line.
    log: Mutex<Vec<String>>,
    go_on: Notify,
    is_full: AtomicBool,
    /// Whether removing files ends the session instead.
    cannot_remove_files: AtomicBool,
    /// The notice for the next opened session.
    notice: Mutex<Option<Notice>>,
    /// The token that clients must present.
    token: Option<String>,
}

#[derive(Default)]
struct FakeSession {
    files: BTreeMap<String, Vec<u8>>,
    /// The files placed by the server, each with all its names.
    placed: Vec<(PlacedFile, Vec<String>)>,
}

impl FakeWorker {
    /// Starts a worker on a Unix socket.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let socket = folder.path().join("worker.sock");
        let listener = UnixListener::bind(&socket).expect("the folder is new");
        let worker = Self {
            address: format!("unix:{}", socket.display()),
            state: Arc::default(),
            _folder: Some(folder),
        };
        let state = worker.state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_connection(stream, &state);
            }
        });
        worker
    }

    /// Starts a worker on TCP that requires the token.
    pub async fn start_on_tcp(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        let state = Arc::new(State {
            token: Some(token.to_owned()),
            ..State::default()
        });
        let worker = Self {
            address: format!("tcp:{address}"),
            state: state.clone(),
            _folder: None,
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_connection(stream, &state);
            }
        });
        worker
    }

    /// The value for `ASSISTD_SANDBOX`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Takes the log since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.log.lock())
    }

    /// Waits until the log has this line.
    pub async fn wait_for_log(&self, line: &str) {
        eventually(line, || async {
            let seen = self.state.log.lock().iter().any(|seen| seen == line);
            seen.then_some(())
        })
        .await;
    }

    /// Ends all sessions, as the idle limit does.
    pub fn end_sessions(&self) {
        self.state.sessions.lock().clear();
    }

    /// Refuses new sessions while `full`.
    pub fn set_full(&self, full: bool) {
        self.state.is_full.store(full, Ordering::SeqCst);
    }

    /// Ends sessions from which files should be removed.
    pub fn refuse_removals(&self) {
        self.state.cannot_remove_files.store(true, Ordering::SeqCst);
    }

    /// Sends this notice with the next opened session.
    pub fn set_notice(&self, notice: Notice) {
        *self.state.notice.lock() = Some(notice);
    }

    /// Resumes the cell that waits.
    pub fn go_on(&self) {
        self.state.go_on.notify_one();
    }
}

impl State {
    fn store(&self, session: &str, tag: String, names: &[String], content: &[u8]) {
        let mut sessions = self.sessions.lock();
        let session = sessions.entry(session.to_owned()).or_default();
        for name in names {
            session.files.insert(name.clone(), content.to_vec());
        }
        let path = names[0].clone();
        session
            .placed
            .push((PlacedFile { tag, path }, names.to_vec()));
    }

    fn remove(&self, session: &str, tags: &[String]) {
        let mut sessions = self.sessions.lock();
        let session = sessions.entry(session.to_owned()).or_default();
        let is_gone = |(file, _): &mut (PlacedFile, Vec<String>)| tags.contains(&file.tag);
        for (_, names) in session.placed.extract_if(.., is_gone) {
            for name in names {
                session.files.remove(&name);
            }
        }
    }
}

/// Serves one connection in the background.
fn spawn_connection(stream: impl Stream + 'static, state: &Arc<State>) {
    let state = state.clone();
    tokio::spawn(async move { drop(serve_connection(stream, &state).await) });
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Exchanges greetings and opens a session; its name, or `None` if the request was refused.
async fn open_session(stream: &mut impl Stream, state: &State) -> io::Result<Option<String>> {
    let Request::Hello { version, token } = receive(stream).await? else {
        panic!("the first request is not hello");
    };
    assert_eq!(version, VERSION);
    if token != state.token {
        let message = "wrong token".to_owned();
        send(stream, &Response::Refused { message }).await?;
        return Ok(None);
    }
    let report = Report {
        version,
        tier: Tier::Unsafe,
        layers: Vec::new(),
        missing: Vec::new(),
        python: String::new(),
        kernel: String::new(),
        sessions_max: 1,
        sessions: 1,
        idle_seconds: 1,
        cell_seconds: 1,
    };
    send(stream, &Response::Hello(report)).await?;
    let Request::Open {
        session,
        project,
        create,
    } = receive(stream).await?
    else {
        panic!("the second request is not open");
    };
    assert!(project.starts_with("proj_"), "{project}");
    let fresh = !state.sessions.lock().contains_key(&session);
    if fresh && !create {
        send(stream, &Response::Absent).await?;
        return Ok(None);
    }
    if fresh && state.is_full.load(Ordering::SeqCst) {
        send(stream, &Response::Busy).await?;
        return Ok(None);
    }
    let files = {
        let mut sessions = state.sessions.lock();
        let placed = &sessions.entry(session.clone()).or_default().placed;
        placed.iter().map(|(file, _)| file.clone()).collect()
    };
    let notice = state.notice.lock().take();
    let opened = Response::Opened {
        fresh,
        files,
        notice,
    };
    send(stream, &opened).await?;
    Ok(Some(session))
}

async fn serve_connection(mut stream: impl Stream, state: &State) -> io::Result<()> {
    let Some(session) = open_session(&mut stream, state).await? else {
        return Ok(());
    };
    loop {
        match receive(&mut stream).await? {
            Request::Put {
                path,
                alias,
                tag,
                size,
            } => {
                let mut content = Vec::new();
                while (content.len() as u64) < size {
                    let Frame::Data(data) = frame(&mut stream).await? else {
                        panic!("a put is not followed by data");
                    };
                    content.extend(data);
                }
                let names: Vec<String> = [path].into_iter().chain(alias).collect();
                state.log.lock().push(format!("put {}", names.join(" ")));
                state.store(&session, tag, &names, &content);
                send(&mut stream, &Response::Stored).await?;
            }
            Request::Remove { .. } if state.cannot_remove_files.load(Ordering::SeqCst) => {
                state.sessions.lock().remove(&session);
                send(&mut stream, &Response::Closed).await?;
                return Ok(());
            }
            Request::Remove { tags } => {
                state.log.lock().push(format!("remove {}", tags.join(" ")));
                state.remove(&session, &tags);
                send(&mut stream, &Response::Removed).await?;
            }
            Request::Exec { code } => {
                let executed = run(&mut stream, state, &session, &code).await;
                let executed = executed.inspect_err(|_| {
                    state.log.lock().push("interrupted".to_owned());
                })?;
                if executed.session_lost {
                    state.sessions.lock().remove(&session);
                }
                send(&mut stream, &Response::Executed(executed)).await?;
            }
            Request::Get { path } => {
                let content = state.sessions.lock()[&session].files.get(&path).cloned();
                let Some(content) = content else {
                    let message = format!("there is no file {path:?}");
                    send(&mut stream, &Response::Refused { message }).await?;
                    continue;
                };
                let size = content.len() as u64;
                send(&mut stream, &Response::File { size }).await?;
                // In two frames, as large files are sent.
                for piece in content.chunks(content.len().div_ceil(2).max(1)) {
                    let frame = Frame::Data(piece.to_vec())
                        .encode()
                        .expect("the number is small");
                    stream.write_all(&frame).await?;
                }
            }
            other => panic!("unexpected request: {other:?}"),
        }
    }
}

async fn run(
    stream: &mut impl Stream,
    state: &State,
    session: &str,
    code: &str,
) -> io::Result<Executed> {
    let mut executed = Executed {
        status: ExecStatus::Ok,
        session_lost: false,
        wall_ms: 1,
        cpu_ms: 1,
        truncated: false,
        files: Vec::new(),
        files_dropped: false,
    };
    for line in code.lines() {
        state.log.lock().push(line.to_owned());
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let text = |source, text: String| Response::Text { source, text };
        match command {
            "say" => send(stream, &text(TextSource::Stdout, format!("{rest}\n"))).await?,
            "result" => send(stream, &text(TextSource::Result, rest.to_owned())).await?,
            "nul" => {
                for source in [
                    TextSource::Stdout,
                    TextSource::Result,
                    TextSource::Traceback,
                ] {
                    send(stream, &text(source, "a\0b\n".to_owned())).await?;
                }
                let path = "c\0.csv".to_owned();
                executed.files.push(ChangedFile { path, size: 1 });
            }
            "show" => {
                let size = PICTURE.len() as u64;
                let mime = "image/png".to_owned();
                send(stream, &Response::Image { mime, size }).await?;
                let frame = Frame::Data(PICTURE.to_vec()).encode();
                stream
                    .write_all(&frame.expect("the number is small"))
                    .await?;
            }
            "write" => {
                let (path, content) = rest.split_once(' ').expect("a path and a text");
                let file = ChangedFile {
                    path: path.to_owned(),
                    size: content.len() as u64,
                };
                executed.files.push(file);
                let mut sessions = state.sessions.lock();
                let files = &mut sessions.entry(session.to_owned()).or_default().files;
                files.insert(path.to_owned(), content.into());
            }
            "read" => {
                let content = state.sessions.lock()[session].files.get(rest).cloned();
                let content = content.unwrap_or_else(|| b"no such file".to_vec());
                let content = String::from_utf8(content).expect("tests write text");
                send(stream, &text(TextSource::Stdout, format!("{content}\n"))).await?;
            }
            "wait" => tokio::select! {
                () = state.go_on.notified() => {}
                gone = stream.read_u8() => {
                    gone?;
                    panic!("a request while a cell runs");
                }
            },
            "lose" => {
                executed.status = ExecStatus::OutOfMemory;
                executed.session_lost = true;
                break;
            }
            "die" => return Err(io::ErrorKind::ConnectionAborted.into()),
            other => panic!("unknown command: {other}"),
        }
    }
    Ok(executed)
}

async fn receive(stream: &mut impl Stream) -> io::Result<Request> {
    let frame = frame(stream).await?;
    Ok(frame.read().expect("the server keeps the protocol"))
}

async fn frame(stream: &mut impl Stream) -> io::Result<Frame> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let (kind, length) = parse_header(header).expect("the server keeps the protocol");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Frame::new(kind, body).expect("the kind is known"))
}

async fn send(stream: &mut impl Stream, response: &Response) -> io::Result<()> {
    let frame = Frame::message(response).and_then(|frame| frame.encode());
    stream.write_all(&frame.expect("the number is small")).await
}
