//! The turn's specification: what comes out for what an upstream sends. Nothing here needs a
//! database.

use std::sync::Arc;

use serde_json::{Map, json};

use super::replay::OpenObjects;
use super::*;
use crate::domain::Metadata;
use crate::domain::ids::ProjectId;
use crate::domain::message::AnnotationTarget;
use crate::domain::run::{RunOutcome, RunState, RunStatus, Truncation};
use crate::domain::tool::{Function, Tool, ToolChoice};
use crate::engine::annotate::CitablePassages;

/// Numbered ids, and a clock that advances a second at a time.
#[derive(Default)]
struct Numbered(i64);

impl Numbered {
    fn next(&mut self) -> i64 {
        self.0 += 1;
        self.0
    }
}

impl Source for Numbered {
    fn now(&mut self) -> Timestamp {
        Timestamp::from_timestamp(self.next(), 0).expect("small numbers are valid times")
    }

    fn call_id(&mut self) -> String {
        format!("call_new{}", self.next())
    }
}

fn run(parallel_tool_calls: bool) -> Run {
    let function = Function {
        name: "weather".into(),
        description: None,
        parameters: json!({}),
        strict: false,
    };
    Run {
        id: RunId::generate(),
        project: ProjectId::generate(),
        thread: ThreadId::generate(),
        assistant: AssistantId::generate(),
        created_at: Timestamp::default(),
        config: Arc::new(RunConfig {
            model: "gpt-4o".into(),
            instructions: String::new(),
            tools: vec![
                Tool::Function { function },
                Tool::CodeInterpreter,
                Tool::FileSearch {
                    file_search: Map::new(),
                },
            ],
            temperature: None,
            top_p: None,
            reasoning_effort: None,
            response_format: json!("auto"),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls,
            max_prompt_tokens: None,
            max_completion_tokens: None,
            truncation: Truncation::Auto,
        }),
        metadata: Metadata::default(),
        state: RunState {
            status: RunStatus::InProgress,
            started_at: None,
            expires_at: Timestamp::default(),
            ended_at: None,
            outcome: RunOutcome::default(),
        },
    }
}

struct Fixture {
    turn: Turn,
    source: Numbered,
    published: Vec<RunEvent>,
    committed: Vec<CompletedMessage>,
    end: Option<TurnEnd>,
}

impl Fixture {
    fn new(input: TurnInput) -> Self {
        Self::of_run(&run(true), input)
    }

    fn of_run(run: &Run, input: TurnInput) -> Self {
        Self {
            turn: Turn::new(run, input),
            source: Numbered::default(),
            published: Vec::new(),
            committed: Vec::new(),
            end: None,
        }
    }

    fn after(events: impl IntoIterator<Item = TurnEvent>) -> Self {
        Self::new(TurnInput::default()).then(events)
    }

    fn then(mut self, events: impl IntoIterator<Item = TurnEvent>) -> Self {
        for event in events {
            let effects = self.turn.handle(event, &mut self.source);
            self.carry_out(effects.expect("no test skips a call"));
        }
        self
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Publish(events) => self.published.extend(events),
                Effect::CommitMessage(completed) => {
                    let CompletedMessage { step, message } = &*completed;
                    self.published.extend([
                        RunEvent::MessageEnded(Box::new(message.clone())),
                        RunEvent::StepEnded(Box::new(step.clone())),
                    ]);
                    self.committed.push(*completed);
                    let effects = self.turn.message_committed(&mut self.source);
                    self.carry_out(effects.expect("no test skips a call"));
                }
                Effect::End(end) => self.end = Some(end),
            }
        }
    }

    fn content(&self) -> &[Content] {
        match self.turn.open_message() {
            Some((_, message)) => &message.content,
            None => &[],
        }
    }

    fn calls(&self) -> Vec<ToolCall> {
        let step = self.turn.open_calls();
        step.map_or_else(Vec::new, |step| step.calls().to_vec())
    }

    fn functions(&self) -> Vec<(String, String, String)> {
        let function = |call: ToolCall| match call.body {
            ToolCallBody::Function(function) => Some((call.id, function.name, function.arguments)),
            ToolCallBody::CodeInterpreter(_) | ToolCallBody::FileSearch(_) => None,
        };
        self.calls().into_iter().filter_map(function).collect()
    }

    fn kinds(&self) -> Vec<&'static str> {
        let kind = |event: &RunEvent| match event {
            RunEvent::RunCreated(_) => "run created",
            RunEvent::RunChanged(_) => "run changed",
            RunEvent::StepCreated(_) => "step created",
            RunEvent::StepInProgress(_) => "step in progress",
            RunEvent::StepDelta { .. } => "step delta",
            RunEvent::StepEnded(_) => "step ended",
            RunEvent::MessageCreated(_) => "message created",
            RunEvent::MessageInProgress(_) => "message in progress",
            RunEvent::MessageDelta { .. } => "message delta",
            RunEvent::MessageEnded(_) => "message ended",
        };
        self.published.iter().map(kind).collect()
    }
}

