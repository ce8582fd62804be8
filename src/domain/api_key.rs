//! API keys: how they are made, and the form in which they are kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::Timestamp;
use crate::domain::ids::ApiKeyId;

/// What the keys that are made here begin with.
const PREFIX: &str = "sk-assistd-";

/// A key as it is kept: without the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id, which is not secret.
    pub id: ApiKeyId,
    /// Name of the project that it opens.
    pub project: String,
    /// What it is for, in its owner's words.
    pub name: String,
    /// Its ends, to recognise it by.
    pub hint: String,
    /// When it was made or first seen.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// A new key: [`PREFIX`] and 32 bytes from the operating system in 43 URL-safe characters.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn generate() -> Result<String, rand::rand_core::OsError> {
    use rand::TryRngCore as _;
    let mut secret = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut secret)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret)))
}

/// The form in which a key is stored and looked up: its SHA-256.
///
/// A fast hash is enough because a key is 256 random bits: there is nothing to guess, whatever a
/// guess costs. A slow one, as for passwords, would only be paid for by every request.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The ends of a key, or of a short one its length only.
pub fn hint(key: &str) -> String {
    let characters: Vec<char> = key.chars().collect();
    if characters.len() < 20 {
        return format!("({} characters)", characters.len());
    }
    let start: String = characters.iter().take(PREFIX.len()).collect();
    let end: String = characters.iter().skip(characters.len() - 4).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_are_long_random_and_can_be_put_into_a_header() {
        let key = generate().expect("the system has randomness");
        let other = generate().expect("the system has randomness");
        assert_ne!(key, other);
        let secret = key.strip_prefix(PREFIX).expect("keys have the prefix");
        assert_eq!(secret.len(), 43);
        let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(secret.bytes().all(url_safe), "{key}");
    }

    #[test]
    fn a_hint_does_not_give_a_key_away() {
        assert_eq!(hint("sk-assistd-0123456789abcdefghij"), "sk-assistd-…ghij");
        assert_eq!(hint("a-short-one"), "(11 characters)");
        assert_eq!(hint("äöü"), "(3 characters)");
    }
}
