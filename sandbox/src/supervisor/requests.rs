//! Handles the requests of one connection.

use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::Report;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::VERSION;
use tokio::time::timeout;

use crate::supervisor::connection::Connection;
use crate::supervisor::connection::ConnectionError;
use crate::supervisor::connection::DATA_FRAME_BYTES;
use crate::supervisor::session_registry::HeldSession;
use crate::supervisor::session_registry::OpenOutcome;
use crate::supervisor::session_registry::SessionRegistry;
use crate::supervisor::workspace::Workspace;
use crate::supervisor::workspace::read_full;

/// How long a client may take to send its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of a cell's code in bytes.
const CODE_BYTES: usize = 1 << 20;

/// Maximum length of a session's name in bytes.
const NAME_BYTES: usize = 128;

/// Maximum length of a project's label in bytes.
const PROJECT_BYTES: usize = 128;

/// State shared by all connections.
pub struct Shared {
    pub sessions: Arc<SessionRegistry>,
    /// The report for clients; the current number of sessions is filled in.
    pub report: Report,
    /// The secret that clients must send, if any.
    pub token: Option<String>,
}

/// Serves a client until it disconnects or violates the protocol.
pub async fn serve(mut client: Connection, shared: &Shared) {
    match handle_requests(&mut client, shared).await {
        Ok(()) | Err(ConnectionError::Closed) => {}
        Err(error) => tracing::warn!("a client connection failed, closing it: {error}"),
    }
}

async fn handle_requests(client: &mut Connection, shared: &Shared) -> Result<(), ConnectionError> {
    if !accept_hello(client, shared).await? {
        return Ok(());
    }
    let mut current: Option<Box<HeldSession>> = None;
    loop {
        let request = client.receive_request().await?;
        if let Request::Open {
            session,
            project,
            create,
        } = request
        {
            drop(current.take());
            current = open(client, shared, &session, &project, create).await?;
            continue;
        }
        match (request, current.take()) {
            (Request::Interrupt, held) => current = held,
            (Request::Close, Some(held)) => {
                held.close();
                client.send(&Response::Closed).await?;
            }
            (request, Some(held)) => current = handle(client, held, request).await?,
            (Request::Put { size, .. }, None) => {
                discard_data(client, size).await?;
                refuse(client, "no session is open").await?;
            }
            (_, None) => refuse(client, "no session is open").await?,
        }
    }
}

/// Handles a request to the held session. Returns the session unless it has ended.
async fn handle(
    client: &mut Connection,
    mut held: Box<HeldSession>,
    request: Request,
) -> Result<Option<Box<HeldSession>>, ConnectionError> {
    match request {
        Request::Exec { code } if code.len() > CODE_BYTES => {
            refuse(client, "a cell may have 1 MiB of code").await?;
        }
        Request::Exec { code } => {
            let executed = held.session().exec(&code, client).await;
            let lost = !held.session().processes().is_alive();
            if lost {
                held.close();
                client.send(&Response::Executed(executed?)).await?;
                return Ok(None);
            }
            client.send(&Response::Executed(executed?)).await?;
        }
        Request::Put {
            path,
            alias,
            tag,
            size,
        } => {
            let workspace = held.session().workspace();
            put(client, workspace, &path, alias.as_deref(), &tag, size).await?;
        }
        Request::Remove { tags } => {
            if let Err(error) = held.session().workspace().remove(&tags) {
                // Code must not keep access to a file that the client has withdrawn.
                tracing::warn!(
                    "could not remove a file that the client withdrew; ending the session: {error}"
                );
                held.close();
                client.send(&Response::Closed).await?;
                return Ok(None);
            }
            client.send(&Response::Removed).await?;
        }
        Request::Get { path } => get(client, held.session().workspace(), &path).await?,
        Request::Hello { .. } => return Err(ConnectionError::UnexpectedRequest),
        Request::Open { .. } | Request::Interrupt | Request::Close => {}
    }
    Ok(Some(held))
}

