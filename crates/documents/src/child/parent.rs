//! The parent's side.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::process::ChildStderr;
use tokio::process::ChildStdin;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::time::timeout;

use crate::ExtractError;
use crate::Section;

use super::Limits;
use super::Line;
use super::MIB;
use super::Order;

/// How much of what the child says on standard error is looked at.
const MAX_STDERR_BYTES: u64 = 4096;

/// The program that reads a file, as a child of this process.
#[derive(Debug, Clone)]
pub struct Reader {
    /// It must call [`serve`](super::serve) first thing.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// A library of PDFium that reads PDF files, which everybody may read; `None` is the parser that
    /// is built in.
    pub pdfium: Option<PathBuf>,
}

impl Reader {
    /// Starts the program, gives it the file and returns its sections.
    ///
    /// The child gets an empty environment and lives no longer than this future.
    ///
    /// # Errors
    /// What the file does to the child is an error of the file; only what keeps it from being tried
    /// is [`ExtractError::Internal`].
    pub async fn read(
        &self,
        name: &str,
        file: impl AsyncRead + Unpin,
        limits: &Limits,
    ) -> Result<Vec<Section>, ExtractError> {
        let order = Order {
            name: name.to_owned(),
            limits: limits.clone(),
            pdfium: self.pdfium.clone(),
        };
        run(self, &order, file).await
    }
}

async fn run(
    reader: &Reader,
    order: &Order,
    file: impl AsyncRead + Unpin,
) -> Result<Vec<Section>, ExtractError> {
    let limits = &order.limits;
    let mut child = Command::new(&reader.program)
        .args(&reader.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| internal("could not start", &error))?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(ExtractError::Internal("has no pipes".to_owned()));
    };
    let talk = async {
        let (given, answer, complaint) = tokio::join!(
            give(stdin, order, file),
            hear(stdout, limits.text_bytes),
            listen(stderr)
        );
        given?;
        match answer? {
            Answer::Ended(end) => end,
            Answer::Broken => {
                let status = child
                    .wait()
                    .await
                    .map_err(|error| internal("was lost", &error))?;
                Err(cause_of_death(status, &complaint))
            }
        }
    };
    timeout(Duration::from_secs(limits.wall_seconds), talk)
        .await
        .unwrap_or(Err(ExtractError::TookTooLong))
}

/// Writes the order and the file. A child that stops reading has made up its mind: what it says
/// counts.
async fn give(
    mut stdin: ChildStdin,
    order: &Order,
    mut file: impl AsyncRead + Unpin,
) -> Result<(), ExtractError> {
    let mut line =
        serde_json::to_vec(order).map_err(|error| internal("could not be ordered", &error))?;
    line.push(b'\n');
    if stdin.write_all(&line).await.is_err() {
        return Ok(());
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file
            .read(&mut buffer)
            .await
            .map_err(|error| internal("could not be given the file", &error))?;
        if read == 0 || stdin.write_all(&buffer[..read]).await.is_err() {
            return Ok(());
        }
    }
}

/// What came on the child's standard output.
enum Answer {
    /// All of it, to its last line.
    Ended(Result<Vec<Section>, ExtractError>),
    /// Not all, or something else.
    Broken,
}

/// Reads sections up to the last line. The child keeps to its limit of text by itself; a child that
/// a document has taken over may not, so there is one here too.
async fn hear(stdout: ChildStdout, text_bytes: u64) -> Result<Answer, ExtractError> {
    // In JSON a character of clean text takes twice its bytes at most.
    let mut stdout = BufReader::new(stdout.take(text_bytes.saturating_mul(2).saturating_add(MIB)));
    let mut sections = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        stdout
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| internal("could not be heard", &error))?;
        match serde_json::from_slice(&line) {
            Ok(Line::Section(section)) => sections.push(section),
            Ok(Line::Done) => return Ok(Answer::Ended(Ok(sections))),
            Ok(Line::Failed(error)) => return Ok(Answer::Ended(Err(error))),
            Err(_) => return Ok(Answer::Broken),
        }
    }
}

/// The beginning of standard error; the rest is read too, or the child would wait for it.
async fn listen(mut stderr: ChildStderr) -> Vec<u8> {
    let mut beginning = Vec::new();
    // What can not be read is not known; there is nobody to tell.
    let _ = (&mut stderr)
        .take(MAX_STDERR_BYTES)
        .read_to_end(&mut beginning)
        .await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    beginning
}

/// Why a child died without its last line.
fn cause_of_death(status: ExitStatus, complaint: &[u8]) -> ExtractError {
    let complaint = String::from_utf8_lossy(complaint);
    match status.signal().map(Signal::try_from) {
        Some(Ok(Signal::SIGXCPU)) => ExtractError::TookTooLong,
        // The standard library says these two, and then aborts.
        Some(Ok(Signal::SIGABRT)) if complaint.contains("memory allocation of") => {
            ExtractError::NeededTooMuchMemory
        }
        Some(Ok(Signal::SIGABRT)) if complaint.contains("overflowed its stack") => {
            ExtractError::NestedTooDeeply
        }
        Some(Ok(
            Signal::SIGABRT | Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE,
        )) => ExtractError::Crashed,
        // SIGKILL comes from an operator, or from a kernel that needs memory for others.
        _ => ExtractError::Internal(format!("the child ended early: {status}")),
    }
}

fn internal(what: &str, error: &dyn std::error::Error) -> ExtractError {
    ExtractError::Internal(format!("the child {what}: {error}"))
}
