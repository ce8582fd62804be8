//! Starts of the server, and runs during a stopped database and after a killed server.

use super::StepContext;
use super::runs::create_threads_with_question;
use crate::BenchError;
use crate::api::Status;
use crate::api::Tool;
use crate::process::Paused;
use crate::subject::Subject;
use crate::upstream::Pace;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep;

const INSTANT: Pace = Pace::instant(20);

impl StepContext<'_> {
    /// Suspends the database's processes during streams, and counts the tokens that arrive meanwhile.
    pub(super) async fn paused_database(&mut self) -> Result<(), BenchError> {
        const STREAMS: usize = 8;
        const PAUSE: Duration = Duration::from_millis(1_500);
        let pace = Pace {
            first_ms: 200,
            gap_ms: 20,
            tokens: 200,
        };
        let database = self.subject.database.as_ref();
        let database = database.ok_or(BenchError::NoDatabase)?;
        let postmaster = database.postmaster().ok_or(BenchError::NoDatabase)?;
        let api = self.subject.api.clone();
        let assistant = api.create_assistant(pace, Tool::None).await?;
        let seen = Arc::new(AtomicU64::new(0));
        let mut streams = JoinSet::new();
        for thread in create_threads_with_question(&api, STREAMS).await? {
            let (api, assistant, seen) = (api.clone(), assistant.clone(), seen.clone());
            streams.spawn(async move { api.stream_run(&thread, &assistant, pace, &seen).await });
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while seen.load(Ordering::Relaxed) < 20 * STREAMS as u64 {
            if Instant::now() > deadline {
                return Err(BenchError::Unexpected("no tokens came before the pause"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        let paused = Paused::family(postmaster)?;
        let (start, before) = (Instant::now(), seen.load(Ordering::Relaxed));
        sleep(PAUSE).await;
        let came = seen.load(Ordering::Relaxed) - before;
        let elapsed = start.elapsed();
        drop(paused);
        let due = elapsed.as_secs_f64() * 1e3 / pace.gap_ms as f64 * STREAMS as f64;
        while let Some(ended) = streams.join_next().await {
            ended.expect("streams do not panic")?;
        }
        self.put("pause.tokens", 100.0 * came as f64 / due);
        Ok(())
    }

    /// Starts a server on a new data folder, stops it, and starts it again on the same folder.
    pub(super) async fn start(&mut self) -> Result<(), BenchError> {
        let mut new = Subject::start(self.subject.kind.clone(), self.upstream.address).await?;
        self.put("start.new", new.first_answer.as_secs_f64() * 1e3);
        new.stop()?;
        let first_answer = new.restart().await?;
        self.put("start.existing", first_answer.as_secs_f64() * 1e3);
        Ok(())
    }

    /// Stops the server and starts it again on the same data.
    pub(super) async fn restart(&mut self) -> Result<(), BenchError> {
        self.subject.stop()?;
        let first_answer = self.subject.restart().await?;
        self.put("restart.first-answer", first_answer.as_secs_f64() * 1e3);
        Ok(())
    }

    /// Kills the server during runs, and counts their outcomes a minute later.
    pub(super) async fn crash(&mut self) -> Result<(), BenchError> {
        const RUNS: usize = 16;
        const WATCH: Duration = Duration::from_secs(60);
        let pace = Pace {
            first_ms: 200,
            gap_ms: 40,
            tokens: 100,
        };
        let api = self.subject.api.clone();
        let slow = api.create_assistant(pace, Tool::None).await?;
        let mut runs = Vec::new();
        for thread in create_threads_with_question(&api, RUNS).await? {
            let run = api.create_run(&thread, &slow).await?;
            runs.push((thread, run));
        }
        sleep(Duration::from_secs(1)).await;
        self.subject.kill()?;
        let first_answer = self.subject.restart().await?;
        self.put("crash.first-answer", first_answer.as_secs_f64() * 1e3);

        let start = Instant::now();
        let (mut active, mut completed) = (runs.clone(), 0);
        let mut last = Duration::ZERO;
        while !active.is_empty() && start.elapsed() < WATCH {
            sleep(Duration::from_millis(200)).await;
            let active_before = active.len();
            let mut still = Vec::new();
            for (thread, run) in active {
                match api.run_status(&thread, &run).await? {
                    Status::Active | Status::RequiresAction => still.push((thread, run)),
                    Status::Completed => completed += 1,
                    Status::Ended => {}
                }
            }
            if still.len() < active_before {
                last = start.elapsed();
            }
            active = still;
        }
        let share = |count: usize| 100.0 * count as f64 / RUNS as f64;
        self.put("crash.ended", share(RUNS - active.len()));
        self.put("crash.completed", share(completed));
        self.put("crash.last-end", last.as_secs_f64());

        let (mut doubled, mut usable) = (0, 0);
        let quick = api.create_assistant(INSTANT, Tool::None).await?;
        let seen = AtomicU64::new(0);
        for (thread, _) in &runs {
            let messages = api.list_messages(thread, 100).await?;
            let answers = memchr::memmem::find_iter(&messages, b"\"role\":\"assistant\"").count();
            doubled += usize::from(answers > 1);
            let added = api.add_message(thread).await.is_ok();
            let ran = api.stream_run(thread, &quick, INSTANT, &seen).await.is_ok();
            usable += usize::from(added && ran);
        }
        self.put("crash.doubled", doubled as f64);
        self.put("crash.usable", share(usable));
        Ok(())
    }
}
