//! One request: whether it is granted, and its way to an answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::body::{RequestBody, ResponseBody, ResponseBounds};
use super::connect::{self, Destination, NotConnected, Stream};
use super::mask::Mask;
use super::{Connection, Sent};
use crate::capability::rule::{Rule, Scheme, Target, is_localhost};
use crate::capability::{HttpGrant, HttpLimits};
use crate::interfaces::activity::{Activity, What};
use crate::interfaces::granted::Granted;
use crate::interfaces::refusals::{Kind, Refusals};

/// Bytes of the head of an answer: what servers send is well below.
const LARGEST_HEAD: usize = 64 << 10;

/// What the requests of one execution share.
pub(super) struct Exchange {
    granted: Arc<Granted>,
    refusals: Arc<Refusals>,
    activity: Activity,
    pub(super) sent: AtomicU64,
    open: Arc<Semaphore>,
    /// Bodies of requests that are not sent; aborted when the execution has ended.
    drained: Mutex<JoinSet<()>>,
}

/// A request that is not sent, or has no answer because of the grants.
struct Refusal {
    kind: Kind,
    /// What is refused once and again is recorded once.
    target: String,
    message: String,
    /// What the guest is told.
    error: Error,
}

/// A request that is granted.
struct Admitted<'a> {
    host: String,
    port: u16,
    scheme: Scheme,
    grant: &'a HttpGrant,
    rule: &'a Rule,
    permit: OwnedSemaphorePermit,
    /// Of the secrets that it has.
    mask: Mask,
}

/// When a request ends without an answer.
struct Deadlines {
    connected: Instant,
    first_byte: Duration,
    whole: Instant,
    between_bytes: Duration,
}

impl Exchange {
    pub(super) fn new(granted: Arc<Granted>, refusals: Arc<Refusals>, activity: Activity) -> Self {
        let open = granted.http.as_ref().map_or(0, |http| http.limits.max_open_requests);
        let open = Arc::new(Semaphore::new(usize::try_from(open).unwrap_or(usize::MAX)));
        Self { granted, refusals, activity, sent: AtomicU64::new(0), open, drained: Mutex::default() }
    }

