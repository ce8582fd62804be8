//! Ids: one type per kind of object, with its prefix.
//!
//! Generated ids are a prefix and a UUIDv7 in base 62, so they sort by creation and stay within
//! `[A-Za-z0-9]`, as clients expect. Imported ids are accepted if they begin with the right prefix.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Digits of base 62 in ASCII order, so that encoded values sort like their numbers.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Maximum length of an id from a client, in bytes.
const MAX_ID_LEN: usize = 128;

/// A UUIDv7 as 22 base-62 digits: 48 bits of milliseconds, then 74 random bits.
fn sortable_base62() -> String {
    let mut rest = Uuid::now_v7().as_u128();
    let mut digits = [b'0'; 22];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|&byte| char::from(byte)).collect()
}

/// 24 characters: 22 sortable ones and two more random ones.
pub fn alphanumeric24() -> String {
    let mut id = sortable_base62();
    let random = Uuid::new_v4().as_u128();
    id.push(char::from(BASE62[(random % 62) as usize]));
    id.push(char::from(BASE62[(random / 62 % 62) as usize]));
    id
}

/// 22 characters, the length of the hosted service's file ids.
pub fn alphanumeric22() -> String {
    sortable_base62()
}

pub fn hex32() -> String {
    Uuid::now_v7().simple().to_string()
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an ID that begins with '{prefix}'")]
pub struct WrongPrefix {
    /// The expected prefix without its separator, as error texts name it.
    pub prefix: &'static str,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal $(| $other:literal)*, $named:literal,
     $generate:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent, no_pg_array)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// A new id that sorts after all earlier ones.
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "{}"), $generate()).into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = WrongPrefix;

            fn from_str(text: &str) -> Result<Self, WrongPrefix> {
                let rest = text.strip_prefix($prefix)$(.or_else(|| text.strip_prefix($other)))*;
                let rest = rest.ok_or(WrongPrefix { prefix: $named })?;
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
                if rest.is_empty() || text.len() > MAX_ID_LEN || !rest.bytes().all(plain) {
                    return Err(WrongPrefix { prefix: $named });
                }
                Ok(Self(text.into()))
            }
        }
    };
}

typed_id!(
    /// A project (tenant).
    ProjectId, "proj_", "proj", alphanumeric24
);
typed_id!(
    /// An API key.
    ApiKeyId, "key_", "key", alphanumeric24
);
typed_id!(
    /// An entry of the audit log.
    AuditId, "audit_", "audit", alphanumeric24
);
typed_id!(
    /// An assistant.
    AssistantId, "asst_", "asst", alphanumeric24
);
typed_id!(
    /// A thread.
    ThreadId, "thread_", "thread", alphanumeric24
);
typed_id!(
    /// A message of a thread.
    MessageId, "msg_", "msg", alphanumeric24
);
typed_id!(
    /// A run.
    RunId, "run_", "run", alphanumeric24
);
typed_id!(
    /// A step of a run.
    StepId, "step_", "step", alphanumeric24
);
typed_id!(
    /// A file. Unlike all others, its prefix ends in a hyphen. Imported files of Azure keep their
    /// prefix `assistant-`.
    FileId, "file-" | "assistant-", "file", alphanumeric22
);
typed_id!(
    /// An upload in parts.
    UploadId, "upload_", "upload", hex32
);
typed_id!(
    /// A part of an upload.
    PartId, "part_", "part", hex32
);

typed_id!(
    /// A vector store.
    VectorStoreId, "vs_", "vs", hex32
);
typed_id!(
    /// A batch of files in a vector store.
    BatchId, "vsfb_", "vsfb", hex32
);
typed_id!(
    /// A webhook endpoint.
    EndpointId, "we_", "we", alphanumeric24
);
typed_id!(
    /// A webhook event. The database generates most of these ids.
    EventId, "evt_", "evt", hex32
);

/// Generates an id for a tool call of an upstream that sends none.
pub fn tool_call_id() -> String {
    format!("call_{}", alphanumeric24())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_have_the_documented_shape_and_sort_by_creation() {
        let ids: Vec<RunId> = (0..1000).map(|_| RunId::generate()).collect();
        for id in &ids {
            assert_eq!(id.as_str().len(), "run_".len() + 24);
            assert_eq!(id.as_str().parse::<RunId>().as_ref(), Ok(id));
        }
        assert!(ids.is_sorted(), "ids made later sort later");
        assert_eq!(FileId::generate().as_str().len(), "file-".len() + 22);
    }

    #[test]
    fn an_id_of_another_kind_is_refused_by_its_prefix() {
        assert_eq!(
            "msg_abc".parse::<RunId>(),
            Err(WrongPrefix { prefix: "run" })
        );
        assert_eq!("run_".parse::<RunId>(), Err(WrongPrefix { prefix: "run" }));
        assert_eq!(
            "run_a b".parse::<RunId>(),
            Err(WrongPrefix { prefix: "run" })
        );
        assert!("run_imported-From_elsewhere1".parse::<RunId>().is_ok());
        assert!("assistant-of-azure".parse::<FileId>().is_ok());
        assert!("asst_1".parse::<FileId>().is_err());
    }
}
