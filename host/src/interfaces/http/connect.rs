//! From a host's name to a connection with an address that was decided about.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use crate::capability::address::{Network, special};
use crate::capability::rule::{Rule, is_localhost, parse_address};

/// Looks up names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses of a name, in the order in which they are to be tried.
    ///
    /// # Errors
    /// Where there are none, or nobody to ask.
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// As the machine does.
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, port)).await?.collect())
    }
}

/// A connection, in the clear or over TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// Every address that the name leads to is one that is not granted: the first, and what it is.
    Prohibited(IpAddr, &'static str),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for NotConnected {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Where to, and what is granted there.
pub(super) struct Destination<'a> {
    /// As the URL has it.
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// The rule that grants the request.
    pub(super) rule: &'a Rule,
    /// Addresses that are granted though they are not public.
    pub(super) addresses: &'a [Network],
    pub(super) deadline: Instant,
}

/// Connects to the first address of the host that is granted and answers.
pub(super) async fn connect(to: &Destination<'_>, resolver: &dyn Resolve) -> Result<TcpStream, NotConnected> {
    let addresses = match parse_address(to.host) {
        Some(address) => vec![SocketAddr::new(address, to.port)],
        None => {
            let resolved = timeout_at(to.deadline, resolver.resolve(to.host, to.port)).await;
            let resolved = resolved.map_err(|_| Error::DnsTimeout)?;
            resolved.map_err(|_| Error::DnsError { rcode: None, info_code: None })?
        }
    };
    let granted = granted(&addresses, to)?;
    let mut last = Error::DestinationNotFound;
    let count = granted.len();
    for (index, address) in granted.into_iter().enumerate() {
        // One that does not answer leaves time for those after it.
        let now = Instant::now();
        let share =
            to.deadline.saturating_duration_since(now) / u32::try_from(count - index).unwrap_or(u32::MAX);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // An exchange is one small request, one answer.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = refused(&error),
            Err(_) => last = Error::ConnectionTimeout,
        }
    }
    Err(last.into())
}

fn refused(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Error::DestinationIpUnroutable,
        _ => Error::DestinationUnavailable,
    }
}

/// Those of the addresses that the request may go to.
fn granted(addresses: &[SocketAddr], to: &Destination<'_>) -> Result<Vec<SocketAddr>, NotConnected> {
    let mut prohibited = None;
    let mut granted = Vec::new();
    let local = is_localhost(to.host);
    for address in addresses {
        let ip = address.ip();
        if local && !ip.to_canonical().is_loopback() {
            prohibited = prohibited.or(Some((ip, "an address of another machine")));
            continue;
        }
        let named = || to.rule.names(ip) || to.addresses.iter().any(|network| network.contains(ip));
        match special(ip) {
            Some(kind) if !named() => prohibited = prohibited.or(Some((ip, kind))),
            _ => granted.push(*address),
        }
    }
    match prohibited {
        Some((address, kind)) if granted.is_empty() => Err(NotConnected::Prohibited(address, kind)),
        _ => Ok(granted),
    }
}

/// TLS over a connection, with the certificate of the host that the URL names.
pub(super) async fn secure(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<Box<dyn Stream>, Error> {
    let name = match parse_address(host) {
        Some(address) => ServerName::IpAddress(address.into()),
        None => ServerName::try_from(host.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?,
    };
    let connected = TlsConnector::from(config).connect(name, stream).await;
    let stream = connected.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
            Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
                alert_id: Some(u8::from(*alert)),
                alert_message: Some(format!("{alert:?}")),
            },
            _ => Error::TlsProtocolError,
        }
    })?;
    Ok(Box::new(stream))
}
