//! Posts events to endpoints, except to forbidden addresses.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use crate::domain::ids::EventId;
use crate::domain::text::without_nul;
use crate::store::webhook_endpoints::Target;
use crate::webhooks::address::AddressClass;
use crate::webhooks::signature::signatures;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Most bytes of a response that are read. Its content does not matter, but a connection can be
/// reused only after a complete response.
const RESPONSE_BYTES: usize = 16 << 10;

#[derive(Debug, Clone)]
pub struct Sender {
    http: Client,
    allow_private: bool,
}

/// Why a URL cannot be posted to. The messages do not contain the URL, which may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("expected an https:// URL")]
    Invalid,
    #[error("the URL must not contain a user or password: the signature authenticates the sender")]
    Credentials,
    #[error(
        "plain http:// is for private networks only; ASSISTD_WEBHOOK_ALLOW_PRIVATE=true allows them"
    )]
    Unencrypted,
    #[error(
        "it leads to this machine or a private network; ASSISTD_WEBHOOK_ALLOW_PRIVATE=true allows that"
    )]
    Private,
    #[error("it leads to a link-local address, a cloud's metadata service, or no host at all")]
    Forbidden,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The connection failed. The message does not contain the URL.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let mut cause = error.source();
        let mut text = String::new();
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<UrlError>() {
                return Self::Url(*refused);
            }
            text = error.to_string();
            cause = error.source();
        }
        // The innermost cause is the most specific one.
        match text.is_empty() {
            true => Self::Unreachable(error.without_url().to_string()),
            // It may quote bytes that the endpoint has sent.
            false => Self::Unreachable(without_nul(text)),
        }
    }
}

impl Sender {
    /// # Errors
    /// If the system's certificates cannot be read.
    pub fn new(allow_private: bool) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .dns_resolver(Arc::new(FilteringResolver { allow_private }))
            // A proxy would resolve names itself, past the filter.
            .no_proxy()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("assistd/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            allow_private,
        })
    }

    /// Posts a signed event.
    ///
    /// # Errors
    /// If the endpoint did not answer with a 2xx.
    pub async fn send(
        &self,
        target: &Target,
        event: &EventId,
        body: Vec<u8>,
    ) -> Result<(), SendError> {
        let url = check_url(&target.url, self.allow_private)?;
        let timestamp = chrono::Utc::now().timestamp();
        let signatures = signatures(&target.secrets, event.as_str(), timestamp, &body);
        let response = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", event.as_str())
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures)
            .body(body)
            .send()
            .await?;
        let status = response.status();
        read_to_end(response).await;
        match status.is_success() {
            true => Ok(()),
            false => Err(SendError::Status(status)),
        }
    }
}

/// Validates a URL's syntax, scheme and, if its host is one, its address. The addresses of a host name
/// are checked at each delivery.
pub fn check_url(url: &str, allow_private: bool) -> Result<Url, UrlError> {
    let url = Url::parse(url).map_err(|_| UrlError::Invalid)?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => return Err(UrlError::Unencrypted),
        _ => return Err(UrlError::Invalid),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    // Addresses bypass the resolver, and with it its filter.
    let host = url.host_str().ok_or(UrlError::Invalid)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        check_address(address, allow_private)?;
    }
    Ok(url)
}

async fn read_to_end(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(bytes)) = response.chunk().await {
        read += bytes.len();
        if read > RESPONSE_BYTES {
            return;
        }
    }
}

fn check_address(address: IpAddr, allow_private: bool) -> Result<(), UrlError> {
    match AddressClass::of(address) {
        AddressClass::Public => Ok(()),
        AddressClass::Private if allow_private => Ok(()),
        AddressClass::Private => Err(UrlError::Private),
        AddressClass::Forbidden => Err(UrlError::Forbidden),
    }
}

/// Resolves host names, and returns only the addresses that may be posted to.
struct FilteringResolver {
    allow_private: bool,
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let resolved = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut refused = None;
            let mut allowed: Vec<SocketAddr> = Vec::new();
            for address in resolved {
                match check_address(address.ip(), allow_private) {
                    Ok(()) => allowed.push(address),
                    Err(reason) => refused = Some(reason),
                }
            }
            match refused {
                Some(reason) if allowed.is_empty() => Err(reason.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, allow_private: bool) -> Result<(), UrlError> {
        check_url(url, allow_private).map(drop)
    }

    #[test]
    fn urls_that_lead_inside_are_taken_only_when_that_is_allowed() {
        for (url, by_default, when_allowed) in [
            ("https://example.com/hook", Ok(()), Ok(())),
            (
                "http://example.com/hook",
                Err(UrlError::Unencrypted),
                Ok(()),
            ),
            ("https://10.0.0.1/", Err(UrlError::Private), Ok(())),
            ("https://[::1]:8443/", Err(UrlError::Private), Ok(())),
            // Other notations of 127.0.0.1.
            ("https://2130706433/", Err(UrlError::Private), Ok(())),
            ("https://0x7f.1/", Err(UrlError::Private), Ok(())),
            (
                "https://169.254.169.254/",
                Err(UrlError::Forbidden),
                Err(UrlError::Forbidden),
            ),
            (
                "https://[fe80::1]/",
                Err(UrlError::Forbidden),
                Err(UrlError::Forbidden),
            ),
            (
                "https://a:b@example.com/",
                Err(UrlError::Credentials),
                Err(UrlError::Credentials),
            ),
            (
                "ftp://example.com/",
                Err(UrlError::Invalid),
                Err(UrlError::Invalid),
            ),
            (
                "example.com",
                Err(UrlError::Invalid),
                Err(UrlError::Invalid),
            ),
        ] {
            assert_eq!(check(url, false), by_default, "{url}");
            assert_eq!(check(url, true), when_allowed, "{url}");
        }
    }

    #[tokio::test]
    async fn names_that_lead_inside_are_refused_when_they_are_looked_up() {
        let sender = Sender::new(false).expect("the system's certificates can be read");
        let target = Target {
            endpoint: "we_test".parse().expect("a valid id"),
            url: "https://localhost:9/".to_owned(),
            secrets: Vec::new(),
        };
        let event = EventId::generate();
        let refused = sender.send(&target, &event, Vec::new()).await;
        assert!(
            matches!(refused, Err(SendError::Url(UrlError::Private))),
            "{refused:?}"
        );
    }
}
