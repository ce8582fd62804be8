//! The child: reads the request and the file, and writes the sections.

use std::io::BufRead;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Stdin;
use std::io::Write;
use std::io::stdin;
use std::io::stdout;
use std::process::ExitCode;
use std::thread;

use pdfium::Pdfium;

use crate::ExtractError;
use crate::Loss;
use crate::extract::extract;
use crate::extract::load_pdfium;

use super::OutputLine;
use super::ReadRequest;
use super::confine::confine;

/// Stack size of the extraction thread. Parsers recurse, and the size of the main thread's stack
/// depends on the environment.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Runs the child. Must be called at the start of `main`, before any thread exists, so that the
/// limits apply to all threads.
pub fn serve() -> ExitCode {
    // A panic is reported as an output line. Its message could quote the document.
    std::panic::set_hook(Box::new(|_| {}));
    let result = match process_request() {
        Ok(loss) => OutputLine::Done { loss },
        Err(error) => OutputLine::Failed(error),
    };
    // Writing fails only if the parent is gone.
    match write_line(&mut stdout().lock(), &result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn process_request() -> Result<Option<Loss>, ExtractError> {
    let mut input = BufReader::new(stdin());
    let request = read_request(&mut input)?;
    // Before the process drops its privileges: the library may be in a folder of this user only.
    let pdfium = load_pdfium(request.pdfium.as_deref());
    confine(&request.limits).map_err(|error| internal("could not limit the process", &error))?;
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || write_sections(&request, pdfium, input))
        .map_err(|error| internal("could not start a thread", &error))?
        .join()
        .unwrap_or(Err(ExtractError::Crashed))
}

fn write_sections(
    request: &ReadRequest,
    pdfium: Result<Pdfium, ExtractError>,
    file: impl Read,
) -> Result<Option<Loss>, ExtractError> {
    let mut bytes = Vec::new();
    let read = file
        .take(request.limits.file_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| match error.kind() {
            ErrorKind::OutOfMemory => ExtractError::NeededTooMuchMemory,
            _ => internal("could not read the file", &error),
        })?;
    if read as u64 > request.limits.file_bytes {
        return Err(ExtractError::TooLarge);
    }
    let max_text_bytes = usize::try_from(request.limits.text_bytes).unwrap_or(usize::MAX);
    let mut out = BufWriter::new(stdout().lock());
    let loss = extract(
        &request.name,
        bytes,
        pdfium,
        max_text_bytes,
        &mut |section| {
            write_line(&mut out, &OutputLine::Section(section)).map_err(|error| write_error(&error))
        },
    )?;
    out.flush().map_err(|error| write_error(&error))?;
    Ok(loss)
}

fn read_request(input: &mut BufReader<Stdin>) -> Result<ReadRequest, ExtractError> {
    let mut line = String::new();
    input
        .read_line(&mut line)
        .map_err(|error| internal("could not read the request", &error))?;
    serde_json::from_str(&line).map_err(|error| internal("could not parse the request", &error))
}

fn write_line(out: &mut impl Write, line: &OutputLine) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn write_error(error: &std::io::Error) -> ExtractError {
    internal("could not write the output", error)
}

fn internal(what: &str, error: &dyn std::error::Error) -> ExtractError {
    ExtractError::Internal(format!("{what}: {error}"))
}
