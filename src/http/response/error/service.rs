//! Responses to the refusals and failures of use cases.

use std::time::Duration;

use axum::http::StatusCode;

use crate::domain::vector_store::MAX_FILES;
use crate::http::response::error::ApiError;
use crate::http::response::rate_limits::format_duration;
use crate::retrieval::SearchError;
use crate::service::{RunRefusal, ServiceError};

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotFound { object, id } => Self::object_not_found(object, id),
            ServiceError::FileNotFound(id) => Self::file_not_found(id),
            ServiceError::VectorStoreFileNotFound { store, file } => Self::not_found(format!(
                "No file found with id '{file}' in vector store '{store}'."
            )),
            ServiceError::ResourceNotFound(id) => Self::object_not_found("vector store", id)
                .param("tool_resources.file_search.vector_store_ids"),
            ServiceError::UnknownCursor { param, id } => Self::invalid(format!(
                "Invalid '{param}': no object with id '{id}' in this list."
            ))
            .param(param)
            .code("invalid_value"),
            ServiceError::Invalid(error) => error.into(),
            ServiceError::Run(refusal) => refusal.into(),
            ServiceError::SearchInExpiredStore(id) => {
                Self::invalid(format!("Vector store {id} is expired."))
            }
            ServiceError::AddToExpiredStore(id) => {
                Self::invalid(format!("Vector store '{id}' has expired."))
            }
            ServiceError::AddToFullStore(id) => Self::invalid(format!(
                "Vector store '{id}' would have too many files: a vector store may have up to \
                 {MAX_FILES}."
            ))
            .code("max_files_exceeded"),
            ServiceError::FileDeletedMeanwhile => {
                Self::not_found("A file was deleted while it was being added.")
            }
            ServiceError::FileNotSearchable { extension } => Self::invalid(format!(
                "Files with extensions [{extension}] are not supported for retrieval. See \
                 https://platform.openai.com/docs/assistants/tools/file-search/supported-files"
            ))
            .param("file_ids")
            .code("unsupported_file"),
            ServiceError::FileNotImage { extension } => Self::invalid(format!(
                "Files with extensions [{extension}] are not supported for image_file. Expected a \
                 picture: .jpeg, .jpg, .png, .gif or .webp."
            ))
            .param("content")
            .code("unsupported_file"),
            ServiceError::ProjectNameTaken(name) => {
                Self::invalid(format!("There is a project of the name '{name}' already."))
                    .param("name")
                    .code("name_taken")
            }
            ServiceError::TooManyRequests { limit, retry_after } => {
                too_many_requests(limit, retry_after)
            }
            ServiceError::TooManyTokens {
                limit,
                used,
                retry_after,
            } => too_many_tokens(limit, used, retry_after),
            ServiceError::Search(SearchError::Embed(error)) => Self::new(
                StatusCode::BAD_GATEWAY,
                "server_error",
                format!("Cannot search: {error}."),
            ),
            ServiceError::Search(SearchError::Store(error)) => ServiceError::from(error).into(),
            ServiceError::File(error) => error.into(),
            ServiceError::Blob(error) => error.into(),
            ServiceError::DatabaseUnavailable(cause) => database_unavailable(&cause),
            ServiceError::DatabaseFull(cause) => Self::storage_full(&cause),
            error @ (ServiceError::Database(_)
            | ServiceError::DuplicateKey
            | ServiceError::Random(_)) => Self::internal(&error),
        }
    }
}

impl From<RunRefusal> for ApiError {
    fn from(refusal: RunRefusal) -> Self {
        match refusal {
            RunRefusal::ThreadHasActiveRun { thread, run } => {
                Self::invalid(format!("Thread {thread} already has an active run {run}."))
            }
            RunRefusal::ThreadLocked { thread, run } => Self::invalid(format!(
                "Can't add messages to {thread} while a run {run} is active."
            )),
            RunRefusal::ThreadContended => {
                Self::unavailable("The thread was busy with other runs. Please retry your request.")
            }
            RunRefusal::NothingToRun => Self::invalid(
                "Run creation requires a Thread with a user message or an assistant with \
                 instructions.",
            )
            .code("invalid_thread"),
            RunRefusal::CodeInterpreterUnavailable(reason) => Self::invalid(format!(
                "The tool 'code_interpreter' is not available on this server: {reason}. Pass \
                 other `tools` to this run, or take it off the assistant."
            ))
            .param("tools")
            .code("unsupported_tool"),
            RunRefusal::TooManyRuns(max) => Self::rate_limited(
                "requests",
                format!("Rate limit reached: this project may have {max} runs at a time."),
                Duration::from_secs(1),
            ),
            RunRefusal::NotUpdatable(status) => Self::invalid(format!(
                "Cannot update run with status '{}'.",
                status.as_str()
            )),
            RunRefusal::NotCancellable(status) => Self::invalid(format!(
                "Cannot cancel run with status '{}'.",
                status.as_str()
            )),
            RunRefusal::TakesNoOutputs(status) => Self::invalid(format!(
                "Runs in status \"{}\" do not accept tool outputs.",
                status.as_str()
            )),
            RunRefusal::WrongToolOutputs { expected, given } => Self::invalid(format!(
                "Expected tool outputs for call_ids [{}], got [{}]",
                quote_ids(&expected),
                quote_ids(&given),
            )),
        }
    }
}

fn too_many_requests(limit: i32, retry_after: Duration) -> ApiError {
    let message = format!(
        "Rate limit reached for requests: this project may make {limit} requests per minute. \
         Please try again in {}.",
        format_duration(retry_after)
    );
    ApiError::rate_limited("requests", message, retry_after)
}

fn too_many_tokens(limit: i64, used: i64, retry_after: Duration) -> ApiError {
    let message = format!(
        "Rate limit reached for tokens: this project may use {limit} tokens per minute and has \
         used {used}. Please try again in {}.",
        format_duration(retry_after)
    );
    ApiError::rate_limited("tokens", message, retry_after)
}

fn database_unavailable(cause: &dyn std::fmt::Display) -> ApiError {
    tracing::error!(error.cause = %cause, "the database is not available: {cause}");
    ApiError::unavailable(
        "The server cannot reach its database right now. Please retry your request in a moment.",
    )
}

fn quote_ids(ids: &[String]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| format!("'{id}'")).collect();
    ids.join(", ")
}
