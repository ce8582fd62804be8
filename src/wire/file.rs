//! Files.

use serde::Serialize;

use crate::domain::file::{File, NewFile, Purpose};
use crate::domain::ids::FileId;
use crate::wire::object::Object;
use crate::wire::refusal::missing;
use crate::wire::value;
use crate::wire::{ParseError, seconds};

/// A file. Its status is constant, because every file can be used at once.
#[derive(Debug, Serialize)]
pub struct FileObject<'a> {
    object: &'static str,
    id: &'a str,
    purpose: &'static str,
    filename: &'a str,
    bytes: i64,
    created_at: i64,
    expires_at: Option<i64>,
    status: &'static str,
    status_details: Option<&'static str>,
}

impl<'a> From<&'a File> for FileObject<'a> {
    fn from(file: &'a File) -> Self {
        let File {
            id,
            created_at,
            expires_at,
            filename,
            bytes,
            purpose,
        } = file;
        Self {
            object: "file",
            id: id.as_str(),
            purpose: purpose.as_str(),
            filename,
            bytes: *bytes,
            created_at: seconds(*created_at),
            expires_at: expires_at.map(seconds),
            status: "processed",
            status_details: None,
        }
    }
}

/// The response to the deletion of a file. Unlike [`super::Deleted`], `object` has no suffix and the
/// keys have another order.
#[derive(Debug, Serialize)]
pub struct DeletedFile<'a> {
    object: &'static str,
    deleted: bool,
    id: &'a str,
}

impl<'a> From<&'a FileId> for DeletedFile<'a> {
    fn from(id: &'a FileId) -> Self {
        Self {
            object: "file",
            deleted: true,
            id: id.as_str(),
        }
    }
}

pub const MAX_FILENAME: usize = 1024;

const MIN_LIFETIME_SECONDS: i64 = 60 * 60;
const MAX_LIFETIME_SECONDS: i64 = 30 * 24 * 60 * 60;

pub fn parse_new(filename: String, mut fields: Object) -> Result<NewFile, ParseError> {
    let new = NewFile {
        filename: value::string("filename", filename, MAX_FILENAME)?,
        purpose: parse_purpose(&mut fields)?,
        expires_after: parse_expires_after(&mut fields)?,
    };
    fields.finish()?;
    Ok(new)
}

/// Takes `purpose`; its refusal has the hosted API's text.
pub fn parse_purpose(fields: &mut Object) -> Result<Purpose, ParseError> {
    let text = fields.required_string("purpose", usize::MAX)?;
    let purposes = Purpose::UPLOADABLE;
    let purpose = purposes.iter().find(|(name, _)| *name == text);
    purpose.map(|(_, purpose)| *purpose).ok_or_else(|| {
        let names = purposes.map(|(name, _)| format!("'{name}'")).join(", ");
        let shown: String = text.chars().take(64).collect();
        ParseError::new(format!("'{shown}' is not one of [{names}] - 'purpose'")).param("purpose")
    })
}

/// Takes `expires_after`, in seconds after the file's creation.
pub fn parse_expires_after(fields: &mut Object) -> Result<Option<i64>, ParseError> {
    let Some(mut policy) = fields.object("expires_after")? else {
        return Ok(None);
    };
    let anchor = policy.enum_value("anchor", &[("created_at", ())])?;
    anchor.ok_or_else(|| missing(&policy.path("anchor")))?;
    let seconds = policy.integer("seconds", MIN_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS)?;
    let seconds = seconds.ok_or_else(|| missing(&policy.path("seconds")))?;
    policy.finish()?;
    Ok(Some(seconds))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invalid_purpose_or_lifetime_is_refused_with_the_recorded_text() {
        let fields = |value| Object::at(String::new(), value).expect("the test passes an object");
        let message = |error: ParseError| json!(error.message);
        let refused = parse_purpose(&mut fields(json!({"purpose": "world_domination"})));
        assert_eq!(
            refused.map_err(message),
            Err(json!(
                "'world_domination' is not one of ['fine-tune', 'assistants', 'batch', \
                 'user_data', 'vision', 'evals'] - 'purpose'"
            ))
        );
        let lifetime = |policy| parse_expires_after(&mut fields(json!({"expires_after": policy})));
        assert_eq!(
            lifetime(json!({"anchor": "created_at", "seconds": 3600})).map_err(message),
            Ok(Some(3600))
        );
        assert_eq!(lifetime(json!(null)).map_err(message), Ok(None));
        for (policy, param) in [
            (json!({"seconds": 3600}), "expires_after.anchor"),
            (json!({"anchor": "created_at"}), "expires_after.seconds"),
            (
                json!({"anchor": "last_active_at", "seconds": 3600}),
                "expires_after.anchor",
            ),
            (
                json!({"anchor": "created_at", "seconds": 3599}),
                "expires_after.seconds",
            ),
            (
                json!({"anchor": "created_at", "seconds": 2_592_001}),
                "expires_after.seconds",
            ),
            (
                json!({"anchor": "created_at", "seconds": 3600, "x": 1}),
                "expires_after.x",
            ),
            (json!("never"), "expires_after"),
        ] {
            let error = lifetime(policy.clone()).expect_err("the policy is invalid");
            assert_eq!(error.param.as_deref(), Some(param), "{policy}");
        }
    }

    #[test]
    fn a_file_serializes_with_all_keys_in_the_recorded_order() {
        let mut file = File {
            id: "file-1".parse().expect("the prefix is that of files"),
            created_at: DateTime::from_timestamp(1_780_006_003, 900_000_000).expect("in range"),
            expires_at: None,
            filename: r"Assets\你好.txt".to_owned(),
            bytes: 50,
            purpose: Purpose::FineTune,
        };
        let json = |file: &File| {
            serde_json::to_string(&FileObject::from(file)).expect("the object serializes")
        };
        assert_eq!(
            json(&file),
            r#"{"object":"file","id":"file-1","purpose":"fine-tune","filename":"Assets\\你好.txt","bytes":50,"created_at":1780006003,"expires_at":null,"status":"processed","status_details":null}"#
        );
        file.expires_at = DateTime::from_timestamp(1_780_009_603, 0);
        assert!(json(&file).contains(r#""expires_at":1780009603,"#));
    }
}