fn text(text: &str) -> TurnEvent {
    TurnEvent::Text(text.into())
}

fn call(index: usize, id: &str, name: &str, arguments: &str) -> TurnEvent {
    TurnEvent::ToolCall {
        index,
        id: Some(id.into()),
        name: Some(name.into()),
        arguments: arguments.into(),
    }
}

fn arguments(index: usize, arguments: &str) -> TurnEvent {
    TurnEvent::ToolCall {
        index,
        id: None,
        name: None,
        arguments: arguments.into(),
    }
}

fn finish(reason: FinishReason) -> TurnEvent {
    TurnEvent::Finish(reason)
}

fn function(id: &str, arguments: &str) -> (String, String, String) {
    (id.into(), "weather".into(), arguments.into())
}

#[test]
fn text_opens_a_message_with_its_first_piece_and_is_appended_after_that() {
    let turn = Fixture::after([text("Hel"), text("lo"), finish(FinishReason::Stop)]);
    let opened = [
        "step created",
        "step in progress",
        "message created",
        "message in progress",
    ];
    assert_eq!(turn.kinds()[..4], opened);
    assert_eq!(turn.kinds()[4..], ["message delta", "message delta"]);
    assert_eq!(turn.content(), [Content::text("Hello")]);
    assert_eq!(turn.end, Some(TurnEnd::Finished));
    assert!(turn.committed.is_empty(), "the run's end commits it");
}

#[test]
fn reasoning_is_not_part_of_the_answer() {
    let turn = Fixture::after([TurnEvent::Reasoning("hm".into())]);
    assert!(!turn.turn.has_begun() && turn.published.is_empty());
}

#[test]
fn an_empty_answer_is_an_empty_message() {
    let turn = Fixture::after([finish(FinishReason::Stop)]);
    assert_eq!(turn.content(), [Content::text("")]);
    assert_eq!(turn.end, Some(TurnEnd::Finished));
}

#[test]
fn a_refusal_is_a_part_of_its_own() {
    let refusal = |text: &str| TurnEvent::Refusal(text.into());
    let turn = Fixture::after([text("Well. "), refusal("I can"), refusal("not.")]);
    let refusal = "I cannot.".to_owned();
    assert_eq!(
        turn.content(),
        [Content::text("Well. "), Content::Refusal { refusal }]
    );
}

#[test]
fn finish_reasons_say_how_the_turn_ends() {
    for (reason, end) in [
        (FinishReason::Stop, TurnEnd::Finished),
        // Some upstreams say so although they have called nothing.
        (FinishReason::ToolCalls, TurnEnd::Finished),
        (FinishReason::Length, TurnEnd::OutOfTokens),
        (FinishReason::ContentFilter, TurnEnd::Filtered),
    ] {
        let turn = Fixture::after([text("a"), finish(reason)]);
        assert_eq!(turn.end, Some(end), "{reason:?}");
    }
    for reason in [FinishReason::Stop, FinishReason::ToolCalls] {
        let turn = Fixture::after([call(0, "call_1", "weather", "{}"), finish(reason)]);
        assert_eq!(turn.end, Some(TurnEnd::CallsTools), "{reason:?}");
    }
}

#[test]
fn text_before_calls_is_committed_before_the_calls_begin() {
    let turn = Fixture::after([
        text("Let me look."),
        call(0, "call_1", "weather", "{}"),
        finish(FinishReason::ToolCalls),
    ]);
    let [CompletedMessage { step, message }] = turn.committed.as_slice() else {
        panic!("{:?}", turn.committed)
    };
    assert_eq!(message.content, [Content::text("Let me look.")]);
    assert_eq!(message.status, MessageStatus::Completed);
    assert_eq!(step.status, StepStatus::Completed);
    assert_eq!(
        step.usage,
        Some(Usage::default()),
        "the calls get the usage"
    );
    assert_eq!(
        turn.kinds()[4..],
        [
            "message delta",
            "message ended",
            "step ended",
            "step created",
            "step in progress",
            "step delta",
            "step delta",
        ]
    );
    assert_eq!(turn.turn.committed_message(), Some(&message.id));
    assert_eq!(turn.functions(), [function("call_1", "{}")]);
}

