//! Runs with a `code_interpreter` call, compared with runs with a function call.

use super::StepContext;
use crate::BenchError;
use crate::api::Api;
use crate::api::Tool;
use crate::http::CallError;
use crate::load::median;
use crate::upstream::Pace;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::sleep;

const INSTANT: Pace = Pace::instant(20);

/// Time in which the sandbox worker pre-forks another session.
const REFILL: Duration = Duration::from_millis(300);

impl StepContext<'_> {
    /// Streamed runs with one call each, one at a time: of code in a new session, of code in the
    /// same session again, and of a function.
    pub(super) async fn code_run(&mut self) -> Result<(), BenchError> {
        let count = self.plan.cells / 2;
        let api = self.subject.api.clone();
        let coder = api.create_assistant(INSTANT, Tool::Code).await?;
        let caller = api.create_assistant(INSTANT, Tool::Function).await?;
        // Waits until the worker has started.
        code_run(&api, &api.create_thread_with_question().await?, &coder).await?;
        let called = self.upstream.calls().await?;
        let work = async {
            let [mut new, mut live, mut function] = [const { Vec::new() }; 3];
            for _ in 0..count {
                sleep(REFILL).await;
                // The first run after a pause is slower even if it runs no code.
                let thread = api.create_thread_with_question().await?;
                function_run(&api, &thread, &caller).await?;
                let thread = api.create_thread_with_question().await?;
                new.push(code_run(&api, &thread, &coder).await?);
                live.push(code_run(&api, &thread, &coder).await?);
                let thread = api.create_thread_with_question().await?;
                function.push(function_run(&api, &thread, &caller).await?);
            }
            Ok([new, live, function].map(|ms| median(&ms)))
        };
        let ([new, live, function], _) = self.metered(work).await?;
        self.expect_calls(called, 8 * count).await?;
        self.put("sandbox.run.function", function);
        self.put("sandbox.run.new", new);
        self.put("sandbox.run.live", live);
        self.put("sandbox.run.new-added", new - function);
        self.put("sandbox.run.live-added", live - function);
        Ok(())
    }
}

/// Executes a run with one `code_interpreter` call; its duration in milliseconds.
async fn code_run(api: &Api, thread: &str, assistant: &str) -> Result<f64, CallError> {
    let start = Instant::now();
    let events = api.run_events(thread, assistant).await?;
    let elapsed = start.elapsed();
    events.expect("thread.run.completed")?;
    events.expect_text(r#""logs":"2"#)?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// Executes a run with one function call, answered at once; its duration in milliseconds.
async fn function_run(api: &Api, thread: &str, assistant: &str) -> Result<f64, CallError> {
    let start = Instant::now();
    let events = api.run_events(thread, assistant).await?;
    events.expect("thread.run.requires_action")?;
    let events = api.submit_for_events(thread, &events).await?;
    let elapsed = start.elapsed();
    events.expect("thread.run.completed")?;
    Ok(elapsed.as_secs_f64() * 1e3)
}
