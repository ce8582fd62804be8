//! `assistd healthcheck`: checks that the running server is ready. Container engines call it, so an
//! image needs no other program for that.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::output;
use crate::config::Config;

/// A server that takes longer is overloaded.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) async fn run(config: &Config) -> ExitCode {
    let scheme = match config.http.tls_cert {
        Some(_) => "https",
        None => "http",
    };
    let url = format!("{scheme}://{}/readyz", local_address(config.http.listen));
    let response = async {
        let client = reqwest::Client::builder()
            .no_proxy()
            // The certificate is not for this address, and the request contains no secret.
            .danger_accept_invalid_certs(true)
            .timeout(TIMEOUT)
            .build()?;
        client.get(&url).send().await?.error_for_status()
    };
    match response.await {
        Ok(_) => {
            output::print("ready");
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::note(format_args!("assistd: not ready: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn local_address(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    listen
}
