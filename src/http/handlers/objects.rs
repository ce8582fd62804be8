//! `/objects/{object_id}`, an extension.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::http::request::auth::Caller;
use crate::http::request::extract::NameInPath;
use crate::http::response::error::ApiError;
use crate::service::AnyObject;
use crate::wire::assistant::AssistantObject;
use crate::wire::file::FileObject;
use crate::wire::message::MessageObject;
use crate::wire::run::RunObject;
use crate::wire::run_step::StepObject;
use crate::wire::thread::ThreadObject;
use crate::wire::vector_store::VectorStoreObject;

/// `GET /objects/{object_id}`: finds an assistant, thread, message, run, run step, file or vector store
/// by its id alone.
pub async fn retrieve(
    Caller(project): Caller,
    NameInPath(id): NameInPath,
) -> Result<Response, ApiError> {
    Ok(match project.object(&id).await? {
        AnyObject::Assistant(object) => Json(AssistantObject::from(&object)).into_response(),
        AnyObject::Thread(object) => Json(ThreadObject::from(&object)).into_response(),
        AnyObject::Message(object) => Json(MessageObject::from(&object)).into_response(),
        AnyObject::Run(object) => Json(RunObject::from(&object)).into_response(),
        AnyObject::Step(object) => Json(StepObject::stored(&object, false)).into_response(),
        AnyObject::File(object) => Json(FileObject::from(&object)).into_response(),
        AnyObject::VectorStore(object) => Json(VectorStoreObject::from(&object)).into_response(),
    })
}
