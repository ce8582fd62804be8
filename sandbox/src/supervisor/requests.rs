//! One client's conversation, from its greeting to its end.

use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::Report;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::VERSION;
use tokio::time::timeout;

use crate::supervisor::connection::Conversation;
use crate::supervisor::connection::Ended;
use crate::supervisor::connection::PIECE_BYTES;
use crate::supervisor::session_registry::Attached;
use crate::supervisor::session_registry::Opening;
use crate::supervisor::session_registry::Sessions;
use crate::supervisor::workspace::Workspace;
use crate::supervisor::workspace::read_piece;

/// How long a client may take to greet.
const GREETING_TIME: Duration = Duration::from_secs(10);

/// Longest code of a cell in bytes.
const CODE_BYTES: usize = 1 << 20;

/// Longest name of a session.
const NAME_BYTES: usize = 128;

/// Longest label of a project.
const PROJECT_BYTES: usize = 128;

/// What all connections share.
pub struct Shared {
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// What is told of the worker.
    pub report: Report,
    /// What clients have to know.
    pub token: Option<String>,
}

/// Converses until the client has gone, or breaks the rules.
pub async fn serve(mut client: Conversation, shared: &Shared) {
    match converse(&mut client, shared).await {
        Ok(()) | Err(Ended::Closed) => {}
        Err(ended) => tracing::warn!("a connection ended: {ended}"),
    }
}

async fn converse(client: &mut Conversation, shared: &Shared) -> Result<(), Ended> {
    if !greet(client, shared).await? {
        return Ok(());
    }
    let mut attached: Option<Box<Attached>> = None;
    loop {
        let request = client.request().await?;
        if let Request::Open {
            session,
            project,
            create,
        } = request
        {
            drop(attached.take());
            attached = open(client, shared, &session, &project, create).await?;
            continue;
        }
        match (request, attached.take()) {
            (Request::Interrupt, held) => attached = held,
            (Request::Close, Some(held)) => {
                held.close();
                client.say(&Response::Closed).await?;
            }
            (request, Some(held)) => attached = act(client, held, request).await?,
            (Request::Put { size, .. }, None) => {
                skip(client, size).await?;
                refuse(client, "no session is open").await?;
            }
            (_, None) => refuse(client, "no session is open").await?,
        }
    }
}

/// What is asked of an open session. Gives it back if it is still there.
async fn act(
    client: &mut Conversation,
    mut held: Box<Attached>,
    request: Request,
) -> Result<Option<Box<Attached>>, Ended> {
    match request {
        Request::Exec { code } if code.len() > CODE_BYTES => {
            refuse(client, "a cell may have 1 MiB of code").await?;
        }
        Request::Exec { code } => {
            let executed = held.session().exec(&code, client).await;
            let lost = !held.session().vitals().alive();
            if lost {
                held.close();
                client.say(&Response::Executed(executed?)).await?;
                return Ok(None);
            }
            client.say(&Response::Executed(executed?)).await?;
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
                // What the client has taken away must not stay within reach of code.
                tracing::warn!("a session ends, as a file cannot be removed from it: {error}");
                held.close();
                client.say(&Response::Closed).await?;
                return Ok(None);
            }
            client.say(&Response::Removed).await?;
        }
        Request::Get { path } => get(client, held.session().workspace(), &path).await?,
        Request::Hello { .. } => return Err(Ended::OutOfTurn),
        Request::Open { .. } | Request::Interrupt | Request::Close => {}
    }
    Ok(Some(held))
}

/// Whether the client may go on.
async fn greet(client: &mut Conversation, shared: &Shared) -> Result<bool, Ended> {
    let Ok(request) = timeout(GREETING_TIME, client.request()).await else {
        return Ok(false);
    };
    let Request::Hello { version, token } = request? else {
        return Err(Ended::OutOfTurn);
    };
    if version != VERSION {
        let message = format!(
            "this worker speaks version {VERSION} of the protocol, not {version}: assistd and \
             assistd-sandbox must be of the same release"
        );
        refuse(client, &message).await?;
        return Ok(false);
    }
    if let Some(wanted) = &shared.token
        && !same(wanted.as_bytes(), token.unwrap_or_default().as_bytes())
    {
        refuse(client, "the token is wrong").await?;
        return Ok(false);
    }
    let report = Report {
        sessions: u32::try_from(shared.sessions.count()).unwrap_or(u32::MAX),
        ..shared.report.clone()
    };
    client.say(&Response::Hello(report)).await?;
    Ok(true)
}

async fn open(
    client: &mut Conversation,
    shared: &Shared,
    name: &str,
    project: &str,
    create: bool,
) -> Result<Option<Box<Attached>>, Ended> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(good) {
        refuse(client, "a session's name is 1 to 128 of A-Z a-z 0-9 _ -").await?;
        return Ok(None);
    }
    if project.len() > PROJECT_BYTES {
        refuse(client, "a project's label has at most 128 bytes").await?;
        return Ok(None);
    }
    let opening = tokio::select! {
        opening = shared.sessions.open(name, project, create) => opening,
        () = client.closed() => return Err(Ended::Closed),
    };
    let (response, attached) = match opening {
        Ok(Opening::Opened {
            mut attached,
            fresh,
            notice,
        }) => {
            let opened = Response::Opened {
                fresh,
                files: attached.session().workspace().placed(),
                notice,
            };
            (opened, Some(attached))
        }
        Ok(Opening::Absent) => (Response::Absent, None),
        Ok(Opening::Busy) => (Response::Busy, None),
        Err(error) => {
            tracing::error!("no session: {error}");
            let message = error.to_string();
            (Response::Refused { message }, None)
        }
    };
    client.say(&response).await?;
    Ok(attached)
}

async fn put(
    client: &mut Conversation,
    workspace: &mut Workspace,
    path: &str,
    alias: Option<&str>,
    tag: &str,
    size: u64,
) -> Result<(), Ended> {
    let mut put = workspace.put(path, alias, tag, size);
    let mut left = size;
    while left > 0 {
        let piece = client.data().await?;
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or(Ended::OutOfTurn)?;
        if let Ok(writing) = &mut put
            && let Err(refused) = writing.write(&piece)
        {
            put = Err(refused);
        }
    }
    match put.and_then(|put| workspace.finish(put)) {
        Ok(()) => client.say(&Response::Stored).await,
        Err(refused) => refuse(client, &refused.to_string()).await,
    }
}

async fn get(client: &mut Conversation, workspace: &Workspace, path: &str) -> Result<(), Ended> {
    let (mut file, size) = match workspace.read(path) {
        Ok(found) => found,
        Err(refused) => return refuse(client, &refused.to_string()).await,
    };
    client.say(&Response::File { size }).await?;
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut piece = vec![0; wanted];
        let read = read_piece(&mut file, &mut piece)?;
        if read < wanted {
            // The size is told; there is no other way to take it back.
            return Err(std::io::Error::other("a file shrank while it was read").into());
        }
        left -= read as u64;
        client.send_piece(piece).await?;
    }
    Ok(())
}

/// Reads data that nobody wants.
async fn skip(client: &mut Conversation, size: u64) -> Result<(), Ended> {
    let mut left = size;
    while left > 0 {
        let piece = client.data().await?;
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or(Ended::OutOfTurn)?;
    }
    Ok(())
}

async fn refuse(client: &mut Conversation, message: &str) -> Result<(), Ended> {
    let message = message.to_owned();
    client.say(&Response::Refused { message }).await
}

/// Compares without telling by the time it takes where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}
