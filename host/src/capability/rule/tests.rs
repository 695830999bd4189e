//! Rules and requests.

use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> Rule {
    Rule::parse(text, text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A request as a rule would grant it.
fn allows(rule: &Rule, request: &str) -> bool {
    let (method, url) = request.split_once(' ').unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = colon
        .map_or((authority, scheme.port()), |at| (&authority[..at], authority[at + 1..].parse().unwrap()));
    rule.allows(&Target { method, scheme, host, port, path })
}

#[test]
fn a_rule_grants_its_method_scheme_host_port_and_what_is_below_its_path() {
    let events = rule("POST https://api.pager.example/v2/events");
    for (request, granted) in [
        ("POST https://api.pager.example/v2/events", true),
        ("POST https://API.Pager.Example/v2/events", true),
        ("POST https://api.pager.example:443/v2/events/", true),
        ("POST https://api.pager.example/v2/events/7/ack", true),
        ("POST https://api.pager.example/v2/%65vents", true),
        ("GET https://api.pager.example/v2/events", false),
        ("POST http://api.pager.example/v2/events", false),
        ("POST https://api.pager.example:8443/v2/events", false),
        ("POST https://api.pager.example/v2", false),
        ("POST https://api.pager.example/v2/eventsevil", false),
        ("POST https://api.pager.example/V2/events", false),
        ("POST https://api.pager.example", false),
        ("POST https://api.pager.example.evil.test/v2/events", false),
        ("POST https://evil-api.pager.example/v2/events", false),
        ("POST https://api.pager.example./v2/events", false),
    ] {
        assert_eq!(allows(&events, request), granted, "{request}");
    }
}

#[test]
fn a_path_that_a_server_could_read_as_another_one_is_not_below_a_rules_path() {
    let rule = rule("GET https://h.test/a");
    for path in [
        "/a/../b",
        "/a/..",
        "/a/./b",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a/..%2fb",
        "/a/b%2Fc",
        "/a//b",
        "//a",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/%5c..%5cb",
        "/a/\\b",
        "/a/%00",
        "/a/%252e%252e/b",
        "/a/%",
        "/a/%4",
        "/a/%zz",
        "/%2e%2e/a",
        "/a/%3b",
    ] {
        assert!(!allows(&rule, &format!("GET https://h.test{path}")), "{path}");
    }
    for path in ["/a", "/a/", "/a/b", "/a/b;v=1", "/a/...", "/a/.well-known", "/a/%20", "/a/100%25"] {
        assert!(allows(&rule, &format!("GET https://h.test{path}")), "{path}");
    }
    let host = super::Rule::parse("GET https://h.test/", "").unwrap();
    assert!(allows(&host, "GET https://h.test/a/../b"), "all paths of the host are granted");
}

#[test]
fn several_methods_all_methods_and_all_hosts_below_a_name_can_be_granted() {
    let below = rule("GET,HEAD https://*.example.org/");
    for (request, granted) in [
        ("GET https://a.example.org/", true),
        ("HEAD https://b.a.example.org/x", true),
        ("PUT https://a.example.org/", false),
        ("GET https://example.org/", false),
        ("GET https://.example.org/", false),
        ("GET https://aexample.org/", false),
        ("GET https://example.org.evil.test/", false),
    ] {
        assert_eq!(allows(&below, request), granted, "{request}");
    }
    let any = rule("* http://[::1]:8080");
    assert!(allows(&any, "DELETE http://[0:0::1]:8080/x") && !allows(&any, "GET http://[::2]:8080/"));
    assert!(any.names("::1".parse().unwrap()) && !any.names("::2".parse().unwrap()));
    let local = rule("* http://localhost");
    assert!(local.names("127.0.0.1".parse().unwrap()) && !local.names("10.0.0.1".parse().unwrap()));
    assert!(!rule("* http://h.test").names("127.0.0.1".parse().unwrap()));
}

#[test]
fn what_is_no_rule_says_what_to_write() {
    for (text, part) in [
        ("https://h.test/", "a method and a URL"),
        ("GET https://h.test/ x", "a method and a URL"),
        ("get https://h.test/", "capital letters"),
        ("GET,PUT, https://h.test/", "capital letters"),
        ("CONNECT https://h.test/", "tunnel"),
        ("GET h.test/", "https://"),
        ("GET ftp://h.test/", "https://"),
        ("GET https:///x", "a host"),
        ("GET https://*/x", "a host"),
        ("GET https://a.*.b/x", "a host"),
        ("GET https://::1/x", "a host"),
        ("GET https://h.test:0/x", "a port"),
        ("GET https://h.test:70000/x", "a port"),
        ("GET https://u:p@h.test/x", "no user"),
        ("GET https://h.test/a/../b", "a plain path"),
        ("GET https://h.test/a?b=c", "every query"),
    ] {
        let error = Rule::parse(text, text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_request_is_shown_as_the_rule_that_grants_it() {
    let target = Target { method: "GET", scheme: Scheme::Https, host: "[::1]", port: 8443, path: "/a/b" };
    assert_eq!(target.to_string(), "GET https://[::1]:8443/a/b");
    assert!(rule(&target.to_string()).allows(&target));
}

#[test]
fn a_secret_is_safe_over_tls_and_within_the_machine() {
    for (scheme, host, safe) in [
        (Scheme::Https, "h.test", true),
        (Scheme::Http, "h.test", false),
        (Scheme::Http, "localhost", true),
        (Scheme::Http, "127.0.0.1", true),
        (Scheme::Http, "[::1]", true),
        (Scheme::Http, "10.0.0.1", false),
    ] {
        let target = Target { method: "GET", scheme, host, port: 1, path: "/" };
        assert_eq!(target.is_confidential(), safe, "{host}");
    }
}

proptest! {
    #[test]
    fn no_rule_lets_a_request_out_of_its_path(path in "(/|\\.|%2e|%2f|%5c|;|a|b|%25|%){0,12}") {
        let rule = rule("GET https://h.test/a/b");
        let target = Target { method: "GET", scheme: Scheme::Https, host: "h.test", port: 443, path: &format!("/{path}") };
        if rule.allows(&target) {
            // A server that decodes as often as it likes, and resolves dots, stays below the path.
            let mut decoded = target.path.to_owned();
            for _ in 0..3 {
                for (code, plain) in [("%25", "%"), ("%2e", "."), ("%2f", "/"), ("%5c", "/")] {
                    decoded = decoded.replace(code, plain);
                }
            }
            let mut resolved = Vec::new();
            for segment in decoded.split('/') {
                match segment.split(';').next().unwrap_or_default() {
                    "" | "." => {}
                    ".." => { resolved.pop(); }
                    name => resolved.push(name),
                }
            }
            prop_assert_eq!(resolved.get(..2), Some(["a", "b"].as_slice()), "{}", target.path);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}", path in "\\PC{0,40}") {
        let _ = Rule::parse(&text, "");
        let _ = Rule::parse(&format!("GET https://{text}/{path}"), "");
        let _ = Network::parse(&text);
        let target = Target { method: "GET", scheme: Scheme::Http, host: &text, port: 80, path: &path };
        let _ = (rule("* http://h.test/a").allows(&target), target.to_string());
    }
}

use super::super::address::Network;
