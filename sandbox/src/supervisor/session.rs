//! A session that runs cells, and enforces their limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::ExecStatus;
use sandbox_protocol::Executed;
use sandbox_protocol::Notice;
use sandbox_protocol::Request;
use sandbox_protocol::Response;
use sandbox_protocol::TextSource;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep_until;
use tokio::time::timeout;

use crate::settings::Settings;
use crate::supervisor::connection::Connection;
use crate::supervisor::connection::ConnectionError;
use crate::supervisor::cpu::CpuMeter;
use crate::supervisor::kernel_link::DoneStatus;
use crate::supervisor::kernel_link::KernelMessage;
use crate::supervisor::kernel_link::KernelRequest;
use crate::supervisor::kernel_link::encode;
use crate::supervisor::output_limits::OutputLimits;
use crate::supervisor::session_factory::ForkedSession;
use crate::supervisor::session_processes::SessionProcesses;
use crate::supervisor::workspace::Workspace;

/// Interval at which memory and CPU time are sampled while a cell runs.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Interval at which an interrupt is repeated.
const INTERRUPT_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait for the processes of a killed session to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum length of a text response in bytes. JSON escapes may make it six times as long, which
/// must still fit into a frame.
const TEXT_BYTES: usize = 1 << 20;

/// A live session.
pub struct Session {
    forked: ForkedSession,
    settings: Arc<Settings>,
    /// Number of the last cell, from 1.
    cell: u64,
}

/// Why a running cell is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InterruptCause {
    TimeLimit,
    Request,
}

/// A running cell.
struct Cell {
    started: Instant,
    cpu: CpuMeter,
    output: OutputLimits,
    /// Why the cell was interrupted, if it was.
    interrupt_cause: Option<InterruptCause>,
    /// When the cell is interrupted, or, once interrupted, killed.
    deadline: Instant,
    next_interrupt: Instant,
    killed: bool,
    /// An error if the client is gone.
    client: Result<(), ConnectionError>,
}

/// How the kernel's messages about a cell ended.
enum Outcome {
    Done(DoneStatus),
    /// The session has ended.
    Dead,
}

impl Session {
    pub fn new(forked: ForkedSession, settings: Arc<Settings>) -> Self {
        Self {
            forked,
            settings,
            cell: 0,
        }
    }

    pub fn processes(&self) -> &Arc<SessionProcesses> {
        &self.forked.processes
    }

    pub fn workspace(&mut self) -> &mut Workspace {
        &mut self.forked.workspace
    }

    /// Runs a cell and streams its output to the client. If the connection ends, the cell is
    /// interrupted, and this waits for its end before it returns the error.
    pub async fn exec(
        &mut self,
        code: &str,
        client: &mut Connection,
    ) -> Result<Executed, ConnectionError> {
        self.cell += 1;
        self.forked.processes.begin_cell();
        let sample = self.forked.processes.sample();
        let started = Instant::now();
        let mut cell = Cell {
            started,
            cpu: CpuMeter::new(&sample, started.into_std()),
            output: OutputLimits::new(&self.settings),
            interrupt_cause: None,
            deadline: started + self.settings.cell_timeout(),
            next_interrupt: started,
            killed: false,
            client: Ok(()),
        };
        let outcome = self.run_to_end(code, &mut cell, client).await;
        self.send_remaining_text(&mut cell, client).await;
        let wall = cell.started.elapsed();
        let lost = matches!(outcome, Outcome::Dead);
        let ended_before = if lost {
            self.forked.processes.take_notice()
        } else {
            None
        };
        let status = match (outcome, cell.interrupt_cause) {
            (_, Some(InterruptCause::TimeLimit)) => ExecStatus::Timeout,
            (_, Some(InterruptCause::Request)) => ExecStatus::Interrupted,
            (Outcome::Dead, None) if self.forked.processes.was_out_of_memory() => {
                ExecStatus::OutOfMemory
            }
            (Outcome::Dead, None) if ended_before == Some(Notice::EndedForCpu) => {
                ExecStatus::EndedForCpu
            }
            (Outcome::Dead, None) => ExecStatus::Died,
            (Outcome::Done(DoneStatus::Ok), None) => ExecStatus::Ok,
            (Outcome::Done(DoneStatus::Error), None) => ExecStatus::Error,
        };
        if status == ExecStatus::Timeout && !lost {
            // Programs that the cell has started would otherwise run on.
            self.forked.processes.kill_descendants_of_python();
        }
        if !lost {
            let sample = self.forked.processes.sample();
            cell.cpu.add(&sample, std::time::Instant::now());
            let budget = Duration::from_secs(self.settings.background_cpu_seconds);
            self.forked.processes.end_cell(&sample, budget);
        }
        self.forked.link.messages.shrink();
        // After this the changes are reported once; without a client the report would be lost.
        cell.client?;
        let (files, files_dropped) = if lost {
            (Vec::new(), false)
        } else {
            self.forked.workspace.changes().await
        };
        Ok(Executed {
            status,
            session_lost: lost,
            wall_ms: milliseconds(wall),
            cpu_ms: milliseconds(cell.cpu.used()),
            truncated: cell.output.truncated(),
            files,
            files_dropped,
        })
    }

