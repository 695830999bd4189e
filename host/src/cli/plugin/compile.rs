//! `innkeeper plugin compile`

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use crate::cli::table::table;
use crate::cli::{CliError, Exit, Global, Report, one_by_one};
use crate::config::Config;
use crate::limits::Limits;
use crate::plugin::{ComponentRef, Digest, Sources};
use crate::runtime::{Cache, CompileIn, Compiled, Compiler, Runtime};

/// Compile components ahead, so that hosts on this machine start at once.
///
/// What is compiled is kept in `compiled` in `data_dir`, for hosts of the same version on the same kind
/// of processor. Run it as the user that the hosts run as: they use nobody else's code.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Compile {
    /// Components to compile. Default: those of all plugins of the configuration.
    files: Vec<PathBuf>,
}

/// One component; `--json` has a list of them.
#[derive(Serialize)]
struct Line {
    /// None for a file that was named.
    plugin: Option<String>,
    component: String,
    digest: String,
    /// It was there already.
    cached: bool,
    milliseconds: u64,
    /// Of code.
    bytes: u64,
}

/// What is to be compiled.
struct Wanted {
    plugin: Option<String>,
    component: ComponentRef,
    digest: Option<Digest>,
    limits: Limits,
}

pub(in crate::cli) async fn run(global: &Global, command: &Compile) -> Result<Report, CliError> {
    let config = global.load()?;
    if config.host.compiled_cache == 0 {
        return Err(CliError::usage("nothing would be kept: `compiled_cache` in [host] is \"0 B\""));
    }
    let cache = Cache::new(config.compiled_folder(), config.host.compiled_cache);
    cache.check_writable().map_err(|error| {
        let folder = cache.folder().display();
        CliError::usage(format!("compiled code cannot be kept in {folder}: {error:#}"))
    })?;
    let compiler = Compiler::new(CompileIn::this_program()).with_cache(cache);
    let runtime =
        Runtime::new(1, 0).map_err(|error| CliError::usage(format!("{error:#}")))?.with_compiler(compiler);
    let sources = Sources::new(&config.host.data_dir, &config.registries);
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    for wanted in wanted(&config, command) {
        match compile(&runtime, &sources, &wanted).await {
            Ok(line) => lines.push(line),
            Err(message) => problems.push(message),
        }
    }
    if !problems.is_empty() {
        return Err(CliError { exit: Exit::Usage, message: one_by_one(problems) });
    }
    Ok(Report::new(&serde_json::json!({ "compiled": lines }), to_text(&lines)))
}

fn wanted(config: &Config, command: &Compile) -> Vec<Wanted> {
    if !command.files.is_empty() {
        let files = command.files.iter().cloned();
        let files = files.map(|path| Wanted {
            plugin: None,
            component: path.into(),
            digest: None,
            limits: Limits::default(),
        });
        return files.collect();
    }
    let plugins = config.plugins.iter().map(|(name, plugin)| Wanted {
        plugin: Some(name.to_string()),
        component: plugin.component.clone(),
        digest: plugin.digest.clone(),
        limits: plugin.limits,
    });
    plugins.collect()
}

async fn compile(runtime: &Runtime, sources: &Sources, wanted: &Wanted) -> Result<Line, String> {
    let source = sources.fetch(&wanted.component, wanted.digest.as_ref()).await;
    let source = source.map_err(|error| error.to_string())?;
    let compiled = runtime
        .compile_ahead(&source, wanted.limits)
        .await
        .map_err(|error| format!("{}: {error}", source.origin))?;
    let Compiled { cached, took, bytes } = compiled;
    Ok(Line {
        plugin: wanted.plugin.clone(),
        component: wanted.component.to_string(),
        digest: source.digest.to_string(),
        cached,
        milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        bytes: bytes.unwrap_or_default(),
    })
}

fn to_text(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "There is nothing to compile: the configuration has no plugins.".to_owned();
    }
    let rows = lines.iter().map(|line| {
        let took = humantime::format_duration(Duration::from_millis(line.milliseconds));
        let how = if line.cached { "compiled before".to_owned() } else { format!("compiled in {took}") };
        let plugin = line.plugin.clone().unwrap_or_else(|| "-".to_owned());
        [plugin, line.component.clone(), how, ByteSize::b(line.bytes).to_string()]
    });
    table(["PLUGIN", "COMPONENT", "CODE", "SIZE"], rows)
}
