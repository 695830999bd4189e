//! What a plugin's SQL may do in the host's process, and for how long: installed once for each
//! connection, and steered by a [`Watch`].
//!
//! What bounds what a statement can use up:
//!
//! - Time: the progress handler, every thousand steps of SQLite's virtual machine. One step is
//!   not interrupted however long it takes (`instr` of two large values).
//! - Memory for one value or row: `SQLITE_LIMIT_LENGTH`, the plugin's memory. Functions that
//!   collect JSON do not look at it before they are done: their statements are looked at after
//!   about every row, by what SQLite uses in all.
//! - The file: `max_page_count`, from the database's `max_size`. The write-ahead log beside it
//!   is not bounded by that: it grows with the pages that one transaction writes.
//! - Temporary tables: `temp.max_page_count`.
//! - What SQLite keeps while it sorts, groups or materializes: files in the folder for temporary
//!   files, already deleted, which only the time of the statement and the disk bound. In memory
//!   (`temp_store = MEMORY`) they would be no better bounded, and cost more.

use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::fence;

/// How many steps of SQLite's virtual machine pass between two looks at the clock: some tens of
/// microseconds.
const STEPS: c_int = 1_000;

/// The same where a single row may bring as much as a value may have: about one row.
const CLOSE_STEPS: c_int = 20;

/// How long SQLite itself waits for a lock. It cannot be cancelled in that time, so that the
/// waiting is done in many short pieces.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// Statements that a connection keeps compiled.
const KEPT_STATEMENTS: usize = 100;

/// Bytes of all temporary tables of a connection, where the database itself has no bound.
const TEMPORARY_BYTES: u64 = 1 << 30;

/// Of a connection, besides its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Bytes of one value or row.
    pub(super) largest_value: u64,
    /// Bytes of the file.
    pub(super) max_size: Option<u64>,
    /// Nothing may ever be written.
    pub(super) read_only: bool,
}

/// When a statement must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// By the plugin's `statement_timeout`, and that.
    pub(super) statement: Option<(Instant, Duration)>,
    /// By the execution's time.
    pub(super) execution: Instant,
}

impl Deadline {
    /// The earlier one.
    pub(super) fn first(&self) -> Instant {
        self.statement.map_or(self.execution, |(statement, _)| statement.min(self.execution))
    }
}

/// What the two sides of a connection share: who waits for its answers, and its thread.
#[derive(Debug)]
pub(super) struct Watch {
    /// Makes the statement that runs fail.
    pub(super) cancel: Arc<AtomicBool>,
    /// When the statement that runs fails by itself, in microseconds after `made`.
    until: AtomicU64,
    made: Instant,
    /// The host itself says what it wants, and may say all.
    speaking: AtomicBool,
    /// A statement has been compiled that makes a temporary table, view or trigger, which would
    /// live as long as the connection.
    pub(super) made_temporary: AtomicBool,
    /// A commit is about to begin, and will not look at `cancel` any more.
    pub(super) committing: AtomicBool,
    /// SQLite has ended the transaction by itself.
    pub(super) rolled_back: AtomicBool,
    /// A statement has been compiled that collects JSON, for which SQLite's limit of a value's
    /// length holds only once it is whole.
    collects: AtomicBool,
    /// What SQLite's memory, in bytes and over all connections, may become while such a
    /// statement runs.
    ceiling: AtomicI64,
    /// How much more of it that is than when the statement began.
    allowance: i64,
    /// The statement was stopped for that.
    collected: AtomicBool,
    /// Why the statement that was compiled last is not allowed.
    denied: Mutex<Option<String>>,
}

