//! `assistd healthcheck`: asks a running server whether it is ready, for container engines: an image
//! need not have another program for that.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::answer;
use super::remark;
use crate::config::Config;

/// A server that takes longer has more to do than it can.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);

/// Succeeds if the server at the address of the settings is ready.
pub(super) async fn run(config: &Config) -> ExitCode {
    let scheme = match config.http.tls_cert {
        Some(_) => "https",
        None => "http",
    };
    let url = format!("{scheme}://{}/readyz", reachable(config.http.listen));
    let asked = async {
        let client = reqwest::Client::builder()
            .no_proxy()
            // Its certificate is for the name that clients know it by, and nothing secret is asked.
            .danger_accept_invalid_certs(true)
            .timeout(ANSWERS_WITHIN)
            .build()?;
        client.get(&url).send().await?.error_for_status()
    };
    match asked.await {
        Ok(_) => {
            answer("ready");
            ExitCode::SUCCESS
        }
        Err(error) => {
            remark(format_args!("assistd: not ready: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Where a server that listens there is reached from its own machine.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    listen
}
