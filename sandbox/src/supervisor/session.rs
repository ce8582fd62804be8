//! One session at work: runs its cells, and ends those that do not end themselves.

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
use crate::supervisor::connection::Conversation;
use crate::supervisor::connection::Ended;
use crate::supervisor::cpu::CpuMeter;
use crate::supervisor::kernel_link::DoneStatus;
use crate::supervisor::kernel_link::Order;
use crate::supervisor::kernel_link::Said;
use crate::supervisor::kernel_link::encode;
use crate::supervisor::output_limits::Output;
use crate::supervisor::session_factory::Newborn;
use crate::supervisor::session_processes::Vitals;
use crate::supervisor::workspace::Workspace;

/// How often the use of memory and processors is looked at while a cell runs.
const SAMPLING: Duration = Duration::from_millis(250);

/// How long an interrupt has to work before it is repeated.
const INTERRUPTS: Duration = Duration::from_secs(1);

/// How long a killed session may take to be gone.
const DEATH: Duration = Duration::from_secs(5);

/// Largest piece of text. As JSON it may be six times as large, and has to fit into a frame.
const TEXT_BYTES: usize = 1 << 20;

/// A session, as long as it lives.
pub struct Session {
    newborn: Newborn,
    settings: Arc<Settings>,
    /// Number of the last cell.
    cell: u64,
}

/// Why a cell is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Time,
    Request,
}

/// A cell that runs.
struct Cell {
    started: Instant,
    cpu: CpuMeter,
    output: Output,
    /// Why it is being interrupted, if it is.
    ending: Option<Cause>,
    /// When patience ends: first it is interrupted, then killed.
    deadline: Instant,
    next_interrupt: Instant,
    killed: bool,
    /// Whether its client is still there.
    client: Result<(), Ended>,
}

/// How the kernel's answers ended.
enum Outcome {
    Done(DoneStatus),
    /// Nothing more can come.
    Dead,
}

impl Session {
    /// A session of these processes.
    pub fn new(newborn: Newborn, settings: Arc<Settings>) -> Self {
        Self {
            newborn,
            settings,
            cell: 0,
        }
    }

