//! Which requests are granted: `"POST https://api.pager.example/v2/events"`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

/// One of `allow`.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule {
    /// As it stands in the file.
    shown: String,
    /// `None` for every method.
    methods: Option<Vec<String>>,
    site: Site,
    /// What paths begin with, segment by segment.
    path: Vec<Vec<u8>>,
}

/// A scheme, a host and a port.
#[derive(Clone, PartialEq, Eq)]
pub struct Site {
    shown: String,
    scheme: Scheme,
    host: Host,
    port: u16,
}

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// This name, in small letters.
    Name(String),
    /// Every name below this one.
    Below(String),
    Address(IpAddr),
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// In capital letters.
    pub method: &'a str,
    /// Http or https.
    pub scheme: Scheme,
    /// A name or an address, the latter with brackets around IPv6.
    pub host: &'a str,
    /// The scheme's own where none is written.
    pub port: u16,
    /// Without the query.
    pub path: &'a str,
}

/// A path that servers read in more than one way: with `.` or `..`, an empty segment, or an
/// encoded separator. No rule with a path matches one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

impl Scheme {
    /// The port that is meant where none is written.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Rule {
    /// Reads a rule. `shown` is what messages show of it.
    ///
    /// # Errors
    /// What is wrong, in words that follow the name of the key and show nothing of the text.
    pub fn parse(text: &str, shown: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(methods), Some(url), None) = (words.next(), words.next(), words.next()) else {
            return Err("must be a method and a URL, such as \"GET https://api.example.org/v2\"".to_owned());
        };
        let methods = if methods == "*" { None } else { Some(parse_methods(methods)?) };
        if url.contains(['?', '#']) {
            return Err(
                "must have no `?` or `#`: a path that is granted is granted with every query".to_owned()
            );
        }
        let at = url.find("://").map_or(0, |at| at + 3);
        let path_at = url[at..].find('/').map_or(url.len(), |slash| at + slash);
        let (site, path) = url.split_at(path_at);
        if !site.contains("://") {
            return Err("must name `https://` or `http://` before the host".to_owned());
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = segments(path).map_err(|Ambiguous| {
            "must have a plain path: no `.`, `..`, `//` or encoded separators in it".to_owned()
        })?;
        Ok(Self { shown: shown.to_owned(), methods, site: Site::parse(site, site)?, path })
    }

    /// Whether it grants a request.
    #[must_use]
    pub fn allows(&self, target: &Target<'_>) -> bool {
        let method =
            self.methods.as_ref().is_none_or(|methods| methods.iter().any(|one| one == target.method));
        method && self.site.is_of(target) && self.has_path(target.path)
    }

    /// The address that the rule itself names, which needs no name to be looked up.
    #[must_use]
    pub fn names(&self, address: IpAddr) -> bool {
        match &self.site.host {
            Host::Address(named) => *named == address.to_canonical(),
            // RFC 6761, 6.3: the name stands for the loopback addresses, and for nothing else.
            Host::Name(name) | Host::Below(name) => {
                is_localhost(name) && address.to_canonical().is_loopback()
            }
        }
    }

    /// Whether it grants something over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.site.scheme == Scheme::Https
    }

    fn has_path(&self, path: &str) -> bool {
        self.path.is_empty() || segments(path).is_ok_and(|path| path.starts_with(&self.path))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Rule {
    /// As it is shown: a variable may be a part of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.shown)
    }
}

impl Site {
    /// Reads `[scheme://]host[:port]`; `https` where no scheme is written.
    ///
    /// # Errors
    /// What is wrong, in words that follow the name of the key and show nothing of the text.
    pub fn parse(text: &str, shown: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(_) => return Err("must begin with `https://` or `http://`".to_owned()),
            None => (Scheme::Https, text),
        };
        if rest.contains('@') {
            return Err("must have no user or password in it: put them into a header as a secret".to_owned());
        }
        let port_at = rest.rfind(':').filter(|at| !rest[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => {
                let port = rest[at + 1..].parse().ok().filter(|port| *port != 0);
                (&rest[..at], port.ok_or("must have a port from 1 to 65535 after the `:`")?)
            }
            None => (rest, scheme.port()),
        };
        Ok(Self { shown: shown.to_owned(), scheme, host: Host::parse(host)?, port })
    }