    /// Sends a request, if it is granted. The host follows no redirect.
    pub(super) async fn send(&self, request: hyper::Request<WasiBody>, options: RequestOptions) -> Sent {
        let begun = Instant::now();
        let (mut parts, body) = request.into_parts();
        let admitted = match self.admit(&mut parts) {
            Ok(admitted) => admitted,
            Err(refusal) => return Err(self.refuse(refusal, body).await),
        };
        let server = format!("{}:{}", admitted.host, admitted.port);
        let entered = self.activity.enter(What::Http(server));
        let deadlines = Deadlines::new(begun, &admitted.grant.limits, &options);
        let stream = match self.connect(&admitted, &deadlines).await {
            Ok(stream) => stream,
            Err(NotConnected::Failed(error)) => {
                self.drain(body);
                return Err(error);
            }
            Err(NotConnected::Prohibited(address, kind)) => {
                let refusal = self.prohibited(&admitted, &address.to_string(), kind);
                return Err(self.refuse(refusal, body).await);
            }
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        let limits = admitted.grant.limits;
        let too_large = Arc::new(AtomicBool::new(false));
        let body = RequestBody::new(body, limits.max_request_bytes, too_large.clone());
        let answered = answer(stream, hyper::Request::from_parts(parts, body), &deadlines).await;
        let (mut response, connection) = match answered {
            Ok(answered) => answered,
            Err(_) if too_large.load(Ordering::Relaxed) => {
                let refusal = self.too_large(limits.max_request_bytes);
                self.refusals.record(refusal.kind, &refusal.target, || refusal.message).await;
                return Err(refusal.error);
            }
            Err(error) => return Err(error),
        };
        admitted.mask.headers(response.headers_mut());
        let bounds = ResponseBounds {
            most: limits.max_response_bytes,
            deadline: deadlines.whole,
            pause: deadlines.between_bytes,
            refusals: self.refusals.clone(),
        };
        let held = (admitted.permit, entered);
        let response =
            response.map(|incoming| ResponseBody::new(incoming, bounds, admitted.mask, held).boxed_unsync());
        Ok((response, connection))
    }

    /// Holds a request against the grants, and puts secrets into its headers.
    fn admit(&self, parts: &mut Parts) -> Result<Admitted<'_>, Refusal> {
        let uri = parts.uri.clone();
        let invalid = |what: &str| Refusal {
            kind: Kind::Http,
            target: what.to_owned(),
            message: format!("a request was refused: {what}"),
            error: Error::HttpRequestUriInvalid,
        };
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(invalid("its URL is neither `http` nor `https`")),
        };
        let Some(host) = uri.host().filter(|host| !host.is_empty()) else {
            return Err(invalid("its URL has no host"));
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(invalid("its URL has a user in it, which belongs into a header"));
        }
        let port = uri.port_u16().unwrap_or(scheme.port());
        let method = parts.method.as_str().to_owned();
        let target = Target { method: &method, scheme, host, port, path: uri.path() };
        let (grant, rule) = self.find(&target)?;
        let mask = Mask::new(self.put_secrets(parts, &target)?);
        let limits = &grant.limits;
        let length =
            parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limits.max_request_bytes) {
            return Err(self.too_large(limits.max_request_bytes));
        }
        let permit = self.open.clone().try_acquire_owned().map_err(|_| self.too_many(limits))?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        // A server that is no proxy is sent the path alone (RFC 9112, 3.2.1).
        parts.uri = Uri::from(path);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(Admitted { host: host.to_owned(), port, scheme, grant, rule, permit, mask })
    }

    fn find(&self, target: &Target<'_>) -> Result<(&HttpGrant, &Rule), Refusal> {
        let grant = self.granted.http.as_ref();
        // A tunnel leads to anywhere.
        let grant = grant.filter(|_| target.method != "CONNECT");
        let found =
            grant.and_then(|grant| Some((grant, grant.allow.iter().find(|rule| rule.allows(target))?)));
        found.ok_or_else(|| {
            let plugin = &self.granted.plugin;
            let shown = target.to_string();
            let line = match grant {
                _ if target.method == "CONNECT" => "no plugin is granted CONNECT".to_owned(),
                Some(_) => format!("to grant it, add \"{shown}\" to `allow` in [plugins.{plugin}.http]"),
                None => format!("to grant it, add `allow = [\"{shown}\"]` under [plugins.{plugin}.http]"),
            };
            Refusal {
                kind: Kind::Http,
                message: format!(
                    "the request {shown} was refused, because the plugin is not granted it; {line}"
                ),
                target: shown,
                error: Error::HttpRequestDenied,
            }
        })
    }

    /// Puts the secrets in the place of their placeholders, and returns those.
    fn put_secrets(&self, parts: &mut Parts, target: &Target<'_>) -> Result<Vec<String>, Refusal> {
        let plugin = &self.granted.plugin;
        let mut put = Vec::new();
        for secret in &self.granted.secrets {
            let name = &secret.name;
            let refusal = |why: String| Refusal {
                kind: Kind::Secret,
                target: format!("{name} {target}"),
                message: format!("the request {target} was refused: {why}"),
                error: Error::HttpRequestDenied,
            };
            if parts.uri.query().is_some_and(|query| query.contains(&secret.placeholder)) {
                return Err(refusal(format!(
                    "it has the placeholder of the secret `{name}` in its query, and secrets are put into headers only"
                )));
            }
            for (header, value) in &mut parts.headers {
                let Some(replaced) = replace(value.as_bytes(), &secret.placeholder, &secret.value) else {
                    continue;
                };
                if header == HOST || !secret.may_go_to(target) {
                    return Err(refusal(format!(
                        "the secret `{name}` may not go there: to grant it, name the host in `hosts` of the secret, \
                         as in [plugins.{plugin}.secrets] `{name} = {{ …, hosts = [\"{}\"] }}`; without `hosts` it \
                         goes to all hosts of `allow`, over TLS or within this machine",
                        site(target)
                    )));
                }
                // What it is made of was checked when it was read.
                *value = HeaderValue::from_bytes(&replaced)
                    .map_err(|_| refusal(format!("the secret `{name}` fits no header")))?;
                value.set_sensitive(true);
                put.push(secret.value.clone());
            }
        }
        Ok(put)
    }

    async fn connect(
        &self,
        admitted: &Admitted<'_>,
        deadlines: &Deadlines,
    ) -> Result<Box<dyn Stream>, NotConnected> {
        let destination = Destination {
            host: &admitted.host,
            port: admitted.port,
            rule: admitted.rule,
            addresses: &admitted.grant.addresses,
            deadline: deadlines.connected,
        };
        let stream = connect::connect(&destination, self.granted.resolver.as_ref()).await?;
        if admitted.scheme == Scheme::Http {
            return Ok(Box::new(stream));
        }
        let Some(tls) = self.granted.tls.clone() else { return Err(Error::ConfigurationError.into()) };
        let secured = timeout_at(deadlines.connected, connect::secure(stream, &admitted.host, tls)).await;
        Ok(secured.map_err(|_| Error::ConnectionTimeout)??)
    }

    /// Records a refusal, and returns what the guest is told.
    async fn refuse(&self, refusal: Refusal, body: WasiBody) -> Error {
        self.refusals.record(refusal.kind, &refusal.target, || refusal.message).await;
        self.drain(body);
        refusal.error
    }

    /// Takes a body and drops it. A guest that still writes when nobody reads takes that for a
    /// failure of its own, and some languages' runtimes abort.
    fn drain(&self, mut body: WasiBody) {
        if body.is_end_stream() {
            return;
        }
        let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        while drained.try_join_next().is_some() {}
        drained.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
    }

    fn prohibited(&self, admitted: &Admitted<'_>, address: &str, kind: &str) -> Refusal {
        let (host, plugin) = (&admitted.host, &self.granted.plugin);
        let advice = if is_localhost(host) {
            "this name stands for this machine alone, so mend what the system's resolver (/etc/hosts, DNS) says \
             of it, or use another name"
                .to_owned()
        } else {
            format!(
                "to grant that, add \"{address}\" or a range that has it to `addresses` in [plugins.{plugin}.http]"
            )
        };
        Refusal {
            kind: Kind::Http,
            target: format!("{host} {address}"),
            message: format!(
                "a request to {host} was refused, because the name leads to {address}, {kind}; {advice}"
            ),
            error: Error::DestinationIpProhibited,
        }
    }

    fn too_large(&self, most: u64) -> Refusal {
        let plugin = &self.granted.plugin;
        Refusal {
            kind: Kind::Http,
            target: "max_request_bytes".to_owned(),
            message: format!(
                "a request was refused, because its body has more than {most} bytes: `max_request_bytes` in \
                 [plugins.{plugin}.http]"
            ),
            error: Error::HttpRequestBodySize(Some(most)),
        }
    }

    fn too_many(&self, limits: &HttpLimits) -> Refusal {
        let (most, plugin) = (limits.max_open_requests, &self.granted.plugin);
        Refusal {
            kind: Kind::Http,
            target: "max_open_requests".to_owned(),
            message: format!(
                "a request was refused, because the execution has {most} open: `max_open_requests` in \
                 [plugins.{plugin}.http]; an answer counts until its body is read or dropped"
            ),
            error: Error::ConnectionLimitReached,
        }
    }
}

