//! Files.

use serde::Serialize;

use crate::domain::file::File;
use crate::domain::ids::FileId;
use crate::wire::seconds;

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

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::file::Purpose;

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
