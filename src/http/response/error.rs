//! OpenAI's error envelope, and the mapping of all errors to HTTP responses.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::domain::file::Upload;
use crate::domain::vector_store::MAX_FILES;
use crate::files::FileError;
use crate::files::blobs::BlobError;
use crate::http::response::rate_limits::format_duration;
use crate::http::state::OutOfBodyMemory;
use crate::retrieval::SearchError;
use crate::service::ServiceError;
use crate::store::vector_store_files::AddFilesError;
use crate::store::{ListError, StoreError};
use crate::wire::ParseError;

/// An error response.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error_type: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    headers: Vec<(&'static str, HeaderValue)>,
}

impl ApiError {
    /// An error of an arbitrary status; most have a constructor of their own.
    pub fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            error_type,
            message: message.into(),
            param: None,
            code: None,
            headers: Vec::new(),
        }
    }

    /// 400
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 404
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 404 of objects that are not files or models.
    pub fn object_not_found(object: &str, id: impl std::fmt::Display) -> Self {
        Self::not_found(format!("No {object} found with id '{id}'."))
    }

    /// 404 of files, as the hosted API words it.
    pub fn file_not_found(id: impl std::fmt::Display) -> Self {
        Self::not_found(format!("No such File object: {id}")).param("id")
    }

    /// 404 of models.
    pub fn model_not_found(message: impl Into<String>) -> Self {
        Self::not_found(message)
            .param("model")
            .code("model_not_found")
    }

    /// 401
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    /// 403
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// 405
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            message,
        )
    }

    /// 408
    pub fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "The request body arrived too slowly. Please try again.",
        )
        .header("connection", HeaderValue::from_static("close"))
    }

    /// 413
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            message,
        )
    }

    /// 415
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            message,
        )
    }

    /// 503 with a `Retry-After` of one second.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            .header("retry-after", HeaderValue::from_static("1"))
    }

    /// 507 for a full disk of the server. SDKs retry it like a 503, but load balancers do not take the
    /// server out of service. The cause goes to the log.
    pub fn storage_full(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error.cause = %cause, "request failed: {cause}");
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "server_error",
            "The storage of this server is full, so nothing can be stored. Please retry your request \
             later; the operator of this server must free some space.",
        )
        .code("storage_full")
    }

    /// 429. `limit` is the exceeded limit: `requests` or `tokens`.
    pub fn rate_limited(
        limit: &'static str,
        message: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        let milliseconds = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        Self::new(StatusCode::TOO_MANY_REQUESTS, limit, message)
            .code("rate_limit_exceeded")
            // Whole seconds, rounded up, are for clients without support for `retry-after-ms`.
            .header("retry-after", milliseconds.div_ceil(1000).max(1).into())
            .header("retry-after-ms", milliseconds.max(1).into())
    }

    /// 500. The cause goes to the log, never to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error.cause = %cause, "request failed: {cause}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "The server had an error processing your request. Sorry about that! You can retry \
             your request; if the error persists, give the operator of this server the request \
             ID from the x-request-id header.",
        )
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The response body, which is also the data of an `error` event in a stream.
    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.error_type,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl From<OutOfBodyMemory> for ApiError {
    fn from(_: OutOfBodyMemory) -> Self {
        Self::unavailable(
            "The server has too many large requests at the moment. Please retry your request in a \
             moment.",
        )
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        Self {
            param: error.param,
            code: error.code,
            ..Self::invalid(error.message)
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        for (name, value) in self.headers {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
        response
    }
}

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
            ServiceError::Invalid(error) => error.into(),
            ServiceError::ThreadHasActiveRun { thread, run } => {
                Self::invalid(format!("Thread {thread} already has an active run {run}."))
            }
            ServiceError::ThreadLocked { thread, run } => Self::invalid(format!(
                "Can't add messages to {thread} while a run {run} is active."
            )),
            ServiceError::ThreadContended => {
                Self::unavailable("The thread was busy with other runs. Please retry your request.")
            }
            ServiceError::NothingToRun => Self::invalid(
                "Run creation requires a Thread with a user message or an assistant with \
                 instructions.",
            )
            .code("invalid_thread"),
            ServiceError::CodeInterpreterUnavailable(reason) => Self::invalid(format!(
                "The tool 'code_interpreter' is not available on this server: {reason}. Pass \
                 other `tools` to this run, or take it off the assistant."
            ))
            .param("tools")
            .code("unsupported_tool"),
            ServiceError::RunNotUpdatable(status) => Self::invalid(format!(
                "Cannot update run with status '{}'.",
                status.as_str()
            )),
            ServiceError::RunNotCancellable(status) => Self::invalid(format!(
                "Cannot cancel run with status '{}'.",
                status.as_str()
            )),
            ServiceError::RunTakesNoOutputs(status) => Self::invalid(format!(
                "Runs in status \"{}\" do not accept tool outputs.",
                status.as_str()
            )),
            ServiceError::WrongToolOutputs { expected, given } => Self::invalid(format!(
                "Expected tool outputs for call_ids [{}], got [{}]",
                quote_ids(&expected),
                quote_ids(&given),
            )),
            ServiceError::VectorStoreExpired(id) => {
                Self::invalid(format!("Vector store {id} is expired."))
            }
            ServiceError::FileNotSearchable { extension } => Self::invalid(format!(
                "Files with extensions [{extension}] are not supported for retrieval. See \
                 https://platform.openai.com/docs/assistants/tools/file-search/supported-files"
            ))
            .param("file_ids")
            .code("unsupported_file"),
            ServiceError::FileNotPicture { extension } => Self::invalid(format!(
                "Files with extensions [{extension}] are not supported for image_file. Expected a \
                 picture: .jpeg, .jpg, .png, .gif or .webp."
            ))
            .param("content")
            .code("unsupported_file"),
            ServiceError::AddFiles(error) => error.into(),
            ServiceError::TooManyRuns(max) => Self::rate_limited(
                "requests",
                format!("Rate limit reached: this project may have {max} runs at a time."),
                Duration::from_secs(1),
            ),
            error @ ServiceError::DuplicateKey => Self::internal(&error),
            ServiceError::List(error) => error.into(),
            ServiceError::ProjectNameTaken(name) => {
                Self::invalid(format!("There is a project of the name '{name}' already."))
                    .param("name")
                    .code("name_taken")
            }
            ServiceError::TooManyRequests { limit, retry_after } => Self::rate_limited(
                "requests",
                format!(
                    "Rate limit reached for requests: this project may make {limit} requests per \
                     minute. Please try again in {}.",
                    format_duration(retry_after)
                ),
                retry_after,
            ),
            ServiceError::TooManyTokens {
                limit,
                used,
                retry_after,
            } => Self::rate_limited(
                "tokens",
                format!(
                    "Rate limit reached for tokens: this project may use {limit} tokens per \
                     minute and has used {used}. Please try again in {}.",
                    format_duration(retry_after)
                ),
                retry_after,
            ),
            ServiceError::Search(SearchError::Embed(error)) => Self::new(
                StatusCode::BAD_GATEWAY,
                "server_error",
                format!("Cannot search: {error}."),
            ),
            ServiceError::Search(SearchError::Store(error)) | ServiceError::Store(error) => {
                error.into()
            }
            ServiceError::File(error) => error.into(),
            ServiceError::Blob(error) => error.into(),
            error @ ServiceError::Random(_) => Self::internal(&error),
        }
    }
}