#[test]
fn the_message_stays_open_until_it_is_committed() {
    let mut turn = Fixture::after([text("Let me look.")]);
    let effects = turn
        .turn
        .handle(call(0, "call_1", "weather", "{}"), &mut turn.source)
        .expect("no call is skipped");
    assert!(matches!(effects.as_slice(), [Effect::CommitMessage(_)]));
    let (_, message) = turn.turn.open_message().expect("the commit may yet fail");
    assert_eq!(message.status, MessageStatus::InProgress);
    assert!(turn.turn.open_calls().is_none());
}

#[test]
fn text_after_calls_is_left_out() {
    let turn = Fixture::after([call(0, "call_1", "weather", "{}"), text("Done.")]);
    assert!(turn.turn.open_message().is_none());
}

#[test]
fn a_repeated_turn_does_not_write_its_committed_text_again() {
    let committed = MessageId::generate();
    let input = || TurnInput {
        committed_message: Some(committed.clone()),
        ..TurnInput::default()
    };
    let usage = TurnEvent::Usage(models::Usage {
        prompt: 5,
        ..models::Usage::default()
    });

    let turn = Fixture::new(input()).then([
        text("Let me look."),
        call(0, "call_1", "weather", "{}"),
        usage.clone(),
        finish(FinishReason::ToolCalls),
    ]);
    assert!(turn.committed.is_empty() && turn.turn.open_message().is_none());
    assert_eq!(turn.end, Some(TurnEnd::CallsTools));
    assert_eq!(turn.turn.usage().map(|usage| usage.prompt), Some(5));

    let events = [text("It is warm."), usage, finish(FinishReason::Stop)];
    let turn = Fixture::new(input()).then(events);
    assert_eq!(turn.end, Some(TurnEnd::Finished));
    assert!(
        turn.published.is_empty(),
        "the committed text is the answer"
    );
    assert_eq!(turn.turn.usage(), Some(Usage::default()));
}

#[test]
fn pieces_of_interleaved_calls_go_to_the_call_of_their_index() {
    let turn = Fixture::after([
        call(0, "call_1", "weather", "{\"city\":"),
        call(1, "call_2", "weather", ""),
        arguments(0, "\"Oslo\"}"),
        arguments(1, "{}"),
    ]);
    assert_eq!(
        turn.functions(),
        [
            function("call_1", "{\"city\":\"Oslo\"}"),
            function("call_2", "{}")
        ]
    );
}

#[test]
fn a_skipped_call_is_an_error() {
    let mut turn = Fixture::after([]);
    let skipped = turn
        .turn
        .handle(call(1, "call_1", "weather", ""), &mut turn.source);
    assert!(matches!(
        skipped,
        Err(SkippedCall {
            expected: 0,
            index: 1
        })
    ));
}

#[test]
fn without_parallel_tool_calls_only_the_first_call_counts() {
    let turn = Fixture::of_run(&run(false), TurnInput::default()).then([
        call(0, "call_1", "weather", "{"),
        call(1, "call_2", "weather", "{}"),
        arguments(0, "}"),
    ]);
    assert_eq!(turn.functions(), [function("call_1", "{}")]);
}

#[test]
fn ids_of_upstreams_are_kept_if_they_look_like_ours_and_are_new() {
    let turn = Fixture::after([
        call(0, "call_1", "weather", ""),
        call(1, "call_1", "weather", ""),
        call(2, "tool-7", "weather", ""),
        TurnEvent::ToolCall {
            index: 3,
            id: None,
            name: Some("weather".into()),
            arguments: String::new(),
        },
    ]);
    let ids: Vec<String> = turn.functions().into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids[0], "call_1");
    assert!(ids[1..].iter().all(|id| id.starts_with("call_new")));
    assert_eq!(
        ids.iter().collect::<std::collections::BTreeSet<_>>().len(),
        4
    );
}

#[test]
fn code_is_read_out_of_the_arguments_as_they_come() {
    let turn = Fixture::after([
        call(0, "call_1", "python", "{\"code\": \"pri"),
        arguments(0, "nt(1)\"}"),
    ]);
    let inputs: Vec<&RunEvent> = turn
        .published
        .iter()
        .filter(|event| {
            let RunEvent::StepDelta { delta, .. } = event else {
                return false;
            };
            matches!(delta, ToolCallDelta::CodeInput(_))
        })
        .collect();
    assert_eq!(inputs.len(), 2);
    let [
        ToolCall {
            body: ToolCallBody::CodeInterpreter(code),
            ..
        },
    ] = &turn.calls()[..]
    else {
        panic!("{:?}", turn.calls())
    };
    assert_eq!(code.input, "print(1)");
}

