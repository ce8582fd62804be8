//! What a run has used, and how much of it the project has been charged.

use crate::domain::Timestamp;
use crate::domain::ids;
use crate::domain::run::Usage;
use crate::domain::usage::{Amounts, UsageEntry};

/// Charges a run's usage commit by commit. Tokens are given to the commit that stores their step
/// and count only once it has succeeded, so a failed commit has nothing to take back.
#[derive(Debug, Default)]
pub(super) struct UsageMeter {
    /// Tokens of all stored steps, those of earlier attempts included.
    tokens: Usage,
    /// Tool calls of this attempt since its last commit.
    uncharged: Amounts,
}

impl UsageMeter {
    pub(super) fn new(tokens: Usage) -> Self {
        Self {
            tokens,
            uncharged: Amounts::default(),
        }
    }

    pub(super) fn tokens(&self) -> Usage {
        self.tokens
    }

    pub(super) fn tokens_with(&self, tokens: Usage) -> Usage {
        let mut total = self.tokens;
        total += tokens;
        total
    }

    pub(super) fn count_function_call(&mut self) {
        self.uncharged.function_calls += 1;
    }

    pub(super) fn count_search(&mut self) {
        self.uncharged.search_calls += 1;
    }

    pub(super) fn count_code_call(&mut self) {
        self.uncharged.code_calls += 1;
    }

    pub(super) fn count_sandbox_time(&mut self, milliseconds: u64) {
        self.uncharged.sandbox_ms += i64::try_from(milliseconds).unwrap_or(0);
    }

    /// The usage record for a commit that stores a step of `tokens`, or terminates the run. `None`
    /// if there is nothing to charge.
    pub(super) fn entry(
        &self,
        tokens: Usage,
        is_terminal: bool,
        model: &str,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<UsageEntry> {
        let amounts = Amounts {
            runs: is_terminal.into(),
            // The tokens of each model call come with a commit of their own.
            model_calls: (tokens != Usage::default()).into(),
            prompt_tokens: tokens.prompt.into(),
            completion_tokens: tokens.completion.into(),
            ..self.uncharged
        };
        (amounts != Amounts::default()).then(|| UsageEntry {
            id: ids::hex32(),
            at: now(),
            model: model.to_owned(),
            amounts,
        })
    }

    pub(super) fn charge(&mut self, tokens: Usage) {
        self.tokens += tokens;
        self.uncharged = Amounts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Usage = Usage {
        prompt: 7,
        completion: 3,
        cached: 0,
        reasoning: 0,
    };

    fn amounts(meter: &UsageMeter, tokens: Usage, is_terminal: bool) -> Option<Amounts> {
        let entry = meter.entry(tokens, is_terminal, "gpt-4o", Timestamp::default);
        entry.map(|entry| entry.amounts)
    }

    #[test]
    fn a_commit_that_failed_is_charged_with_the_next_one() {
        let mut meter = UsageMeter::default();
        meter.count_search();
        let failed = amounts(&meter, CALL, false);
        assert_eq!(meter.tokens(), Usage::default(), "nothing is charged yet");
        assert_eq!(amounts(&meter, CALL, false), failed);
        meter.charge(CALL);
        assert_eq!(meter.tokens(), CALL);
        assert_eq!(amounts(&meter, Usage::default(), false), None);
    }

    #[test]
    fn what_earlier_attempts_used_is_part_of_the_total_and_not_charged_again() {
        let meter = UsageMeter::new(CALL);
        assert_eq!(meter.tokens_with(CALL).prompt, 14);
        let charged = amounts(&meter, CALL, true).expect("a terminated run is charged");
        assert_eq!((charged.runs, charged.model_calls), (1, 1));
        assert_eq!((charged.prompt_tokens, charged.completion_tokens), (7, 3));
    }
}
