//! Protection of a server without API keys.
//!
//! Such a server accepts any key, so a web page in a browser on the same machine must not be able to
//! call it. Other programs send neither `Origin` nor `Sec-Fetch-Site` and are served.

use std::net::Ipv4Addr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use crate::http::response::error::ApiError;
use crate::http::state::CorsOrigins;

/// Host names by which containers reach the loopback interface of their host. The top-level domain
/// `.internal` is reserved, so the public DNS never resolves them.
const CONTAINER_HOSTS: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// Marks a request that was accepted because the server has no API keys.
#[derive(Debug, Clone, Copy)]
pub struct Keyless;

pub fn check(headers: &HeaderMap, origins: &CorsOrigins) -> Result<(), ApiError> {
    if is_local_request(headers, origins) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        "As long as it has no API keys, this server answers programs and pages of this machine only, \
         and this request seems to come from a web page of another origin, or to use a host name \
         that is not this machine's. Its operator can create a key with `assistd keys create`, or \
         list the page's origin in ASSISTD_CORS_ORIGINS.",
    ))
}

/// Refuses a JSON body without a JSON media type. A browser posts some other types to any origin
/// without a preflight request.
pub fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if media_type.is_some_and(is_json) {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type(
        "As long as it has no API keys, this server takes JSON only with the header \
         'Content-Type: application/json'.",
    ))
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn is_local_request(headers: &HeaderMap, origins: &CorsOrigins) -> bool {
    // A header that is not ASCII reads as empty, which is not a local host.
    let text = |name: &str| headers.get(name).map(|it| it.to_str().unwrap_or_default());
    // With DNS rebinding, a page's own host name resolves to this machine. To its browser the request
    // is of the same origin, so the host name may be all that gives it away.
    if !text("host").is_none_or(is_local_host) {
        return false;
    }
    match text("origin") {
        Some(origin) => is_local_origin(origin) || origins.lists(origin),
        // Browsers send no `Origin` with requests for images, scripts and links.
        None => !matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")),
    }
}

fn is_local_origin(origin: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else {
        return false;
    };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(is_loopback)
}

/// Whether the `Host` header names this machine. The server listens on loopback, so others reach it
/// only through a tunnel, a proxy or a container's gateway.
fn is_local_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().to_ascii_lowercase();
    is_loopback(&name)
        // A program that connects to the listening address of all interfaces reaches loopback.
        || matches!(&*name, "0.0.0.0" | "[::]")
        || CONTAINER_HOSTS.contains(&&*name)
}

fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host == "[::1]"
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "https://app.example";

    fn is_served(pairs: &[(&'static str, &str)]) -> bool {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = value.parse().expect("test values are valid");
            (header::HeaderName::from_static(name), value)
        });
        let origins = CorsOrigins::new([LISTED.to_owned(), "*".to_owned()]);
        is_local_request(&pairs.collect(), &origins)
    }

    #[test]
    fn a_server_without_keys_serves_pages_of_loopback_and_listed_origins_only() {
        let local = [
            "http://localhost:3000",
            "https://localhost",
            "http://LOCALHOST:3000",
            "http://app.localhost:5173",
            "http://127.0.0.1:8000",
            "http://127.8.9.10",
            "http://[::1]:3000",
            LISTED,
        ];
        let foreign = [
            "null",
            "",
            "https://evil.example",
            "http://203.0.113.7",
            "http://192.168.1.5:8000",
            "http://10.0.0.1",
            "http://0.0.0.0:8000",
            "http://[2001:db8::7]",
            "http://[::ffff:7f00:1]",
            "http://[fe80::1]:3000",
            "http://intranet",
            "http://printer.local",
            "http://service.internal",
            "http://host.docker.internal",
            "http://app.test",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://notlocalhost",
            "http://localhost.",
            "file://",
            "file://localhost",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://localhost",
            "http://app.example",
            "https://app.example:8443",
            "https://sub.app.example",
        ];
        for host in ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"] {
            for (origins, expected) in [(&local[..], true), (&foreign[..], false)] {
                for origin in origins {
                    let served = is_served(&[("host", host), ("origin", origin)]);
                    assert_eq!(served, expected, "{origin} at {host}");
                }
            }
        }
    }

    #[test]
    fn a_server_without_keys_serves_no_page_that_reaches_it_by_a_name_of_its_own() {
        for host in [
            "localhost:8000",
            "api.localhost:8000",
            "127.0.0.1:8000",
            "127.0.0.2",
            "[::1]:8000",
            "0.0.0.0:8000",
            "host.docker.internal:8000",
            "host.containers.internal",
        ] {
            assert!(is_served(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "203.0.113.7:8000",
            "[2001:db8::7]:8000",
            "assistd",
            "assistd.local:8000",
            "assistd.internal",
            "assistd.test",
            "",
            "two hosts",
        ] {
            assert!(!is_served(&[("host", host)]), "{host}");
        }
    }

    #[test]
    fn a_server_without_keys_serves_programs_and_no_embedded_requests_of_other_sites() {
        let here = ("host", "127.0.0.1:8000");
        assert!(is_served(&[]));
        assert!(is_served(&[here]));
        for (site, expected) in [
            ("none", true),
            ("same-origin", true),
            ("same-site", false),
            ("cross-site", false),
        ] {
            let sent = ("sec-fetch-site", site);
            assert_eq!(is_served(&[here, sent]), expected, "{site}");
            let origin = ("origin", "http://localhost:3000");
            assert!(is_served(&[here, sent, origin]), "{site}");
            let origin = ("origin", "http://203.0.113.7");
            assert!(!is_served(&[here, sent, origin]), "{site}");
        }
    }

    #[test]
    fn a_server_without_keys_accepts_json_with_a_json_media_type_only() {
        let accepts = |media_type: &str| {
            let value = media_type.parse().expect("test values are valid");
            check_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)])).is_ok()
        };
        for media_type in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.api+json",
        ] {
            assert!(accepts(media_type), "{media_type}");
        }
        for media_type in [
            "text/plain",
            "text/plain; application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=edge",
            "",
        ] {
            assert!(!accepts(media_type), "{media_type}");
        }
        assert!(check_json(&HeaderMap::new()).is_err());
    }
}