fn quote_ids(ids: &[String]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| format!("'{id}'")).collect();
    ids.join(", ")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            error @ StoreError::DiskFull(_) => Self::storage_full(&error),
            error if error.is_transient() => {
                tracing::error!(error.cause = %error, "database unavailable: {error}");
                Self::unavailable(
                    "The server cannot reach its database right now. Please retry your request \
                     in a moment.",
                )
            }
            error @ (StoreError::Constraint(_)
            | StoreError::LeaseLost
            | StoreError::BadRow(_)
            | StoreError::Database(_)) => Self::internal(&error),
        }
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::UnknownCursor { param, id } => Self::invalid(format!(
                "Invalid '{param}': no object with id '{id}' in this list."
            ))
            .param(param)
            .code("invalid_value"),
            ListError::Store(error) => error.into(),
        }
    }
}

impl From<AddFilesError> for ApiError {
    fn from(error: AddFilesError) -> Self {
        match error {
            AddFilesError::Expired(id) => {
                Self::invalid(format!("Vector store '{id}' has expired."))
            }
            AddFilesError::Full(id) => Self::invalid(format!(
                "Vector store '{id}' would have too many files: a vector store may have up to \
                 {MAX_FILES}."
            ))
            .code("max_files_exceeded"),
            AddFilesError::FileDeleted => {
                Self::not_found("A file was deleted while it was being added.")
            }
            AddFilesError::Store(error) => error.into(),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge { limit } => Self::too_large(format!(
                "The file is too large: this server takes files of up to {limit} bytes."
            )),
            BlobError::Slow => Self::too_slow(),
            error @ BlobError::Body(_) => Self::invalid(format!("Invalid file: {error}.")),
            error @ BlobError::Missing { .. } => {
                tracing::warn!(error.cause = %error, "file contents requested but not stored: {error}");
                Self::not_found(
                    "The contents of this file are not on this server: it was imported without \
                     them. The operator can attach them.",
                )
            }
            error @ BlobError::Full { .. } => Self::storage_full(&error),
            error @ (BlobError::Location(_) | BlobError::Folder(_) | BlobError::Store(_)) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Blob(error) => error.into(),
            FileError::Store(error) => error.into(),
            FileError::QuotaExceeded { limit } => Self::invalid(format!(
                "You have exceeded your file storage quota. This project is limited to {limit} \
                 bytes of files. Please delete old files or attempt with a smaller file size."
            ))
            .code("storage_limit_exceeded"),
            FileError::GivenUp => Self::invalid("The file arrived too slowly. Please try again."),
            FileError::Gone(id) => Self::file_not_found(id),
            FileError::NoUpload(id) => Self::object_not_found("upload", id),
            FileError::NotPending { id, status } => Self::invalid(format!(
                "Upload '{id}' has status '{}'; only a pending upload can be changed.",
                status.as_str()
            )),
            FileError::NoPart(id) => {
                Self::invalid(format!("No part found with id '{id}' in this upload."))
                    .param("part_ids")
            }
            FileError::PartTwice(id) => {
                Self::invalid(format!("Part '{id}' is named more than once.")).param("part_ids")
            }
            FileError::UploadFull => Self::invalid(format!(
                "The parts of an upload may have up to {} bytes together.",
                Upload::MAX_BYTES
            )),
            FileError::WrongSize { declared, bytes } => Self::invalid(format!(
                "The parts have {bytes} bytes together, but the upload was created with 'bytes' \
                 of {declared}."
            ))
            .param("part_ids"),
            FileError::WrongChecksum { expected, md5 } => Self::invalid(format!(
                "The parts have the MD5 checksum '{md5}', but '{expected}' was expected."
            ))
            .param("md5"),
        }
    }
}
