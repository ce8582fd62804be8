//! A sandbox worker that runs no Python: a cell's code is a list of things to do, one a line.
//!
//! | line            | what the cell does                                            |
//! |-----------------|---------------------------------------------------------------|
//! | `say TEXT`      | prints a line                                                 |
//! | `result TEXT`   | has this value                                                |
//! | `show`          | shows a picture                                               |
//! | `write A TEXT`  | writes a file                                                 |
//! | `read A`        | prints a file                                                 |
//! | `nul`           | puts U+0000 into everything that is text                      |
//! | `wait`          | does nothing until it is interrupted, or told to go on        |
//! | `lose`          | uses too much memory, which ends the session                  |
//! | `die`           | takes the whole worker along                                  |

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

/// A picture of one pixel.
pub const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0";

/// A worker.
pub struct FakeWorker {
    address: String,
    state: Arc<State>,
    /// Where its socket is, if it is a Unix socket.
    _folder: Option<tempfile::TempDir>,
}

#[derive(Default)]
struct State {
    sessions: Mutex<BTreeMap<String, FakeSession>>,
    /// Everything that happened, a line each.
    log: Mutex<Vec<String>>,
    go_on: Notify,
    is_full: AtomicBool,
    /// Whether files cannot be removed from sessions.
    keeps_files: AtomicBool,
    /// What the next session opened is to be told.
    notice: Mutex<Option<Notice>>,
    /// What clients must know.
    token: Option<String>,
}

#[derive(Default)]
struct FakeSession {
    files: BTreeMap<String, Vec<u8>>,
    /// What was put, each with all its names.
    placed: Vec<(PlacedFile, Vec<String>)>,
}

impl FakeWorker {
    /// Starts one on a Unix socket.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let socket = folder.path().join("worker.sock");
        let listener = UnixListener::bind(&socket).expect("it is a new folder");
        let worker = Self {
            address: format!("unix:{}", socket.display()),
            state: Arc::default(),
            _folder: Some(folder),
        };
        let state = worker.state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                begin(stream, &state);
            }
        });
        worker
    }

    /// Starts one on TCP, which talks only with those who know the token.
    pub async fn start_on_tcp(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there are free ports");
        let address = listener.local_addr().expect("it is bound");
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
                begin(stream, &state);
            }
        });
        worker
    }

    /// For `ASSISTD_SANDBOX`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// What has happened since the last time this was asked.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.log.lock())
    }

    /// Waits until something has happened.
    pub async fn saw(&self, line: &str) {
        eventually(line, || async {
            let seen = self.state.log.lock().iter().any(|seen| seen == line);
            seen.then_some(())
        })
        .await;
    }

    /// Ends all sessions, as the idle limit does.
    pub fn forget(&self) {
        self.state.sessions.lock().clear();
    }

    /// Has no place for new sessions, or has again.
    pub fn set_full(&self, full: bool) {
        self.state.is_full.store(full, Ordering::SeqCst);
    }

    /// Cannot remove files from sessions any more, and ends them instead.
    pub fn keep_files(&self) {
        self.state.keeps_files.store(true, Ordering::SeqCst);
    }

    /// Gives this notice with the next session that is opened.
    pub fn give_notice(&self, notice: Notice) {
        *self.state.notice.lock() = Some(notice);
    }

    /// Lets the cell that waits go on.
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

/// Begins a conversation, which ends when its connection does.
fn begin(stream: impl Stream + 'static, state: &Arc<State>) {
    let state = state.clone();
    tokio::spawn(async move { drop(converse(stream, &state).await) });
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn converse(mut stream: impl Stream, state: &State) -> io::Result<()> {
    let Request::Hello { version, token } = receive(&mut stream).await? else {
        panic!("hello comes first");
    };
    assert_eq!(version, VERSION);
    if token != state.token {
        let message = "wrong token".to_owned();
        return send(&mut stream, &Response::Refused { message }).await;
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
    send(&mut stream, &Response::Hello(report)).await?;
    let Request::Open {
        session,
        project,
        create,
    } = receive(&mut stream).await?
    else {
        panic!("a session is taken next");
    };
    assert!(project.starts_with("proj_"), "{project}");
    let fresh = !state.sessions.lock().contains_key(&session);
    if fresh && !create {
        return send(&mut stream, &Response::Absent).await;
    }
    if fresh && state.is_full.load(Ordering::SeqCst) {
        return send(&mut stream, &Response::Busy).await;
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
    send(&mut stream, &opened).await?;
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
                        panic!("data was announced");
                    };
                    content.extend(data);
                }
                let names: Vec<String> = [path].into_iter().chain(alias).collect();
                state.log.lock().push(format!("put {}", names.join(" ")));
                state.store(&session, tag, &names, &content);
                send(&mut stream, &Response::Stored).await?;
            }
            Request::Remove { .. } if state.keeps_files.load(Ordering::SeqCst) => {
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
                // In two pieces, as large files come.
                for piece in content.chunks(content.len().div_ceil(2).max(1)) {
                    let frame = Frame::Data(piece.to_vec()).encode().expect("it is small");
                    stream.write_all(&frame).await?;
                }
            }
            other => panic!("not asked by this server: {other:?}"),
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
                stream.write_all(&frame.expect("it is small")).await?;
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
                    panic!("nothing is asked while a cell runs");
                }
            },
            "lose" => {
                executed.status = ExecStatus::OutOfMemory;
                executed.session_lost = true;
                break;
            }
            "die" => return Err(io::ErrorKind::ConnectionAborted.into()),
            other => panic!("no such thing to do: {other}"),
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
    stream.write_all(&frame.expect("it is small")).await
}
