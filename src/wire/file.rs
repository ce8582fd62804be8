//! Files.

use serde::Serialize;

use crate::domain::file::{File, NewFile, Purpose};
use crate::domain::ids::FileId;
use crate::wire::object::{self, Object, missing};
use crate::wire::{ParseError, seconds};

/// A file. Every file is ready for use at once, hence the constant status.
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

/// The answer to a file's deletion, which has its own order of keys and no `.deleted`.
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

/// Longest name of a file, in characters.
pub const MAX_FILENAME: usize = 1024;

/// The fields of a form that creates a file.
pub fn parse_new(filename: String, mut fields: Object) -> Result<NewFile, ParseError> {
    let new = NewFile {
        filename: object::string("filename", filename, MAX_FILENAME)?,
        purpose: parse_purpose(&mut fields)?,
        expires_after: parse_expires_after(&mut fields)?,
    };
    fields.finish()?;
    Ok(new)
}

/// Takes `purpose`, refusing other values in the hosted service's words.
pub fn parse_purpose(fields: &mut Object) -> Result<Purpose, ParseError> {
    let text = fields.required_string("purpose", usize::MAX)?;
    let known = Purpose::UPLOADABLE;
    let found = known
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, purpose)| *purpose);
    found.ok_or_else(|| {
        let words = known.map(|(word, _)| format!("'{word}'")).join(", ");
        let shown: String = text.chars().take(64).collect();
        ParseError::new(format!("'{shown}' is not one of [{words}] - 'purpose'")).param("purpose")
    })
}

/// Takes `expires_after`: seconds after the file's creation, from an hour to thirty days.
pub fn parse_expires_after(fields: &mut Object) -> Result<Option<i64>, ParseError> {
    let Some(mut policy) = fields.object("expires_after")? else {
        return Ok(None);
    };
    let anchor = policy.word("anchor", &[("created_at", ())])?;
    anchor.ok_or_else(|| missing(&policy.path("anchor")))?;
    let seconds = policy.integer("seconds", 3600, 2_592_000)?;
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
    fn a_wrong_purpose_or_life_is_refused_in_the_known_words() {
        let fields = |value| Object::at(String::new(), value).expect("tests give objects");
        let message = |error: ParseError| json!(error.message);
        let refused = parse_purpose(&mut fields(json!({"purpose": "world_domination"})));
        assert_eq!(
            refused.map_err(message),
            Err(json!(
                "'world_domination' is not one of ['fine-tune', 'assistants', 'batch', \
                 'user_data', 'vision', 'evals'] - 'purpose'"
            ))
        );
        let life = |policy| parse_expires_after(&mut fields(json!({"expires_after": policy})));
        assert_eq!(
            life(json!({"anchor": "created_at", "seconds": 3600})).map_err(message),
            Ok(Some(3600))
        );
        assert_eq!(life(json!(null)).map_err(message), Ok(None));
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
            let error = life(policy.clone()).expect_err("the policy is invalid");
            assert_eq!(error.param.as_deref(), Some(param), "{policy}");
        }
    }

    #[test]
    fn a_file_shows_all_keys_in_the_known_order() {
        let mut file = File {
            id: "file-1".parse().expect("it is an id"),
            created_at: DateTime::from_timestamp(1_780_006_003, 900_000_000).expect("in range"),
            expires_at: None,
            filename: r"Assets\你好.txt".to_owned(),
            bytes: 50,
            purpose: Purpose::FineTune,
        };
        let json =
            |file: &File| serde_json::to_string(&FileObject::from(file)).expect("it is JSON");
        assert_eq!(
            json(&file),
            r#"{"object":"file","id":"file-1","purpose":"fine-tune","filename":"Assets\\你好.txt","bytes":50,"created_at":1780006003,"expires_at":null,"status":"processed","status_details":null}"#
        );
        file.expires_at = DateTime::from_timestamp(1_780_009_603, 0);
        assert!(json(&file).contains(r#""expires_at":1780009603,"#));
    }
}