    /// Its processes.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.newborn.vitals
    }

    /// Its `/mnt/data`.
    pub fn workspace(&mut self) -> &mut Workspace {
        &mut self.newborn.workspace
    }

    /// Runs a cell, and tells the client what it shows as it comes. When the client goes, the
    /// cell is interrupted and brought to its end all the same.
    pub async fn exec(&mut self, code: &str, client: &mut Conversation) -> Result<Executed, Ended> {
        self.cell += 1;
        self.newborn.vitals.begin_cell();
        let sample = self.newborn.vitals.sample();
        let started = Instant::now();
        let mut cell = Cell {
            started,
            cpu: CpuMeter::new(&sample, started.into_std()),
            output: Output::new(&self.settings),
            ending: None,
            deadline: started + self.settings.cell_time(),
            next_interrupt: started,
            killed: false,
            client: Ok(()),
        };
        let outcome = self.attend(code, &mut cell, client).await;
        self.tell_rest(&mut cell, client).await;
        let wall = cell.started.elapsed();
        let lost = matches!(outcome, Outcome::Dead);
        let ended_before = match lost {
            true => self.newborn.vitals.take_notice(),
            false => None,
        };
        let status = match (outcome, cell.ending) {
            (_, Some(Cause::Time)) => ExecStatus::Timeout,
            (_, Some(Cause::Request)) => ExecStatus::Interrupted,
            (Outcome::Dead, None) if self.newborn.vitals.was_out_of_memory() => {
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
            // Or else what a cell has started would go on where the cell may not.
            self.newborn.vitals.kill_descendants_of_python();
        }
        if !lost {
            let sample = self.newborn.vitals.sample();
            cell.cpu.add(&sample, std::time::Instant::now());
            let budget = Duration::from_secs(self.settings.background_cpu_seconds);
            self.newborn.vitals.end_cell(&sample, budget);
        }
        self.newborn.link.ear.shrink();
        // Asked only for a client that hears it, or else nobody would ever be told.
        cell.client?;
        let (files, files_dropped) = match lost {
            true => (Vec::new(), false),
            false => self.newborn.workspace.changes().await,
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

    /// Waits for the cell's end, whatever comes first: the session's word, its death, the
    /// client's wish, or the end of patience.
    async fn attend(&mut self, code: &str, cell: &mut Cell, client: &mut Conversation) -> Outcome {
        let id = self.cell;
        let Newborn {
            link,
            stdout,
            stderr,
            vitals,
            ..
        } = &mut self.newborn;
        let settings = &self.settings;
        let Ok(order) = encode(&Order::Run { id, code }) else {
            return Outcome::Dead;
        };
        // The session may take its order slowly, and speak meanwhile.
        let mut ordering = Box::pin(link.mouth.write_all(&order));
        let mut ordered = false;
        let mut dead = false;
        let mut sampling = interval(SAMPLING);
        sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sampling.reset();
        loop {
            if cell.client.is_err() {
                cell.interrupt(vitals, settings, Cause::Request);
            }
            tokio::select! {
                written = &mut ordering, if !ordered => {
                    ordered = true;
                    if written.is_err() {
                        vitals.kill();
                    }
                }
                said = link.ear.next() => {
                    // The kernel speaks after the programs that it has waited for.
                    cell.tell_text(client, TextSource::Stdout, stdout.held()).await;
                    cell.tell_text(client, TextSource::Stderr, stderr.held()).await;
                    match said {
                        // Text of cells before comes late, from threads that have outlived them.
                        Ok(Said::Text { id: of, source, text }) if of <= id => {
                            cell.tell_text(client, source, text).await;
                        }
                        Ok(Said::Image { id: of, data }) if of == id => {
                            cell.tell_image(client, &data).await;
                        }
                        Ok(Said::Done { id: of, status }) if of == id => {
                            return Outcome::Done(status);
                        }
                        Ok(_) => {}
                        Err(error) => {
                            if error.kind() != io::ErrorKind::UnexpectedEof {
                                tracing::warn!("a session broke its link: {error}");
                            }
                            vitals.kill();
                            // Whoever asks next is to find it dead.
                            let _ = timeout(DEATH, vitals.ended()).await;
                            return Outcome::Dead;
                        }
                    }
                }
                text = stdout.next() => cell.tell_text(client, TextSource::Stdout, text).await,
                text = stderr.next() => cell.tell_text(client, TextSource::Stderr, text).await,
                () = vitals.ended(), if !dead => {
                    dead = true;
                    // What it started may outlive it where it has no namespace of its own, and
                    // hold the link open.
                    vitals.kill();
                }
                request = client.request(), if cell.client.is_ok() => match request {
                    Ok(Request::Interrupt) => cell.interrupt(vitals, settings, Cause::Request),
                    Ok(_) => cell.client = Err(Ended::OutOfTurn),
                    Err(ended) => cell.client = Err(ended),
                },
                () = sleep_until(cell.next_interrupt), if cell.ending.is_some() && !cell.killed => {
                    // One may have been swallowed.
                    cell.next_interrupt += INTERRUPTS;
                    vitals.interrupt();
                }
                () = sleep_until(cell.deadline), if !cell.killed => {
                    if cell.ending.is_none() {
                        cell.interrupt(vitals, settings, Cause::Time);
                    } else {
                        cell.killed = true;
                        vitals.kill();
                    }
                }
                _ = sampling.tick(), if !cell.killed && !dead => {
                    let sample = vitals.sample();
                    cell.cpu.add(&sample, std::time::Instant::now());
                    if vitals.exceeds_memory(&sample) {
                        cell.killed = true;
                        vitals.kill_for_memory();
                    } else if cell.cpu.used() > Duration::from_secs(settings.cpu_seconds) {
                        cell.interrupt(vitals, settings, Cause::Time);
                    }
                }
            }
        }
    }

    /// What programs wrote before the cell ended and nobody has read yet.
    async fn tell_rest(&mut self, cell: &mut Cell, client: &mut Conversation) {
        let (stdout, stderr) = (self.newborn.stdout.rest(), self.newborn.stderr.rest());
        cell.tell_text(client, TextSource::Stdout, stdout).await;
        cell.tell_text(client, TextSource::Stderr, stderr).await;
    }
}

impl Cell {
    /// Interrupts the cell, once, and gives it a while to end.
    fn interrupt(&mut self, vitals: &Vitals, settings: &Settings, cause: Cause) {
        if self.ending.is_none() {
            self.ending = Some(cause);
            let now = Instant::now();
            self.deadline = now + settings.grace();
            self.next_interrupt = now + INTERRUPTS;
            vitals.interrupt();
        }
    }

    async fn tell_text(&mut self, client: &mut Conversation, source: TextSource, text: String) {
        if text.is_empty() {
            return;
        }
        let Some(mut text) = self.output.text(source, text) else {
            return;
        };
        while !text.is_empty() {
            let rest = text.split_off(text.floor_char_boundary(TEXT_BYTES));
            self.tell(client, &Response::Text { source, text }).await;
            text = rest;
        }
    }

    async fn tell_image(&mut self, client: &mut Conversation, base64: &str) {
        let Some(image) = self.output.image(base64) else {
            return;
        };
        let response = Response::Image {
            mime: image.mime.into(),
            size: image.bytes.len() as u64,
        };
        self.tell(client, &response).await;
        if self.client.is_ok() {
            self.client = client.send_all(&image.bytes).await;
        }
    }

    /// Without a client there is nobody to tell.
    async fn tell(&mut self, client: &mut Conversation, response: &Response) {
        if self.client.is_ok() {
            self.client = client.say(response).await;
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
