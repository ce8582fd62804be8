//! API keys: generation, and the form in which they are stored.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::Timestamp;
use crate::domain::ids::ApiKeyId;

const PREFIX: &str = "sk-assistd-";

/// A stored key, without the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub project: String,
    pub name: String,
    pub hint: String,
    /// For a key from the settings: when it was first seen.
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// Generates a key: [`PREFIX`] and 32 random bytes in 43 URL-safe characters.
///
/// # Errors
/// If the system's random source fails.
pub fn generate() -> Result<String, rand::rand_core::OsError> {
    use rand::TryRngCore as _;
    let mut secret = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut secret)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret)))
}

/// The SHA-256 of a key, by which it is stored and looked up.
///
/// A fast hash is enough: a key has 256 random bits, so it cannot be guessed. A slow password hash
/// would only slow down every request.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The first 11 and last 4 characters of a key; of one shorter than 20 only its length.
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
