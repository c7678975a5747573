//! `fleetlog health`: asks a running `fleetlog run` or `fleetlog presence` on this machine, for health checks without a curl.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    config::Config,
    exit::{Code, Failure},
    output,
};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog health\n  fleetlog health --ready\n  fleetlog health --presence\n\n\
                        Exit code 1 if something is wrong, 3 if nothing answers."
)]
pub(crate) struct Health {
    /// Ask whether every lane has found its start and its stores, not only whether none has stopped for good
    #[arg(long)]
    ready: bool,
    /// Ask `fleetlog presence` (presence.http_address) instead of `fleetlog run` (run.http_address)
    #[arg(long)]
    presence: bool,
    /// How long the answer may take, in milliseconds
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u64,
}

pub(crate) async fn run(health: &Health, config: &Config) -> anyhow::Result<Code> {
    let (command, setting, address) = if health.presence {
        ("presence", "presence.http_address", &config.presence.http_address)
    } else {
        ("run", "run.http_address", &config.run.http_address)
    };
    let address = local(setting, address)?;
    let path = if health.ready { "/readyz" } else { "/healthz" };
    let asked = tokio::time::timeout(Duration::from_millis(health.timeout_ms), ask(address, path)).await;
    let silent = |why: String| {
        let hint = format!("is `fleetlog {command}` running here, with the same {setting}?");
        Failure::new(Code::Unreachable, format!("http://{address}{path} does not answer: {why}"), hint)
    };
    let (status, body) = match asked {
        Ok(answer) => answer.map_err(|error| silent(error.to_string()))?,
        Err(_) => return Err(silent(format!("nothing within {} ms", health.timeout_ms)).into()),
    };
    output::line(body.trim_end());
    Ok(if status == 200 { Code::Done } else { Code::Found })
}

/// Where this machine reaches it.
fn local(setting: &str, address: &str) -> anyhow::Result<SocketAddr> {
    let unusable = |what: &str| {
        Failure::new(Code::Usage, format!("{setting} {what}"), format!("set {setting} to address:port"))
    };
    if address.is_empty() {
        return Err(unusable("is empty: no health is served").into());
    }
    let mut address: SocketAddr = address.parse()?;
    if address.port() == 0 {
        return Err(unusable("has port 0: nobody knows which one was taken").into());
    }
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    Ok(address)
}

/// Status and body of one GET.
async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer that is no HTTP")?;
    Ok((status.context("an answer without a status")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_listens_everywhere_is_asked_here() {
        for (set, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("10.0.0.7:9464", "10.0.0.7:9464"),
        ] {
            let found = local("run.http_address", set).map_err(|error| error.to_string());
            assert_eq!(found, Ok(asked.parse().expect(asked)));
        }
        for unusable in ["", "127.0.0.1:0"] {
            let error = local("presence.http_address", unusable).expect_err(unusable).to_string();
            assert!(error.starts_with("presence.http_address "), "{error}");
        }
    }
}
