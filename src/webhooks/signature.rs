//! Signatures of Standard Webhooks (<https://www.standardwebhooks.com>), which OpenAI's SDKs verify.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::webhook::SigningSecret;

/// The value of `webhook-signature`: one signature for each secret, separated by spaces. `timestamp`
/// is that of `webhook-timestamp`, in Unix seconds.
pub fn signatures(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signed = secrets.iter().map(|secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // The test vector of the Standard Webhooks libraries.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let secret = SigningSecret::from_bytes(secret.expect("valid base 64"));
        let body = br#"{"test": 2432232314}"#;
        let (id, timestamp) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let one = std::slice::from_ref(&secret);
        assert_eq!(signatures(one, id, timestamp, body), signature);

        let other = SigningSecret::from_bytes(b"another".to_vec());
        let both = signatures(&[other, secret], id, timestamp, body);
        let (first, second) = both.split_once(' ').expect("there are two");
        assert_eq!(second, signature);
        assert_ne!(first, signature);
    }
}
