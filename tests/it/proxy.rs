//! A TCP proxy between a server and its database. It can kill the server at a chosen statement, let
//! the server's client hang up there, or drop all connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::cluster::{Db, cluster};

/// When to act, relative to the reply of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPoint {
    /// After the server has received the statement's result.
    AfterReply,
    /// Before: the statement is executed, but the server does not learn of it.
    BeforeReply,
}

pub struct Proxy {
    /// For `DATABASE_URL`.
    pub url: String,
    kill_switch: Arc<KillSwitch>,
    is_connected: watch::Sender<bool>,
}

/// Counts executed statements down to the one at which to act.
#[derive(Default)]
struct KillSwitch(Mutex<Option<Countdown>>);

struct Countdown {
    statements_left: usize,
    point: KillPoint,
    action: Action,
}

enum Action {
    Kill(Pid),
    HangUp(Box<dyn FnOnce() + Send>),
}

/// How long a statement's reply is delayed after a client has hung up, so that the server notices
/// the hang-up first.
const REPLY_DELAY: Duration = Duration::from_millis(30);

impl Proxy {
    pub async fn start(db: &Db) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let port = listener.local_addr().expect("the listener is bound").port();
        let kill_switch = Arc::new(KillSwitch::default());
        let (is_connected, connected) = watch::channel(true);
        tokio::spawn(serve(listener, kill_switch.clone(), connected));
        Self {
            url: format!(
                "postgres://assistd@127.0.0.1:{port}/{}?sslmode=disable",
                db.name
            ),
            kill_switch,
            is_connected,
        }
    }

    /// Drops all connections and refuses new ones.
    pub fn disconnect(&self) {
        self.is_connected.send_replace(false);
    }

    /// Accepts connections again.
    pub fn reconnect(&self) {
        self.is_connected.send_replace(true);
    }

    /// Kills the process at the `n`th statement from now, counted from one.
    pub fn kill_at(&self, n: usize, point: KillPoint, victim: Pid) {
        *self.kill_switch.0.lock() = Some(Countdown {
            statements_left: n,
            point,
            action: Action::Kill(victim),
        });
    }

    /// Hangs up while the server waits for the reply to its `n`th statement from now, counted from
    /// one.
    pub fn hang_up_at(&self, n: usize, hang_up: impl FnOnce() + Send + 'static) {
        *self.kill_switch.0.lock() = Some(Countdown {
            statements_left: n,
            point: KillPoint::BeforeReply,
            action: Action::HangUp(Box::new(hang_up)),
        });
    }

    /// Whether the statement was reached.
    pub fn has_fired(&self) -> bool {
        self.kill_switch.0.lock().is_none()
    }

    /// Cancels the action; whether it was still pending.
    pub fn disarm(&self) -> bool {
        self.kill_switch.0.lock().take().is_some()
    }
}

impl KillSwitch {
    /// Counts one executed statement; yields the action at the chosen one.
    fn tick(&self) -> Option<Countdown> {
        let mut countdown = self.0.lock();
        countdown.as_mut()?.statements_left -= 1;
        countdown.take_if(|countdown| countdown.statements_left == 0)
    }
}

async fn serve(
    listener: TcpListener,
    kill_switch: Arc<KillSwitch>,
    connected: watch::Receiver<bool>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (kill_switch, mut connected) = (kill_switch.clone(), connected.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = connected.wait_for(|is_connected| !is_connected) => {}
                _ = forward(client, kill_switch) => {}
            }
        });
    }
}

/// Forwards one connection. Errors are expected: tests kill either side.
async fn forward(client: TcpStream, kill_switch: Arc<KillSwitch>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let database = UnixStream::connect(cluster().socket()).await?;
    let (from_database, mut to_database) = database.into_split();
    let replies = forward_replies(from_database, to_client, kill_switch);
    let requests = async move {
        let copied = tokio::io::copy(&mut from_client, &mut to_database).await;
        drop(to_database);
        copied
    };
    let _ = tokio::join!(requests, replies);
    Ok(())
}

/// Forwards the database's messages. Each is a type byte, a length of four bytes that includes
/// itself, and the payload.
async fn forward_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    kill_switch: Arc<KillSwitch>,
) -> io::Result<()> {
    const COMMAND_COMPLETE: u8 = b'C';
    const READY_FOR_QUERY: u8 = b'Z';
    let mut executed = false;
    loop {
        let mut message = vec![0; 5];
        from.read_exact(&mut message).await?;
        let length = [message[1], message[2], message[3], message[4]];
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        message.resize(length + 1, 0);
        from.read_exact(&mut message[5..]).await?;
        executed |= message[0] == COMMAND_COMPLETE;
        let is_reply_end = message[0] == READY_FOR_QUERY && std::mem::take(&mut executed);
        let Some(due) = is_reply_end.then(|| kill_switch.tick()).flatten() else {
            to.write_all(&message).await?;
            continue;
        };
        if due.point == KillPoint::AfterReply {
            to.write_all(&message).await?;
        }
        match due.action {
            Action::Kill(victim) => {
                // The test reaps the process later, so the id cannot belong to another one yet.
                let _ = kill(victim, Signal::SIGKILL);
                return Ok(());
            }
            Action::HangUp(hang_up) => {
                hang_up();
                tokio::time::sleep(REPLY_DELAY).await;
                to.write_all(&message).await?;
            }
        }
    }
}
