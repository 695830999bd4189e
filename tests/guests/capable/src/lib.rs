//! A guest for the tests that uses what a plugin can be granted: [`request`] sends requests,
//! [`file`] works on paths, [`variables`] reads its environment, and [`socket`] tries what nobody
//! is granted. All use WASI as any program does, and return what they were told.

mod folders;
mod requests;

use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};

use innkeeper_sdk::{Context, Failure, handler};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use requests::{at_once, request};

innkeeper_sdk::plugin!(at_once, file, request, socket, variables);

#[derive(Deserialize, JsonSchema)]
struct FileArgs {
    how: String,
    path: String,
    #[serde(default)]
    text: String,
    /// The other path, where there are two.
    #[serde(default)]
    to: String,
}

/// Does `how` (read, write, list, look, make, remove, rename, link, touch, reread) with a path.
#[handler]
fn file(_: &Context, args: FileArgs) -> Result<Value, Failure> {
    let path = args.path.as_str();
    let done = match args.how.as_str() {
        "read" => fs::read_to_string(path).map(|text| json!(text)),
        "write" => fs::write(path, args.text).map(|()| json!("written")),
        "list" => fs::read_dir(path).and_then(|entries| {
            let mut names = entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(json!(names))
        }),
        "look" => fs::metadata(path).map(|about| json!(about.len())),
        "make" => fs::create_dir(path).map(|()| json!("made")),
        "remove" => fs::remove_file(path).map(|()| json!("removed")),
        "rename" => fs::rename(path, &args.to).map(|()| json!("renamed")),
        "link" => fs::hard_link(path, &args.to).map(|()| json!("linked")),
        "touch" => return Ok(folders::touch(path)),
        "reread" => return Ok(folders::reread(path)),
        other => return Err(Failure::permanent(format!("what is {other}?"))),
    };
    Ok(done.unwrap_or_else(|error| failed(&error)))
}

/// All environment variables.
#[handler]
fn variables(_: &Context, _: Value) -> Result<Value, Failure> {
    Ok(std::env::vars().map(|(name, value)| (name, json!(value))).collect())
}

#[derive(Deserialize, JsonSchema)]
struct SocketArgs {
    what: String,
    address: String,
}

/// Opens a socket (tcp, udp) or looks up a name (name).
#[handler]
fn socket(_: &Context, args: SocketArgs) -> Result<Value, Failure> {
    let address = args.address.as_str();
    let done = match args.what.as_str() {
        "tcp" => TcpStream::connect(address).map(|_| ()),
        "udp" => UdpSocket::bind(address).map(|_| ()),
        _ => address.to_socket_addrs().map(|_| ()),
    };
    Ok(done.map_or_else(|error| failed(&error), |()| json!("open")))
}

fn failed(error: &io::Error) -> Value {
    json!({ "error": error.kind().to_string() })
}