#[test]
fn searches_are_numbered_and_their_queries_are_not_published() {
    let input = TurnInput {
        next_search: 6,
        ..TurnInput::default()
    };
    let turn = Fixture::new(input).then([
        call(0, "call_1", "file_search", "{\"queries\": [\"a\"]}"),
        call(1, "call_2", "msearch", "{\"queries\": [\"b\"]}"),
    ]);
    let search = |call: &ToolCall| match &call.body {
        ToolCallBody::FileSearch(search) => search.ordinal,
        other => panic!("{other:?}"),
    };
    let indexes: Vec<usize> = turn.calls().iter().map(search).collect();
    assert_eq!(indexes, [6, 7]);
    assert_eq!(turn.kinds()[2..], ["step delta", "step delta"]);
}

#[test]
fn a_reference_is_held_back_until_it_is_complete() {
    let file = FileId::generate();
    let mut passages = CitablePassages::default();
    passages.insert((4, 0), "report.txt", file.clone());
    let input = TurnInput {
        annotator: Annotator::new(Vec::new(), Some(passages)),
        ..TurnInput::default()
    };
    let turn = Fixture::new(input).then([text("It grew \u{3010}4:0\u{2020}rep"), text("ort.")]);
    assert_eq!(turn.content(), [Content::text("It grew ")]);
    let turn = turn.then([text("txt\u{3011}."), finish(FinishReason::Stop)]);
    let [Content::Text { value, annotations }] = turn.content() else {
        panic!("{:?}", turn.content())
    };
    assert_eq!(value, "It grew \u{3010}4:0\u{2020}report.txt\u{3011}.");
    assert_eq!(annotations.len(), 1);
    assert_eq!(annotations[0].target, AnnotationTarget::FileCitation(file));
}

#[test]
fn what_never_becomes_a_reference_is_shown_before_the_calls() {
    let input = TurnInput {
        annotator: Annotator::new(Vec::new(), Some(CitablePassages::default())),
        ..TurnInput::default()
    };
    let turn = Fixture::new(input).then([text("see \u{3010}4:"), call(0, "c", "weather", "")]);
    let content = &turn.committed[0].message.content;
    assert_eq!(content, &[Content::text("see \u{3010}4:")]);
}

#[test]
fn pictures_of_earlier_turns_begin_the_next_message() {
    let file = FileId::generate();
    let input = || TurnInput {
        images: vec![file.clone()],
        ..TurnInput::default()
    };
    let turn = Fixture::new(input()).then([text("Here.")]);
    let image = Content::ImageFile {
        file: file.clone(),
        detail: None,
    };
    assert_eq!(turn.content(), [image, Content::text("Here.")]);
    assert!(turn.turn.images().is_empty());
    let turn = Fixture::new(input()).then([call(0, "call_1", "weather", "")]);
    assert_eq!(turn.turn.images(), [file], "they wait for a message");
}

#[test]
fn what_the_model_wrote_is_counted_once() {
    let turn = Fixture::after([
        text("Let me look."),
        call(0, "call_1", "weather", "{}"),
        call(1, "call_2", "python", "{\"code\": \"1\"}"),
    ]);
    assert_eq!(turn.turn.written(), "weather{}code_interpreter1");
}

#[test]
fn replayed_deltas_equal_the_final_objects() {
    let file = FileId::generate();
    let mut passages = CitablePassages::default();
    passages.insert((4, 0), "report.txt", file.clone());
    let input = TurnInput {
        annotator: Annotator::new(vec![("a.csv".into(), file.clone())], Some(passages)),
        images: vec![file],
        ..TurnInput::default()
    };
    let turn = Fixture::new(input).then([
        text("It grew \u{3010}4:0\u{2020}report"),
        text(".txt\u{3011}, see [a](sandbox:/mnt/data/a.csv)"),
        TurnEvent::Refusal("No more.".into()),
        text(" Or: "),
    ]);
    let replayed = OpenObjects::after(turn.published.clone());
    let (step, message) = turn.turn.open_message().expect("no call has ended it");
    let messages: Vec<Message> = replayed.messages.into_values().collect();
    assert_eq!(messages.as_slice(), std::slice::from_ref(message));
    assert_eq!(replayed.step.as_ref(), Some(step));

    let turn = turn.then([
        call(0, "call_1", "weather", "{\"city\":"),
        call(1, "call_2", "python", "{\"code\": \"print("),
        arguments(0, "\"Oslo\"}"),
        arguments(1, "1)\"}"),
    ]);
    let replayed = OpenObjects::after(turn.published.clone());
    assert!(replayed.messages.is_empty(), "the message has ended");
    assert_eq!(replayed.step, turn.turn.open_calls());
}
