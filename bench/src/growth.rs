//! Tables as they are after months of use, filled by SQL.

use crate::BenchError;
use crate::api::Status;
use crate::api::Tool;
use crate::subject::Subject;
use crate::upstream::Pace;
use std::fmt;
use std::str::FromStr;

/// The rows to add to the tables; all of them are a day old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Growth {
    pub(crate) threads: u32,
    pub(crate) messages_per_thread: u32,
    /// Completed runs, on different threads.
    pub(crate) runs: u32,
}

/// Messages of a thread unless it is said.
const MESSAGES_PER_THREAD: u32 = 10;

/// Messages for each run unless it is said.
const MESSAGES_PER_RUN: u32 = 100;

impl FromStr for Growth {
    type Err = String;

    /// `MESSAGES[,THREADS[,RUNS]]`, such as `10M` or `10M,1M,100k`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut amounts = text.split(',').map(amount);
        let messages = amounts.next().ok_or("no number of messages")??;
        let threads = amounts
            .next()
            .unwrap_or(Ok(messages / MESSAGES_PER_THREAD))?;
        let runs = amounts.next().unwrap_or(Ok(messages / MESSAGES_PER_RUN))?;
        if amounts.next().is_some() {
            return Err("more than three numbers".to_owned());
        }
        // The thread that is copied has a question and an answer.
        if threads == 0 || messages / threads < 2 {
            return Err("a thread needs two messages".to_owned());
        }
        if runs > threads {
            return Err("a thread has one run at most".to_owned());
        }
        Ok(Self {
            threads,
            messages_per_thread: messages / threads,
            runs,
        })
    }
}

/// A number such as `500`, `100k` or `10M`.
fn amount(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'M']) {
        Some(digits) if text.ends_with('k') => (digits, 1_000),
        Some(digits) => (digits, 1_000_000),
        None => (text, 1),
    };
    let number = digits
        .parse::<u32>()
        .ok()
        .and_then(|n| n.checked_mul(factor));
    number.ok_or_else(|| format!("not a number such as 100k or 10M: {text}"))
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            threads,
            messages_per_thread,
            runs,
        } = self;
        write!(
            f,
            "tables with {threads} threads of {messages_per_thread} messages and {runs} runs"
        )
    }
}

impl Growth {
    /// Copies one thread of the server with a completed run.
    pub(crate) async fn fill(&self, subject: &Subject) -> Result<(), BenchError> {
        let Some(database) = &subject.database else {
            return Ok(());
        };
        let api = &subject.api;
        let pace = Pace::instant(100);
        let assistant = api.create_assistant(pace, Tool::None).await?;
        let thread = api.create_thread().await?;
        // The last one is the answer.
        for _ in 1..self.messages_per_thread {
            api.add_message(&thread).await?;
        }
        let run = api.create_run(&thread, &assistant).await?;
        api.wait_for(Status::Completed, &thread, &run).await?;
        database
            .copy_thread(&thread, self.threads, self.runs)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growth_has_the_proportions_of_use_unless_it_is_said() {
        let growth = |threads, messages_per_thread, runs| {
            Ok(Growth {
                threads,
                messages_per_thread,
                runs,
            })
        };
        assert_eq!("10M".parse(), growth(1_000_000, 10, 100_000));
        assert_eq!("10M,2M".parse(), growth(2_000_000, 5, 100_000));
        assert_eq!("100k,500,20".parse(), growth(500, 200, 20));
        for malformed in ["", "ten", "10G", "10M,0", "10,10", "1k,10,11", "9,3,1,1"] {
            assert!(malformed.parse::<Growth>().is_err(), "{malformed}");
        }
    }
}