    /// Whether a request goes there.
    #[must_use]
    pub fn is_of(&self, target: &Target<'_>) -> bool {
        self.scheme == target.scheme && self.port == target.port && self.host.is(target.host)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Site({})", self.shown)
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = parse_address(text) {
            return Ok(Self::Address(address));
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(
                "must have a host: a name, `*.` and a name for all that are below it, or an address (IPv6 in \
                 brackets)"
                    .to_owned(),
            );
        }
        let name = name.to_ascii_lowercase();
        Ok(if below { Self::Below(name) } else { Self::Name(name) })
    }

    fn is(&self, host: &str) -> bool {
        match self {
            Self::Address(address) => parse_address(host) == Some(*address),
            Self::Name(name) => host.eq_ignore_ascii_case(name),
            Self::Below(name) => {
                let host = host.to_ascii_lowercase();
                let below = host.strip_suffix(name.as_str()).and_then(|rest| rest.strip_suffix('.'));
                below.is_some_and(|below| !below.is_empty())
            }
        }
    }
}

/// An address as a URL has it.
#[must_use]
pub fn parse_address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical()),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Whether a name stands for this machine, whatever a resolver says (RFC 6761, 6.3).
#[must_use]
pub fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let top = host.rsplit('.').next().unwrap_or(host);
    top.eq_ignore_ascii_case("localhost")
}

impl Target<'_> {
    /// Whether a secret may go there without a rule of its own: nobody on the way can read it.
    #[must_use]
    pub fn is_confidential(&self) -> bool {
        self.scheme == Scheme::Https
            || is_localhost(self.host)
            || parse_address(self.host).is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Target<'_> {
    /// As the rule that would grant it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 300;
        write!(f, "{} {}://{}", self.method, self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.port() {
            write!(f, ":{}", self.port)?;
        }
        let end = self.path.char_indices().nth(LONGEST).map_or(self.path.len(), |(at, _)| at);
        f.write_str(&self.path[..end])
    }
}

fn parse_methods(text: &str) -> Result<Vec<String>, String> {
    let method = |word: &str| {
        let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        plain.then(|| word.to_owned())
    };
    let methods: Option<Vec<String>> = text.split(',').map(method).collect();
    let methods = methods.ok_or_else(|| {
        "must begin with a method in capital letters, several with commas and without spaces, or `*`"
            .to_owned()
    })?;
    if methods.iter().any(|method| method == "CONNECT") {
        return Err("must not grant CONNECT, which makes a tunnel to anywhere".to_owned());
    }
    Ok(methods)
}

/// The segments of a path, decoded.
fn segments(path: &str) -> Result<Vec<Vec<u8>>, Ambiguous> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    // A slash at the end is a part of the last name.
    if segments.last().is_some_and(Vec::is_empty) {
        segments.pop();
    }
    if segments.iter().all(|segment| is_plain(segment)) { Ok(segments) } else { Err(Ambiguous) }
}

/// What every server takes for one name.
fn is_plain(segment: &[u8]) -> bool {
    // Some servers cut a segment at `;` before they look for dots.
    let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
    let odd = segment.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0));
    // Some decode twice.
    let twice = segment.windows(3).any(|three| {
        three[0] == b'%'
            && matches!(three[1..].to_ascii_lowercase().as_slice(), b"2e" | b"2f" | b"5c" | b"00")
    });
    !matches!(name, b"" | b"." | b"..") && !odd && !twice
}

fn decode(segment: &str) -> Result<Vec<u8>, Ambiguous> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(Ambiguous);
        let (high, low) = (digit()?, digit()?);
        // Two hexadecimal digits are a byte.
        decoded.push(u8::try_from(high * 16 + low).map_err(|_| Ambiguous)?);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