    /// Sends the code to the kernel and handles every event until the cell or the session has
    /// ended: messages, output, requests of the client, and limits.
    async fn run_to_end(
        &mut self,
        code: &str,
        cell: &mut Cell,
        client: &mut Connection,
    ) -> Outcome {
        let id = self.cell;
        let ForkedSession {
            link,
            stdout,
            stderr,
            processes,
            ..
        } = &mut self.forked;
        let settings = &self.settings;
        let Ok(request) = encode(&KernelRequest::Run { id, code }) else {
            return Outcome::Dead;
        };
        // The kernel may read slowly and send output meanwhile, so this is one of the events.
        let mut sending = Box::pin(link.requests.write_all(&request));
        let mut sent = false;
        let mut dead = false;
        let mut sampling = interval(SAMPLE_INTERVAL);
        sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sampling.reset();
        loop {
            if cell.client.is_err() {
                cell.interrupt(processes, settings, InterruptCause::Request);
            }
            tokio::select! {
                written = &mut sending, if !sent => {
                    sent = true;
                    if written.is_err() {
                        processes.kill();
                    }
                }
                message = link.messages.next() => {
                    // Programs that the kernel has waited for wrote to the pipes before.
                    cell.send_text(client, TextSource::Stdout, stdout.read_available()).await;
                    cell.send_text(client, TextSource::Stderr, stderr.read_available()).await;
                    match message {
                        // Threads of earlier cells may still print under the old number.
                        Ok(KernelMessage::Text { id: of, source, text }) if of <= id => {
                            cell.send_text(client, source, text).await;
                        }
                        Ok(KernelMessage::Image { id: of, data }) if of == id => {
                            cell.send_image(client, &data).await;
                        }
                        Ok(KernelMessage::Done { id: of, status }) if of == id => {
                            return Outcome::Done(status);
                        }
                        Ok(_) => {}
                        Err(error) => {
                            if error.kind() != io::ErrorKind::UnexpectedEof {
                                tracing::warn!("invalid message from a session's kernel, killing the session: {error}");
                            }
                            processes.kill();
                            // The next request must find the session dead.
                            let _ = timeout(KILL_TIMEOUT, processes.ended()).await;
                            return Outcome::Dead;
                        }
                    }
                }
                text = stdout.next() => cell.send_text(client, TextSource::Stdout, text).await,
                text = stderr.next() => cell.send_text(client, TextSource::Stderr, text).await,
                () = processes.ended(), if !dead => {
                    dead = true;
                    // Without a process namespace, programs that the session has started may
                    // outlive the init and hold the link open.
                    processes.kill();
                }
                request = client.receive_request(), if cell.client.is_ok() => match request {
                    Ok(Request::Interrupt) => cell.interrupt(processes, settings, InterruptCause::Request),
                    Ok(_) => cell.client = Err(ConnectionError::UnexpectedRequest),
                    Err(error) => cell.client = Err(error),
                },
                () = sleep_until(cell.next_interrupt), if cell.interrupt_cause.is_some() && !cell.killed => {
                    // The code may have caught the previous KeyboardInterrupt.
                    cell.next_interrupt += INTERRUPT_INTERVAL;
                    processes.interrupt();
                }
                () = sleep_until(cell.deadline), if !cell.killed => {
                    if cell.interrupt_cause.is_none() {
                        cell.interrupt(processes, settings, InterruptCause::TimeLimit);
                    } else {
                        cell.killed = true;
                        processes.kill();
                    }
                }
                _ = sampling.tick(), if !cell.killed && !dead => {
                    cell.check_limits(processes, settings);
                }
            }
        }
    }

    /// Sends what programs wrote to the pipes before the cell ended.
    async fn send_remaining_text(&mut self, cell: &mut Cell, client: &mut Connection) {
        let stdout = self.forked.stdout.read_rest();
        let stderr = self.forked.stderr.read_rest();
        cell.send_text(client, TextSource::Stdout, stdout).await;
        cell.send_text(client, TextSource::Stderr, stderr).await;
    }
}

impl Cell {
    /// Interrupts the cell unless it was interrupted before, and starts its grace period.
    fn interrupt(
        &mut self,
        processes: &SessionProcesses,
        settings: &Settings,
        cause: InterruptCause,
    ) {
        if self.interrupt_cause.is_none() {
            self.interrupt_cause = Some(cause);
            let now = Instant::now();
            self.deadline = now + settings.grace();
            self.next_interrupt = now + INTERRUPT_INTERVAL;
            processes.interrupt();
        }
    }

    /// Kills the session if it exceeds its memory limit, and interrupts the cell if it exceeds its
    /// CPU limit.
    fn check_limits(&mut self, processes: &SessionProcesses, settings: &Settings) {
        let sample = processes.sample();
        self.cpu.add(&sample, std::time::Instant::now());
        if processes.exceeds_memory(&sample) {
            self.killed = true;
            processes.kill_for_memory();
        } else if self.cpu.used() > Duration::from_secs(settings.cpu_seconds) {
            self.interrupt(processes, settings, InterruptCause::TimeLimit);
        }
    }

    async fn send_text(&mut self, client: &mut Connection, source: TextSource, text: String) {
        if text.is_empty() {
            return;
        }
        let Some(mut text) = self.output.limit_text(source, text) else {
            return;
        };
        while !text.is_empty() {
            let rest = text.split_off(text.floor_char_boundary(TEXT_BYTES));
            self.send(client, &Response::Text { source, text }).await;
            text = rest;
        }
    }

    async fn send_image(&mut self, client: &mut Connection, base64: &str) {
        let Some(image) = self.output.limit_image(base64) else {
            return;
        };
        let response = Response::Image {
            mime: image.mime.into(),
            size: image.bytes.len() as u64,
        };
        self.send(client, &response).await;
        if self.client.is_ok() {
            self.client = client.send_data(&image.bytes).await;
        }
    }

    /// Sends a response unless the client is gone.
    async fn send(&mut self, client: &mut Connection, response: &Response) {
        if self.client.is_ok() {
            self.client = client.send(response).await;
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
