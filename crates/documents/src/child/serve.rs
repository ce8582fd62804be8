//! The child's side.

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

use crate::ExtractError;
use crate::extract::extract;

use super::Line;
use super::Order;
use super::confine::confine;

/// Parsers recurse; the main thread's stack is set by whoever started the server.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The whole life of the child. Call it first thing in `main`, before any thread is started: the
/// limits on the process are then the limits on the extraction alone, and hold in all its threads.
pub fn serve() -> ExitCode {
    // A panic is answered with a line, and its message could quote the document.
    std::panic::set_hook(Box::new(|_| {}));
    let end = match work() {
        Ok(()) => Line::Done,
        Err(error) => Line::Failed(error),
    };
    // Where this can not be written there is no parent any more.
    match write_line(&mut stdout().lock(), &end) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Takes the order, limits the process, and writes the sections from a thread with a stack of
/// known size.
fn work() -> Result<(), ExtractError> {
    let mut input = BufReader::new(stdin());
    let order = read_order(&mut input)?;
    confine(&order.limits).map_err(|error| internal("could not limit the process", &error))?;
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || write_sections(&order, input))
        .map_err(|error| internal("could not start a thread", &error))?
        .join()
        .unwrap_or(Err(ExtractError::Crashed))
}

fn write_sections(order: &Order, file: impl Read) -> Result<(), ExtractError> {
    let mut bytes = Vec::new();
    let read = file
        .take(order.limits.file_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| match error.kind() {
            ErrorKind::OutOfMemory => ExtractError::NeededTooMuchMemory,
            _ => internal("could not read the file", &error),
        })?;
    if read as u64 > order.limits.file_bytes {
        return Err(ExtractError::TooLarge);
    }
    let max_text_bytes = usize::try_from(order.limits.text_bytes).unwrap_or(usize::MAX);
    let mut out = BufWriter::new(stdout().lock());
    let pdfium = order.pdfium.as_deref();
    extract(&order.name, bytes, pdfium, max_text_bytes, &mut |section| {
        write_line(&mut out, &Line::Section(section)).map_err(|error| not_heard(&error))
    })?;
    out.flush().map_err(|error| not_heard(&error))
}

fn read_order(input: &mut BufReader<Stdin>) -> Result<Order, ExtractError> {
    let mut line = String::new();
    input
        .read_line(&mut line)
        .map_err(|error| internal("could not read the order", &error))?;
    serde_json::from_str(&line).map_err(|error| internal("could not understand the order", &error))
}

fn write_line(out: &mut impl Write, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn not_heard(error: &std::io::Error) -> ExtractError {
    internal("could not answer", error)
}

fn internal(what: &str, error: &dyn std::error::Error) -> ExtractError {
    ExtractError::Internal(format!("{what}: {error}"))
}
