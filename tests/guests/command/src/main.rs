//! A command-line program without a dependency, as there are many: it is built for WASI and run as
//! a job.

use std::io::{Read as _, Write as _};

fn main() {
    let arguments = std::env::args().collect::<Vec<_>>();
    match arguments.get(1).map(String::as_str) {
        Some("echo") => echo(&arguments),
        Some("print") => print(arguments.get(2).map_or("", String::as_str)),
        Some("flood") => flood(),
        Some("fail") => {
            eprintln!("there is no such customer");
            std::process::exit(arguments.get(2).and_then(|code| code.parse().ok()).unwrap_or(1));
        }
        Some("panic") => panic!("the program panics"),
        other => eprintln!("usage: command echo | print TEXT | flood | fail [CODE] | panic (not {other:?})"),
    }
}

/// What it was given, as JSON in several lines.
fn echo(arguments: &[String]) {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).expect("standard input can be read");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    println!("{{ \"arguments\": {arguments:?},");
    println!("  \"input\": {},", input.trim_end());
    println!("  \"variables\": {},", std::env::vars().count());
    println!("  \"attempt\": {:?},", variable("INNKEEPER_ATTEMPT"));
    println!(
        "  \"job\": {:?}, \"execution\": {:?} }}",
        variable("INNKEEPER_JOB"),
        variable("INNKEEPER_EXECUTION")
    );
}

fn print(text: &str) {
    println!("{text}");
    eprintln!("printed {} bytes", text.len());
}

/// JSON, and too much of it.
fn flood() {
    let mut out = std::io::stdout().lock();
    write!(out, "[").expect("it can be written");
    for _ in 0..40_000 {
        writeln!(out, "\"{}\",", "x".repeat(30)).expect("it can be written");
    }
    write!(out, "1]").expect("it can be written");
}
