//! Stands between a server and its database: kills the server at a chosen statement, lets its client
//! hang up there, or cuts the line.

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

/// When to kill, seen from the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The statement is done, and the server was told.
    Told,
    /// The statement is done, and the server will never hear of it.
    Untold,
}

/// A way to a database that counts finished statements.
pub struct Proxy {
    /// For `DATABASE_URL`.
    pub url: String,
    fuse: Arc<Fuse>,
    is_whole: watch::Sender<bool>,
}

/// A fuse that burns one statement at a time.
#[derive(Default)]
struct Fuse(Mutex<Option<Burning>>);

struct Burning {
    left: usize,
    moment: Moment,
    strike: Strike,
}

/// What happens at the statement.
enum Strike {
    Kill(Pid),
    HangUp(Box<dyn FnOnce() + Send>),
}

/// How long a statement's answer is held back after a client has hung up, so that the server sees
/// the hang-up first.
const HELD_BACK: Duration = Duration::from_millis(30);

impl Proxy {
    /// A way to this database.
    pub async fn start(db: &Db) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there are free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let fuse = Arc::new(Fuse::default());
        let (is_whole, line) = watch::channel(true);
        tokio::spawn(serve(listener, fuse.clone(), line));
        Self {
            url: format!(
                "postgres://assistd@127.0.0.1:{port}/{}?sslmode=disable",
                db.name
            ),
            fuse,
            is_whole,
        }
    }

    /// Breaks all connections, and lets none through.
    pub fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.is_whole.send_replace(true);
    }

    /// Kills the process at the `n`th statement from now on, counted from one.
    pub fn kill_at(&self, n: usize, moment: Moment, victim: Pid) {
        *self.fuse.0.lock() = Some(Burning {
            left: n,
            moment,
            strike: Strike::Kill(victim),
        });
    }

    /// Hangs up while the server waits for the answer to its `n`th statement from now on, counted
    /// from one.
    pub fn hang_up_at(&self, n: usize, hang_up: impl FnOnce() + Send + 'static) {
        *self.fuse.0.lock() = Some(Burning {
            left: n,
            moment: Moment::Untold,
            strike: Strike::HangUp(Box::new(hang_up)),
        });
    }

    /// Whether there is no kill to come.
    pub fn has_killed(&self) -> bool {
        self.fuse.0.lock().is_none()
    }

    /// Whether the kill was still to come; now it will not.
    pub fn disarm(&self) -> bool {
        self.fuse.0.lock().take().is_some()
    }
}

impl Fuse {
    /// Counts a statement; what to do now if it was the one.
    fn burn(&self) -> Option<Burning> {
        let mut burning = self.0.lock();
        burning.as_mut()?.left -= 1;
        burning.take_if(|burning| burning.left == 0)
    }
}

async fn serve(listener: TcpListener, fuse: Arc<Fuse>, line: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        let (fuse, mut line) = (fuse.clone(), line.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = line.wait_for(|is_whole| !is_whole) => {}
                _ = connect(client, fuse) => {}
            }
        });
    }
}

/// Carries one connection. It ends with an error whenever one side is killed, which is our trade.
async fn connect(client: TcpStream, fuse: Arc<Fuse>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut asks, to_client) = client.into_split();
    let database = UnixStream::connect(cluster().socket()).await?;
    let (from_database, mut to_database) = database.into_split();
    let answers = carry_answers(from_database, to_client, fuse);
    let asks = async move {
        let copied = tokio::io::copy(&mut asks, &mut to_database).await;
        drop(to_database);
        copied
    };
    let _ = tokio::join!(asks, answers);
    Ok(())
}

/// Carries the database's messages: a byte that says what it is, four bytes of length (which
/// counts itself), and the rest.
async fn carry_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fuse: Arc<Fuse>,
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
        let done = message[0] == READY_FOR_QUERY && std::mem::take(&mut executed);
        let Some(burning) = done.then(|| fuse.burn()).flatten() else {
            to.write_all(&message).await?;
            continue;
        };
        if burning.moment == Moment::Told {
            to.write_all(&message).await?;
        }
        match burning.strike {
            Strike::Kill(victim) => {
                // The test waits for the process only after this, so the id is still its own.
                let _ = kill(victim, Signal::SIGKILL);
                return Ok(());
            }
            Strike::HangUp(hang_up) => {
                hang_up();
                tokio::time::sleep(HELD_BACK).await;
                to.write_all(&message).await?;
            }
        }
    }
}
