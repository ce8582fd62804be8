//! The parent: starts the child, sends it the file, and receives the sections.

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
use crate::Extraction;

use super::Limits;
use super::MIB;
use super::OutputLine;
use super::ReadRequest;

const MAX_STDERR_BYTES: u64 = 4096;

/// A PDF with one word. Readers do without a table of its objects.
const SAMPLE_PDF: &[u8] = b"%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R
/Resources<</Font<</F <</Type/Font/Subtype/Type1/BaseFont/Helvetica>> >> >> >> endobj
4 0 obj <</Length 28>> stream
BT /F 9 Tf 9 9 Td (Hi) Tj ET
endstream endobj
trailer <</Root 1 0 R>>
%%EOF";

#[derive(Debug, Clone)]
pub struct Reader {
    /// Must call [`serve`](super::serve) at the start of `main`.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The PDFium library; PDF files are refused without one.
    pub pdfium: Option<PathBuf>,
}

impl Reader {
    /// Starts the program, sends it the file and returns its text.
    ///
    /// The child has an empty environment, and is killed when this future is dropped.
    ///
    /// # Errors
    /// A failure of the child counts as an error of the file. [`ExtractError::Internal`] is only
    /// returned if the child could not be run or could not be given the whole file.
    pub async fn read(
        &self,
        name: &str,
        file: impl AsyncRead + Unpin,
        limits: &Limits,
    ) -> Result<Extraction, ExtractError> {
        let request = ReadRequest {
            name: name.to_owned(),
            limits: limits.clone(),
            pdfium: self.pdfium.clone(),
        };
        run(self, &request, file).await
    }

    /// Reads a small PDF, to check that PDFium works.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn check_pdf(&self) -> Result<(), ExtractError> {
        let limits = Limits::default();
        self.read("sample.pdf", SAMPLE_PDF, &limits).await?;
        Ok(())
    }
}

async fn run(
    reader: &Reader,
    request: &ReadRequest,
    file: impl AsyncRead + Unpin,
) -> Result<Extraction, ExtractError> {
    let limits = &request.limits;
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
    let exchange = async {
        let (sent, output, stderr) = tokio::join!(
            send_file(stdin, request, file),
            receive_sections(stdout, limits.text_bytes),
            read_stderr(stderr)
        );
        sent?;
        match output? {
            Output::Complete(result) => result,
            Output::Incomplete => {
                let status = child
                    .wait()
                    .await
                    .map_err(|error| internal("was lost", &error))?;
                Err(error_of_exit(status, &stderr))
            }
        }
    };
    timeout(Duration::from_secs(limits.wall_seconds), exchange)
        .await
        .unwrap_or(Err(ExtractError::TookTooLong))
}

/// Writes the request and the file. If the child stops reading, its output has the result.
async fn send_file(
    mut stdin: ChildStdin,
    request: &ReadRequest,
    mut file: impl AsyncRead + Unpin,
) -> Result<(), ExtractError> {
    let mut line =
        serde_json::to_vec(request).map_err(|error| internal("got no request", &error))?;
    line.push(b'\n');
    if stdin.write_all(&line).await.is_err() {
        return Ok(());
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file
            .read(&mut buffer)
            .await
            .map_err(|error| internal("could not be sent the file", &error))?;
        if read == 0 || stdin.write_all(&buffer[..read]).await.is_err() {
            return Ok(());
        }
    }
}

enum Output {
    Complete(Result<Extraction, ExtractError>),
    /// It ended early, or a line is invalid.
    Incomplete,
}

/// Reads sections up to the last line. The child enforces the limit of text itself, but a child
/// that was taken over by a document may not, so the output is bounded here as well.
async fn receive_sections(stdout: ChildStdout, text_bytes: u64) -> Result<Output, ExtractError> {
    // JSON at most doubles the length of a character of cleaned text.
    let mut stdout = BufReader::new(stdout.take(text_bytes.saturating_mul(2).saturating_add(MIB)));
    let mut sections = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        stdout
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| internal("could not be read from", &error))?;
        match serde_json::from_slice(&line) {
            Ok(OutputLine::Section(section)) => sections.push(section),
            Ok(OutputLine::Done { loss }) => {
                return Ok(Output::Complete(Ok(Extraction { sections, loss })));
            }
            Ok(OutputLine::Failed(error)) => return Ok(Output::Complete(Err(error))),
            Err(_) => return Ok(Output::Incomplete),
        }
    }
}

/// Reads all of standard error, since a full pipe would block the child; returns the beginning.
async fn read_stderr(mut stderr: ChildStderr) -> Vec<u8> {
    let mut beginning = Vec::new();
    // A read error is ignored: a truncated text still serves to classify the failure.
    let _ = (&mut stderr)
        .take(MAX_STDERR_BYTES)
        .read_to_end(&mut beginning)
        .await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    beginning
}

fn error_of_exit(status: ExitStatus, stderr: &[u8]) -> ExtractError {
    let stderr = String::from_utf8_lossy(stderr);
    match status.signal().map(Signal::try_from) {
        Some(Ok(Signal::SIGXCPU)) => ExtractError::TookTooLong,
        // The standard library prints these two messages before it aborts.
        Some(Ok(Signal::SIGABRT)) if stderr.contains("memory allocation of") => {
            ExtractError::NeededTooMuchMemory
        }
        Some(Ok(Signal::SIGABRT)) if stderr.contains("overflowed its stack") => {
            ExtractError::NestedTooDeeply
        }
        Some(Ok(
            Signal::SIGABRT | Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE,
        )) => ExtractError::Crashed,
        // SIGKILL comes from an operator or from the kernel's OOM killer.
        _ => ExtractError::Internal(format!("the child ended early: {status}")),
    }
}

fn internal(what: &str, error: &dyn std::error::Error) -> ExtractError {
    ExtractError::Internal(format!("the child {what}: {error}"))
}