/// Checks the client's version and token. Returns whether it is accepted.
async fn accept_hello(client: &mut Connection, shared: &Shared) -> Result<bool, ConnectionError> {
    let Ok(request) = timeout(HELLO_TIMEOUT, client.receive_request()).await else {
        return Ok(false);
    };
    let Request::Hello { version, token } = request? else {
        return Err(ConnectionError::UnexpectedRequest);
    };
    if version != VERSION {
        let message = format!(
            "this worker speaks version {VERSION} of the protocol, not {version}: assistd and \
             assistd-sandbox must be of the same release"
        );
        refuse(client, &message).await?;
        return Ok(false);
    }
    if let Some(expected) = &shared.token
        && !equals_in_constant_time(expected.as_bytes(), token.unwrap_or_default().as_bytes())
    {
        refuse(client, "the token is wrong").await?;
        return Ok(false);
    }
    let report = Report {
        sessions: u32::try_from(shared.sessions.count()).unwrap_or(u32::MAX),
        ..shared.report.clone()
    };
    client.send(&Response::Hello(report)).await?;
    Ok(true)
}

async fn open(
    client: &mut Connection,
    shared: &Shared,
    name: &str,
    project: &str,
    create: bool,
) -> Result<Option<Box<HeldSession>>, ConnectionError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(is_allowed) {
        refuse(client, "a session's name is 1 to 128 of A-Z a-z 0-9 _ -").await?;
        return Ok(None);
    }
    if project.len() > PROJECT_BYTES {
        refuse(client, "a project's label has at most 128 bytes").await?;
        return Ok(None);
    }
    let outcome = tokio::select! {
        outcome = shared.sessions.open(name, project, create) => outcome,
        () = client.closed() => return Err(ConnectionError::Closed),
    };
    let (response, held) = match outcome {
        Ok(OpenOutcome::Opened {
            mut held,
            fresh,
            notice,
        }) => {
            let opened = Response::Opened {
                fresh,
                files: held.session().workspace().placed_files(),
                notice,
            };
            (opened, Some(held))
        }
        Ok(OpenOutcome::Absent) => (Response::Absent, None),
        Ok(OpenOutcome::Busy) => (Response::Busy, None),
        Err(error) => {
            tracing::error!(session = name, "could not create session {name}: {error}");
            let message = error.to_string();
            (Response::Refused { message }, None)
        }
    };
    client.send(&response).await?;
    Ok(held)
}

async fn put(
    client: &mut Connection,
    workspace: &mut Workspace,
    path: &str,
    alias: Option<&str>,
    tag: &str,
    size: u64,
) -> Result<(), ConnectionError> {
    let mut file = workspace.create(path, alias, tag, size);
    let mut left = size;
    while left > 0 {
        let data = client.receive_data().await?;
        left = left
            .checked_sub(data.len() as u64)
            .ok_or(ConnectionError::UnexpectedRequest)?;
        if let Ok(writing) = &mut file
            && let Err(error) = writing.write(&data)
        {
            file = Err(error);
        }
    }
    match file.and_then(|file| workspace.finish(file)) {
        Ok(()) => client.send(&Response::Stored).await,
        Err(error) => refuse(client, &error.to_string()).await,
    }
}

async fn get(
    client: &mut Connection,
    workspace: &Workspace,
    path: &str,
) -> Result<(), ConnectionError> {
    let (mut file, size) = match workspace.open(path) {
        Ok(opened) => opened,
        Err(error) => return refuse(client, &error.to_string()).await,
    };
    client.send(&Response::File { size }).await?;
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).map_or(DATA_FRAME_BYTES, |it| it.min(DATA_FRAME_BYTES));
        let mut data = vec![0; length];
        let read = read_full(&mut file, &mut data)?;
        if read < length {
            // The size was announced, so the protocol is only kept by closing the connection.
            return Err(std::io::Error::other("a file shrank while it was read").into());
        }
        left -= read as u64;
        client.send_data_frame(data).await?;
    }
    Ok(())
}

/// Reads the data of a refused request.
async fn discard_data(client: &mut Connection, size: u64) -> Result<(), ConnectionError> {
    let mut left = size;
    while left > 0 {
        let data = client.receive_data().await?;
        left = left
            .checked_sub(data.len() as u64)
            .ok_or(ConnectionError::UnexpectedRequest)?;
    }
    Ok(())
}

async fn refuse(client: &mut Connection, message: &str) -> Result<(), ConnectionError> {
    let message = message.to_owned();
    client.send(&Response::Refused { message }).await
}

/// Compares in a time that does not depend on where the two differ.
fn equals_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}
