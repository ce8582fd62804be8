//! Tool resources of assistants and threads.

use serde::{Serialize, Serializer};

use crate::domain::assistant::{CodeInterpreterResources, FileSearchResources, ToolResources};
use crate::domain::vector_store::NewVectorStore;
use crate::wire::ParseError;
use crate::wire::object::Object;
use crate::wire::vector_store;

const MAX_CODE_INTERPRETER_FILES: usize = 20;
/// A thread or an assistant searches one vector store.
const MAX_VECTOR_STORES: usize = 1;

/// The tool resources of an assistant. With code_interpreter enabled, its list of files is shown even
/// when it is empty.
#[derive(Debug)]
pub struct ToolResourcesObject<'a> {
    pub resources: &'a ToolResources,
    pub has_code_interpreter: bool,
}

impl Serialize for ToolResourcesObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.has_code_interpreter && self.resources.code_interpreter.is_none() {
            let mut shown = self.resources.clone();
            shown.code_interpreter = Some(Default::default());
            return shown.serialize(serializer);
        }
        self.resources.serialize(serializer)
    }
}

#[derive(Debug, Default)]
pub struct NewToolResources {
    /// Existing files and vector stores.
    pub named: ToolResources,
    /// A vector store to create for file_search; then `named` has none.
    pub vector_store: Option<NewVectorStore>,
}

pub fn parse_tool_resources(body: &mut Object) -> Result<ToolResources, ParseError> {
    let Some(mut resources) = body.object("tool_resources")? else {
        return Ok(ToolResources::default());
    };
    let mut parsed = ToolResources {
        code_interpreter: parse_code_interpreter_resources(&mut resources)?,
        file_search: None,
    };
    if let Some(mut tool) = resources.object("file_search")? {
        let vector_store_ids = tool
            .ids("vector_store_ids", MAX_VECTOR_STORES)?
            .unwrap_or_default();
        tool.finish()?;
        parsed.file_search = Some(FileSearchResources { vector_store_ids });
    }
    resources.finish()?;
    Ok(parsed)
}

/// Takes `tool_resources` that may also define a vector store to create.
pub fn parse_new_tool_resources(body: &mut Object) -> Result<NewToolResources, ParseError> {
    let mut parsed = NewToolResources::default();
    let Some(mut resources) = body.object("tool_resources")? else {
        return Ok(parsed);
    };
    parsed.named.code_interpreter = parse_code_interpreter_resources(&mut resources)?;
    if let Some(mut tool) = resources.object("file_search")? {
        let ids = tool.ids("vector_store_ids", MAX_VECTOR_STORES)?;
        let path = tool.path("vector_stores");
        let stores = tool.objects("vector_stores", MAX_VECTOR_STORES)?;
        tool.finish()?;
        if ids.is_some() && stores.is_some() {
            return Err(ParseError::new(
                "'vector_store_ids' and 'vector_stores' are mutually exclusive.",
            )
            .param(path)
            .code("invalid_value"));
        }
        let store = stores.unwrap_or_default().pop();
        parsed.vector_store = store.map(vector_store::parse_for_tool).transpose()?;
        parsed.named.file_search = Some(FileSearchResources {
            vector_store_ids: ids.unwrap_or_default(),
        });
    }
    resources.finish()?;
    Ok(parsed)
}

fn parse_code_interpreter_resources(
    resources: &mut Object,
) -> Result<Option<CodeInterpreterResources>, ParseError> {
    let Some(mut tool) = resources.object("code_interpreter")? else {
        return Ok(None);
    };
    let file_ids = tool
        .ids("file_ids", MAX_CODE_INTERPRETER_FILES)?
        .unwrap_or_default();
    tool.finish()?;
    Ok(Some(CodeInterpreterResources { file_ids }))
}