impl Deadlines {
    /// A guest may ask for less than it is granted.
    fn new(begun: Instant, limits: &HttpLimits, options: &RequestOptions) -> Self {
        let within =
            |most: Duration, wanted: Option<Duration>| wanted.map_or(most, |wanted| wanted.min(most));
        let whole = begun + limits.timeout;
        Self {
            connected: (begun + within(limits.connect_timeout, options.connect_timeout)).min(whole),
            first_byte: within(limits.first_byte_timeout, options.first_byte_timeout),
            whole,
            between_bytes: within(limits.timeout, options.between_bytes_timeout),
        }
    }
}

/// One request and the head of its answer.
async fn answer(
    stream: Box<dyn Stream>,
    request: hyper::Request<RequestBody>,
    deadlines: &Deadlines,
) -> Result<(hyper::Response<hyper::body::Incoming>, Connection), Error> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(LARGEST_HEAD);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    // Dropped with whoever waits for the answer, or holds it.
    let connection: AbortOnDropJoinHandle<()> = wasmtime_wasi::runtime::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a plugin's connection ended: {error}");
        }
    });
    let deadline = (Instant::now() + deadlines.first_byte).min(deadlines.whole);
    let response = timeout_at(deadline, sender.send_request(request)).await;
    let response = response.map_err(|_| Error::HttpResponseTimeout)?.map_err(|error| told(&error))?;
    let connection = async move {
        connection.await;
        Ok(())
    };
    Ok((response, Box::new(connection)))
}

/// What a guest is told of a failure of its connection.
fn told(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(u32::try_from(LARGEST_HEAD).ok())
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else if error.is_incomplete_message() {
        Error::HttpResponseIncomplete
    } else {
        Error::ConnectionTerminated
    }
}

/// A header with a text in the place of another; `None` where it does not have that.
fn replace(value: &[u8], placeholder: &str, text: &str) -> Option<Vec<u8>> {
    let placeholder = placeholder.as_bytes();
    let mut replaced = Vec::new();
    let mut rest = value;
    let find = |rest: &[u8]| rest.windows(placeholder.len()).position(|window| window == placeholder);
    while let Some(at) = find(rest) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(text.as_bytes());
        rest = &rest[at + placeholder.len()..];
    }
    if rest.len() == value.len() {
        return None;
    }
    replaced.extend_from_slice(rest);
    Some(replaced)
}

/// As `hosts` of a secret has it.
fn site(target: &Target<'_>) -> String {
    let prefix = if target.scheme == Scheme::Http { "http://" } else { "" };
    let port = if target.port == target.scheme.port() { String::new() } else { format!(":{}", target.port) };
    format!("{prefix}{}{port}", target.host)
}