impl Watch {
    /// For a connection whose values may have this many bytes.
    pub(super) fn new(largest_value: u64) -> Arc<Self> {
        Arc::new(Self {
            cancel: Arc::default(),
            until: AtomicU64::new(u64::MAX),
            made: Instant::now(),
            speaking: AtomicBool::new(false),
            made_temporary: AtomicBool::new(false),
            committing: AtomicBool::new(false),
            rolled_back: AtomicBool::new(false),
            collects: AtomicBool::new(false),
            ceiling: AtomicI64::new(i64::MAX),
            // A value that grows is copied to a place of twice its size.
            allowance: i64::try_from(largest_value).unwrap_or(i64::MAX).saturating_mul(3),
            collected: AtomicBool::new(false),
            denied: Mutex::default(),
        })
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::SeqCst)
    }

    /// From here on what runs is a plugin's, until `until`.
    pub(super) fn arm(&self, until: Instant) {
        let micros = until.saturating_duration_since(self.made).as_micros();
        self.until.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.ceiling.store(memory_used().saturating_add(self.allowance), Ordering::Relaxed);
        self.take_denied();
    }

    pub(super) fn disarm(&self) {
        self.until.store(u64::MAX, Ordering::Relaxed);
    }

    /// True where what runs must stop.
    pub(super) fn is_over(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        self.is_cancelled() || (until != u64::MAX && self.made.elapsed().as_micros() >= u128::from(until))
    }

    /// True where a statement that collects has taken too much of the host's memory. It may be
    /// another one's, but who collects nothing is never asked.
    fn has_collected_too_much(&self) -> bool {
        let too_much =
            self.collects.load(Ordering::Relaxed) && memory_used() > self.ceiling.load(Ordering::Relaxed);
        if too_much {
            self.collected.store(true, Ordering::Relaxed);
        }
        too_much
    }

    /// The bytes that a statement was stopped for collecting, if it was.
    pub(super) fn take_collected(&self) -> Option<i64> {
        self.collected.swap(false, Ordering::Relaxed).then_some(self.allowance)
    }

    /// Does what the host itself wants.
    pub(super) fn speak<T>(&self, words: impl FnOnce() -> T) -> T {
        self.speaking.store(true, Ordering::Relaxed);
        let result = words();
        self.speaking.store(false, Ordering::Relaxed);
        result
    }

    pub(super) fn take_denied(&self) -> Option<String> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn judge(&self, action: AuthAction<'_>, database: Option<&str>) -> Authorization {
        if self.speaking.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        if makes_temporary(action, database) {
            self.made_temporary.store(true, Ordering::Relaxed);
        }
        if let AuthAction::Function { function_name } = action
            && COLLECTING_FUNCTIONS.iter().any(|name| name.eq_ignore_ascii_case(function_name))
        {
            self.collects.store(true, Ordering::Relaxed);
        }
        match refusal(action).or_else(|| refused_fence(action)) {
            None => Authorization::Allow,
            Some(why) => {
                self.denied.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                Authorization::Deny
            }
        }
    }
}

/// Opens a file, which is made if it is missing, for what plugins say.
pub(super) fn open(path: &Path, settings: Settings, watch: &Arc<Watch>) -> rusqlite::Result<Connection> {
    // Without URIs: a path is a path.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(KEPT_STATEMENTS);
    limit(&connection, settings.largest_value)?;
    configure(&connection)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA temp_store = FILE; PRAGMA mmap_size = 0")?;
    let page: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let pages = |bytes: u64| (bytes / u64::from(page.max(1))).clamp(1, u64::from(u32::MAX - 1));
    if let Some(bytes) = settings.max_size {
        connection.execute_batch(&format!("PRAGMA main.max_page_count = {}", pages(bytes)))?;
    }
    let temporary = pages(settings.max_size.unwrap_or(TEMPORARY_BYTES));
    connection.execute_batch(&format!("PRAGMA temp.max_page_count = {temporary}"))?;
    if settings.read_only {
        connection.execute_batch("PRAGMA query_only = ON")?;
    }
    let judge = Arc::clone(watch);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        judge.judge(context.action, context.database_name)
    }))?;
    look_every(STEPS, &connection, watch)?;
    Ok(connection)
}

