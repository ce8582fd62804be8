//! Posts events, to places where they may be posted.

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
use crate::webhooks::address::Place;
use crate::webhooks::signature::signatures;

/// How long an endpoint may take for its answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How much of an answer is read, so that the connection can be used again. What it says does not
/// matter.
const ANSWER_BYTES: usize = 16 << 10;

/// Posts to endpoints.
#[derive(Debug, Clone)]
pub struct Sender {
    http: Client,
    allow_private: bool,
}

/// Why a URL cannot be posted to. The texts do not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is none, or of a scheme that is not HTTP's.
    #[error("expected an https:// URL")]
    NoUrl,
    /// It has a password, which would be shown with the URL.
    #[error("a URL with a user or a password is not taken: the signature says who posts")]
    Credentials,
    /// What is signed can be read by others.
    #[error(
        "plain http:// is for private networks only; ASSISTD_WEBHOOK_ALLOW_PRIVATE=true allows them"
    )]
    Plain,
    /// It leads into a private network.
    #[error(
        "it leads to this machine or a private network; ASSISTD_WEBHOOK_ALLOW_PRIVATE=true allows that"
    )]
    Private,
    /// It leads where no receiver of webhooks is.
    #[error("it leads to a link-local address, to a cloud's metadata service, or nowhere")]
    Never,
}

/// Why an event was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The endpoint is not one to post to.
    #[error(transparent)]
    UrlError(#[from] UrlError),
    /// It answered, but not with success.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It did not answer in time.
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// There is no connection, or it broke. The text does not repeat the URL.
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
                return Self::UrlError(*refused);
            }
            text = error.to_string();
            cause = error.source();
        }
        // The innermost cause says most.
        match text.is_empty() {
            true => Self::Unreachable(error.without_url().to_string()),
            // It may quote what the other side has sent.
            false => Self::Unreachable(without_nul(text)),
        }
    }
}

impl Sender {
    /// A sender that posts into private networks only if it is told to.
    ///
    /// # Errors
    /// If the system's certificates cannot be read.
    pub fn new(allow_private: bool) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .dns_resolver(Arc::new(Guard { allow_private }))
            // A proxy would look names up by itself.
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
    /// If the endpoint did not take it.
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
        finish(response).await;
        match status.is_success() {
            true => Ok(()),
            false => Err(SendError::Status(status)),
        }
    }
}

/// Checks the URL's syntax, scheme and, if its host is one, its address. The addresses of a host name
/// are checked at each delivery.
///
/// # Errors
/// If events cannot be posted there.
pub fn check_url(url: &str, allow_private: bool) -> Result<Url, UrlError> {
    let url = Url::parse(url).map_err(|_| UrlError::NoUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => return Err(UrlError::Plain),
        _ => return Err(UrlError::NoUrl),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    // The resolver never sees a host that is an address.
    let host = url.host_str().ok_or(UrlError::NoUrl)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        admit(address, allow_private)?;
    }
    Ok(url)
}

/// Reads what is left of a short answer.
async fn finish(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        read += piece.len();
        if read > ANSWER_BYTES {
            return;
        }
    }
}

fn admit(address: IpAddr, allow_private: bool) -> Result<(), UrlError> {
    match Place::of(address) {
        Place::Public => Ok(()),
        Place::Private if allow_private => Ok(()),
        Place::Private => Err(UrlError::Private),
        Place::Never => Err(UrlError::Never),
    }
}

/// Looks names up, and hands out only addresses that may be connected to.
struct Guard {
    allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut refused = None;
            let mut admitted: Vec<SocketAddr> = Vec::new();
            for address in found {
                match admit(address.ip(), allow_private) {
                    Ok(()) => admitted.push(address),
                    Err(reason) => refused = Some(reason),
                }
            }
            match refused {
                Some(reason) if admitted.is_empty() => Err(reason.into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
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
            ("http://example.com/hook", Err(UrlError::Plain), Ok(())),
            ("https://10.0.0.1/", Err(UrlError::Private), Ok(())),
            ("https://[::1]:8443/", Err(UrlError::Private), Ok(())),
            // Other ways to write 127.0.0.1.
            ("https://2130706433/", Err(UrlError::Private), Ok(())),
            ("https://0x7f.1/", Err(UrlError::Private), Ok(())),
            (
                "https://169.254.169.254/",
                Err(UrlError::Never),
                Err(UrlError::Never),
            ),
            (
                "https://[fe80::1]/",
                Err(UrlError::Never),
                Err(UrlError::Never),
            ),
            (
                "https://a:b@example.com/",
                Err(UrlError::Credentials),
                Err(UrlError::Credentials),
            ),
            (
                "ftp://example.com/",
                Err(UrlError::NoUrl),
                Err(UrlError::NoUrl),
            ),
            ("example.com", Err(UrlError::NoUrl), Err(UrlError::NoUrl)),
        ] {
            assert_eq!(check(url, false), by_default, "{url}");
            assert_eq!(check(url, true), when_allowed, "{url}");
        }
    }

    #[tokio::test]
    async fn names_that_lead_inside_are_refused_when_they_are_looked_up() {
        let sender = Sender::new(false).expect("a client can be made");
        let target = Target {
            endpoint: "we_test".parse().expect("it is an id"),
            url: "https://localhost:9/".to_owned(),
            secrets: Vec::new(),
        };
        let event = EventId::generate();
        let refused = sender.send(&target, &event, Vec::new()).await;
        assert!(
            matches!(refused, Err(SendError::UrlError(UrlError::Private))),
            "{refused:?}"
        );
    }
}
