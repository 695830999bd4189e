//! Requests through `wasi:http`, without a library between.

use std::collections::BTreeMap;

use innkeeper_sdk::{Context, Failure, config, handler};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    Scheme,
};
use wasip2::io::streams::StreamError;

#[derive(Clone, Deserialize, JsonSchema)]
pub(crate) struct RequestArgs {
    #[serde(default = "get")]
    method: String,
    scheme: String,
    authority: String,
    #[serde(default = "root")]
    path: String,
    /// `{NAME}` in a value is what the configuration has for `secrets.NAME`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Bytes of the body; none for no body.
    #[serde(default)]
    body: Option<usize>,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// Sends a request and returns its answer: `status`, `headers`, `body`, or an `error`.
#[handler]
pub(crate) fn request(_: &Context, args: RequestArgs) -> Result<Value, Failure> {
    Ok(exchange(&args).unwrap_or_else(|error| json!({ "error": error })))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct AtOnceArgs {
    count: usize,
    request: RequestArgs,
}

/// Begins so many requests before it looks at the first answer, and returns each status or error.
#[handler]
pub(crate) fn at_once(_: &Context, args: AtOnceArgs) -> Result<Value, Failure> {
    let begun: Vec<_> = (0..args.count).map(|_| send(&args.request)).collect();
    let answers: Vec<_> = begun.into_iter().map(|sent| sent.and_then(|sent| answer(&sent))).collect();
    let told = |answer: &Result<IncomingResponse, String>| match answer {
        Ok(answer) => json!(answer.status()),
        Err(error) => json!(error),
    };
    Ok(answers.iter().map(told).collect())
}

fn exchange(args: &RequestArgs) -> Result<Value, String> {
    let answer = answer(&send(args)?)?;
    let headers = answer.headers().entries().into_iter();
    let headers: BTreeMap<_, _> =
        headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    let status = answer.status();
    let body = answer.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                let code = wasip2::http::types::http_error_code(&error);
                return Err(code.map_or_else(|| error.to_debug_string(), |code| name(&code)));
            }
        }
    }
    Ok(json!({ "status": status, "headers": headers, "body": String::from_utf8_lossy(&bytes) }))
}

fn send(args: &RequestArgs) -> Result<FutureIncomingResponse, String> {
    let headers = Fields::new();
    for (header, value) in &args.headers {
        let value = with_placeholders(value);
        headers.append(header, value.as_bytes()).map_err(|error| format!("{error:?}"))?;
    }
    let request = OutgoingRequest::new(headers);
    let method = match args.method.as_str() {
        "GET" => Method::Get,
        "POST" => Method::Post,
        other => Method::Other(other.to_owned()),
    };
    let scheme = match args.scheme.as_str() {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    };
    request.set_method(&method).map_err(|()| "method")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    request.set_authority(Some(&args.authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(&with_placeholders(&args.path))).map_err(|()| "path")?;
    let body = request.body().map_err(|()| "body")?;
    let sent = outgoing_handler::handle(request, None).map_err(|code| name(&code))?;
    if let Some(size) = args.body {
        let stream = body.write().map_err(|()| "stream")?;
        let chunk = vec![b'x'; 4096];
        let mut left = size;
        while left > 0 {
            let now = left.min(chunk.len());
            // A host that has seen enough closes it; what became of the request says why.
            if stream.blocking_write_and_flush(&chunk[..now]).is_err() {
                break;
            }
            left -= now;
        }
    }
    // The same for the end of the body.
    let _ = OutgoingBody::finish(body, None);
    Ok(sent)
}

fn answer(sent: &FutureIncomingResponse) -> Result<IncomingResponse, String> {
    sent.subscribe().block();
    match sent.get() {
        Some(Ok(Ok(answer))) => Ok(answer),
        Some(Ok(Err(code))) => Err(name(&code)),
        _ => Err("no answer".to_owned()),
    }
}

fn with_placeholders(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some((before, rest)) = text.split_once('{') {
        let (secret, after) = rest.split_once('}').expect("a `}` follows");
        let key = format!("secrets.{secret}");
        let placeholder = config::get(&key).expect("the host answers").expect("there is such a secret");
        text = format!("{before}{placeholder}{after}");
    }
    text
}

/// The name of an error without what comes with it.
fn name(code: &ErrorCode) -> String {
    let text = format!("{code:?}");
    let text = text.strip_prefix("ErrorCode::").unwrap_or(&text);
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