/// Has the statements of a connection be looked at more often, from the first one on that
/// collects: each row may add as much as a value may have.
pub(super) fn look_closely(connection: &Connection, watch: &Arc<Watch>) -> rusqlite::Result<()> {
    if watch.collects.load(Ordering::Relaxed) { look_every(CLOSE_STEPS, connection, watch) } else { Ok(()) }
}

fn look_every(steps: c_int, connection: &Connection, watch: &Arc<Watch>) -> rusqlite::Result<()> {
    let watch = Arc::clone(watch);
    connection.progress_handler(steps, Some(move || watch.is_over() || watch.has_collected_too_much()))
}

/// Bytes of SQLite's memory in this process, over all connections.
fn memory_used() -> i64 {
    #[expect(unsafe_code, reason = "rusqlite has no safe way to ask")]
    // SAFETY: it takes nothing, and only reads a counter of SQLite's under SQLite's own lock.
    unsafe {
        rusqlite::ffi::sqlite3_memory_used()
    }
}

/// What one statement may ask for. <https://sqlite.org/limits.html>
fn limit(connection: &Connection, largest_value: u64) -> rusqlite::Result<()> {
    let limits = [
        (Limit::SQLITE_LIMIT_LENGTH, i32::try_from(largest_value).unwrap_or(i32::MAX)),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        // The longest text of a plugin, which SQLite quotes and adds to when it makes a table.
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 4 * 1024 * 1024),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 500),
        // Some fifty megabytes. The longest text of VALUES needs less than half of it.
        (Limit::SQLITE_LIMIT_VDBE_OP, 2_000_000),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 127),
        // A match takes the square of it in one step, which nothing interrupts.
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 100),
    ];
    for (limit, value) in limits {
        connection.set_limit(limit, value)?;
    }
    Ok(())
}

/// <https://sqlite.org/security.html>
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        // A misspelt name in double quotes is an error, not a text.
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    ] {
        connection.set_db_config(config, on)?;
    }
    Ok(())
}

/// Pragmas that only read, whatever they are given.
const READING_PRAGMAS: &[&str] = &[
    "collation_list",
    "compile_options",
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "module_list",
    "pragma_list",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// Pragmas that read where they are given nothing. FTS and R*Tree ask for some of them.
const READING_SETTINGS: &[&str] = &[
    "application_id",
    "data_version",
    "encoding",
    "freelist_count",
    "page_count",
    "page_size",
    "schema_version",
    "user_version",
];

/// What virtual tables may be made of.
const MODULES: &[&str] = &["fts3", "fts4", "fts4aux", "fts5", "fts5vocab", "geopoly", "rtree", "rtree_i32"];

/// Functions that collect a value of any length, whatever SQLite's limit is.
const COLLECTING_FUNCTIONS: &[&str] =
    &["json_group_array", "json_group_object", "jsonb_group_array", "jsonb_group_object"];

/// Functions that reach beyond the data: into the process (`load_extension`, `fts3_tokenizer`),
/// or that write where SQLite says that the statement only reads (`optimize`).
const REFUSED_FUNCTIONS: &[&str] = &["fts3_tokenizer", "load_extension", "optimize"];

/// Why a plugin may not do this; `None` where it may. What is not on the list is refused.
fn refusal(action: AuthAction<'_>) -> Option<String> {
    use AuthAction as Do;
    match action {
        Do::Select
        | Do::Recursive
        | Do::Read { .. }
        | Do::Insert { .. }
        | Do::Update { .. }
        | Do::Delete { .. }
        | Do::CreateTable { .. }
        | Do::CreateIndex { .. }
        | Do::CreateView { .. }
        | Do::CreateTrigger { .. }
        | Do::CreateTempTable { .. }
        | Do::CreateTempIndex { .. }
        | Do::CreateTempView { .. }
        | Do::CreateTempTrigger { .. }
        | Do::DropTable { .. }
        | Do::DropIndex { .. }
        | Do::DropView { .. }
        | Do::DropTrigger { .. }
        | Do::DropTempTable { .. }
        | Do::DropTempIndex { .. }
        | Do::DropTempView { .. }
        | Do::DropTempTrigger { .. }
        | Do::DropVtable { .. }
        | Do::AlterTable { .. }
        | Do::Reindex { .. }
        | Do::Analyze { .. } => None,
        Do::Function { function_name } => refused_function(function_name),
        Do::CreateVtable { module_name, .. } => refused_module(module_name),
        Do::Pragma { pragma_name, pragma_value } => refused_pragma(pragma_name, pragma_value),
        // The full-text search of FTS3 and FTS4 marks places of its own.
        Do::Savepoint { savepoint_name: "fts3", .. } => None,
        Do::Savepoint { .. } => Some(
            "a savepoint in SQL is not allowed: use `savepoint`, `rollback-to` and `release` of the db interface"
                .to_owned(),
        ),
        Do::Transaction { .. } => Some(
            "the transaction belongs to the host, and ends by `commit` or `rollback` of the db interface, or \
             with the call"
                .to_owned(),
        ),
        Do::Attach { .. } | Do::Detach { .. } => Some(
            "other files are not allowed: a plugin uses the databases that the operator grants it, by their names"
                .to_owned(),
        ),
        other => Some(format!("SQLite asks for something that the host does not know ({other:?})")),
    }
}

/// What would change the fence, by whatever name of the table in upper or lower case.
fn refused_fence(action: AuthAction<'_>) -> Option<String> {
    use AuthAction as Do;
    let table = match action {
        Do::Insert { table_name }
        | Do::Update { table_name, .. }
        | Do::Delete { table_name }
        | Do::CreateTable { table_name }
        | Do::CreateTempTable { table_name }
        | Do::CreateVtable { table_name, .. }
        | Do::DropTable { table_name }
        | Do::DropTempTable { table_name }
        | Do::DropVtable { table_name, .. }
        | Do::AlterTable { table_name, .. }
        | Do::CreateIndex { table_name, .. }
        | Do::CreateTempIndex { table_name, .. }
        | Do::CreateTrigger { table_name, .. }
        | Do::CreateTempTrigger { table_name, .. } => table_name,
        Do::CreateView { view_name } | Do::CreateTempView { view_name } => view_name,
        _ => return None,
    };
    let is_fence = table.eq_ignore_ascii_case(fence::TABLE);
    is_fence.then(|| format!("the table `{table}` is the host's, which keeps late commits out by it"))
}

fn refused_function(name: &str) -> Option<String> {
    let refused = REFUSED_FUNCTIONS.iter().any(|refused| refused.eq_ignore_ascii_case(name));
    let instead = match name {
        _ if !refused => return None,
        _ if name.eq_ignore_ascii_case("optimize") => {
            "; write `INSERT INTO the_table (the_table) VALUES ('optimize')`"
        }
        _ => ": what runs in the host is for the operator to decide",
    };
    Some(format!("the function `{name}` is not allowed{instead}"))
}

fn refused_module(name: &str) -> Option<String> {
    let allowed = MODULES.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    let why = || {
        format!("virtual tables of `{name}` are not allowed: they may be of one of {}", MODULES.join(", "))
    };
    (!allowed).then(why)
}

fn refused_pragma(name: &str, value: Option<&str>) -> Option<String> {
    let is = |list: &[&str]| list.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if is(READING_PRAGMAS) || (value.is_none() && is(READING_SETTINGS)) {
        return None;
    }
    Some(format!(
        "the pragma `{name}` is not allowed: the settings of a connection belong to the host; what can be read are \
         {}",
        READING_PRAGMAS.join(", ")
    ))
}

fn makes_temporary(action: AuthAction<'_>, database: Option<&str>) -> bool {
    match action {
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateTempTrigger { .. } => true,
        AuthAction::CreateTable { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateVtable { .. } => database == Some("temp"),
        _ => false,
    }
}
