//! Prepared statements: what the server says of them, and what the host sends in their place.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgStatement, PgTypeInfo};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Either, Encode, Executor as _, Postgres, Row as _,
    SqlSafeStr as _, Statement as _, Type,
};

use super::Connection;
use super::rewrite::{self, Cast, Rewritten};
use super::scan::{self, Verb};
use super::types::{self, Codec, Kind};
use super::values::{self, Unfit};
use crate::interfaces::db::error::{self, Failure};
use crate::interfaces::db::{Column, Error, ErrorKind, Value};

/// Statements that are kept described; sqlx keeps as many prepared.
pub(super) const MOST_KEPT: usize = 100;

/// Bytes of the longest text that is kept a second time, described.
const LONGEST_KEPT: usize = 64 * 1024;

/// Statements that a connection describes before it is given up. sqlx keeps the names of
/// every table and type that it has met, and a plugin may make and drop as many as it likes.
const MOST_DESCRIBED: u32 = 20_000;

/// The number of `text` in the server's `pg_type.dat`.
const TEXT: u32 = 25;

/// What a connection knows of the statements it has prepared.
#[derive(Default)]
pub(super) struct Statements {
    kept: HashMap<Arc<str>, Kept>,
    /// The names of types, with their schemas, by their numbers.
    names: HashMap<u32, String>,
    described: u32,
}

struct Kept {
    described: Arc<Described>,
    /// As it is sent with casts, one for each set of parameters and columns that needs them.
    rewritten: Vec<Arc<Runnable>>,
}

/// A statement as the plugin has written it.
pub(super) struct Described {
    pub(super) columns: Vec<Column>,
    parameters: Vec<Parameter>,
    /// Every column can be read in its binary form.
    is_readable: bool,
    verb: Option<Verb>,
    /// It says nothing like `FOR UPDATE`.
    locks_nothing: bool,
    direct: Arc<Runnable>,
}

struct Parameter {
    info: PgTypeInfo,
    codec: Codec,
    type_name: String,
}

/// A statement as it is sent.
pub(super) struct Runnable {
    pub(super) statement: PgStatement,
    /// How each column is read.
    pub(super) reads: Vec<Codec>,
    /// The parameters (from 1) that are sent as text.
    casts: Vec<usize>,
    /// Columns are written as text, where they must be.
    as_text: bool,
    /// Where it is not as the plugin has written it.
    rewritten: Option<Rewritten>,
}

/// A statement that the server has described.
pub(super) struct Prepared {
    pub(super) described: Arc<Described>,
    /// It was so before: tables and types may have changed since.
    pub(super) kept: bool,
}

/// Whether parameters fit a statement.
enum Fit {
    Direct(PgArguments),
    /// These (from 1) only as text.
    AsText(Vec<usize>),
}

impl Statements {
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.names.clear();
    }

    /// True where a fresh connection would keep less in memory.
    pub(super) fn are_too_many(&self) -> bool {
        self.described > MOST_DESCRIBED
    }
}

impl Connection {
    /// What the server says of a statement; no round trip where it has said so before.
    pub(super) async fn describe(&mut self, sql: &str) -> Result<Prepared, Failure> {
        let kept = self.statements.kept.get_key_value(sql);
        let text = kept.map_or_else(|| Arc::from(sql), |(text, _)| Arc::clone(text));
        let before = kept.map(|(_, kept)| Arc::clone(&kept.described));
        let statement = self.prepare(Arc::clone(&text)).await?;
        if let Some(described) = before.filter(|before| is_same(&before.direct.statement, &statement)) {
            return Ok(Prepared { described, kept: true });
        }
        let described = Arc::new(Described::new(sql, statement));
        self.statements.described += 1;
        if text.len() <= LONGEST_KEPT {
            if self.statements.kept.len() >= MOST_KEPT {
                self.statements.kept.clear();
            }
            let kept = Kept { described: Arc::clone(&described), rewritten: Vec::new() };
            self.statements.kept.insert(text, kept);
        }
        Ok(Prepared { described, kept: false })
    }

    async fn prepare(&mut self, sql: Arc<str>) -> Result<PgStatement, Failure> {
        match self.inner.prepare(AssertSqlSafe(sql).into_sql_str()).await {
            Err(
                error @ (sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::TypeNotFound { .. }),
            ) => {
                // The server has prepared it under a name that sqlx has forgotten.
                self.hang_up = true;
                let message = format!(
                    "a parameter or a column of the statement is of a type that this interface cannot even \
                     describe, such as a multirange ({error}): write `::text` behind it"
                );
                Err(error::new(ErrorKind::Conversion, message).into())
            }
            Err(error) => Err(self.failure(error, false, None).await),
            Ok(statement) => Ok(statement),
        }
    }

    /// The statement to send, and its parameters.
    ///
    /// # Errors
    /// `conversion`, where a parameter or, if they are wanted, a column has no form that host
    /// and server agree on.
    pub(super) async fn bind(
        &mut self,
        sql: &str,
        prepared: &mut Prepared,
        params: &[Value],
        wants_rows: bool,
    ) -> Result<(Arc<Runnable>, PgArguments), Failure> {
        let fit = match prepared.described.fit(params) {
            // The types may be those of tables that have changed since the statement was kept.
            // Of a long text nobody knows whether sqlx has kept it.
            Err(error)
                if error.kind == ErrorKind::Conversion && (prepared.kept || sql.len() > LONGEST_KEPT) =>
            {
                self.forget_statements().await?;
                *prepared = self.describe(sql).await?;
                prepared.described.fit(params)?
            }
            other => other?,
        };
        let described = &prepared.described;
        let as_text = wants_rows && !described.is_readable;
        let casts = match fit {
            Fit::Direct(arguments) if !as_text => return Ok((Arc::clone(&described.direct), arguments)),
            Fit::Direct(_) => Vec::new(),
            Fit::AsText(casts) => casts,
        };
        let runnable = self.rewritten(sql, &Arc::clone(described), &casts, as_text, params).await?;
        let arguments = runnable.arguments(&described.parameters, params)?;
        Ok((runnable, arguments))
    }

    /// The statement with casts, prepared.
    async fn rewritten(
        &mut self,
        sql: &str,
        described: &Described,
        casts: &[usize],
        as_text: bool,
        params: &[Value],
    ) -> Result<Arc<Runnable>, Failure> {
        let kept = self.statements.kept.get(sql).into_iter().flat_map(|kept| &kept.rewritten);
        let kept = kept.clone().find(|one| one.casts == casts && one.as_text == as_text).cloned();
        if let Some(runnable) = kept {
            let statement = self.prepare(Arc::from(runnable.sql(sql))).await?;
            if is_same(&statement, &runnable.statement) {
                return Ok(runnable);
            }
        }
        let refusal = || Failure::from(described.refusal(casts, params));
        let names = self.names_of(described, casts).await?.ok_or_else(refusal)?;
        let columns: Vec<bool> =
            described.direct.reads.iter().map(|codec| as_text && !codec.is_readable()).collect();
        let scan = scan::scan(sql).ok_or_else(refusal)?;
        let rewritten = rewrite::rewrite(sql, &scan, &names, &columns).ok_or_else(refusal)?;
        let statement = match self.prepare(Arc::from(rewritten.sql.as_str())).await {
            // The server does not take it in this form.
            Err(failure) if failure.is_refusal() => {
                let mut refusal = refusal();
                refusal.error.detail = Some(failure.error.message);
                return Err(refusal);
            }
            other => other?,
        };
        if !is_as_expected(&described.direct.statement, &statement, casts, &columns) {
            return Err(refusal());
        }
        let as_other = |(codec, as_text): (&Codec, &bool)| {
            if *as_text { Codec::Scalar(Kind::Label) } else { *codec }
        };
        let reads = described.direct.reads.iter().zip(&columns).map(as_other).collect();
        let casts = casts.to_vec();
        let runnable = Arc::new(Runnable { statement, reads, casts, as_text, rewritten: Some(rewritten) });
        if let Some(kept) = self.statements.kept.get_mut(sql) {
            kept.rewritten.retain(|one| one.casts != runnable.casts || one.as_text != as_text);
            kept.rewritten.truncate(3);
            kept.rewritten.insert(0, Arc::clone(&runnable));
        }
        Ok(runnable)
    }

    /// The casts of parameters to their types. `None` where a type has no name.
    async fn names_of(
        &mut self,
        described: &Described,
        casts: &[usize],
    ) -> Result<Option<Vec<Cast>>, Failure> {
        let mut named = Vec::with_capacity(casts.len());
        for cast in casts {
            let Some(parameter) = described.parameters.get(cast - 1) else { return Ok(None) };
            let oid = types::number(&parameter.info);
            if !self.statements.names.contains_key(&oid) {
                // With its schema, so that it means the same whatever the plugin looks names up in.
                let look = format!(
                    "SELECT pg_catalog.concat(pg_catalog.quote_ident(n.nspname::pg_catalog.text), '.', \
                     pg_catalog.quote_ident(t.typname::pg_catalog.text)) FROM pg_catalog.pg_type t \
                     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace \
                     WHERE t.oid OPERATOR(pg_catalog.=) {oid}"
                );
                let found = sqlx::raw_sql(AssertSqlSafe(look)).fetch_optional(&mut self.inner).await?;
                let Some(found) = found else { return Ok(None) };
                if self.statements.names.len() >= 1_000 {
                    self.statements.names.clear();
                }
                self.statements.names.insert(oid, found.try_get(0)?);
            }
            if let Some(name) = self.statements.names.get(&oid) {
                named.push((*cast, name.clone()));
            }
        }
        Ok(Some(named))
    }

    /// What an error of a statement means for it and for the connection. `kept` says that it
    /// was prepared before this call; `sent` is what was run, if the error is of that.
    pub(super) async fn failure(
        &mut self,
        error: sqlx::Error,
        kept: bool,
        sent: Option<&Runnable>,
    ) -> Failure {
        // A name that a block of the plugin has taken or given up cannot be trusted any more.
        self.hang_up |= error::is_lost_statement(&error);
        let is_stale = error::is_stale_statement(&error, kept);
        let mut failure = Failure::from(error);
        if let Some(sent) = sent {
            failure.error.position = sent.original_position(failure.error.position);
            // The cast may be to the type that a column had before.
            failure.stale = kept && !sent.casts.is_empty() && failure.is_refusal();
        }
        if is_stale {
            let message = "what this statement names has changed since it was prepared: run it again";
            failure.error = Error { code: failure.error.code, ..error::new(ErrorKind::Conflict, message) };
            failure.stale = true;
        }
        if failure.stale
            && let Err(error) = self.forget_statements().await
        {
            return error.into();
        }
        failure
    }
}

impl Described {
    fn new(sql: &str, statement: PgStatement) -> Self {
        let infos = match statement.parameters() {
            Some(Either::Left(infos)) => infos,
            _ => &[],
        };
        let parameter = |info: &PgTypeInfo| Parameter {
            info: info.clone(),
            codec: types::codec(info),
            type_name: types::type_name(info),
        };
        let parameters = infos.iter().map(parameter).collect();
        let column = |column: &sqlx::postgres::PgColumn| Column {
            name: column.name().to_owned(),
            type_name: types::type_name(column.type_info()),
        };
        let columns = statement.columns().iter().map(column).collect();
        let reads: Vec<Codec> =
            statement.columns().iter().map(|column| types::codec(column.type_info())).collect();
        let is_readable = reads.iter().all(|codec| codec.is_readable());
        let direct = Runnable { statement, reads, casts: Vec::new(), as_text: false, rewritten: None };
        let scan = scan::scan(sql);
        let locks_nothing = scan.as_ref().is_some_and(|scan| !scan.says_for);
        let verb = scan.map(|scan| scan.verb);
        Self { columns, parameters, is_readable, verb, locks_nothing, direct: Arc::new(direct) }
    }

    /// True where the statement can stand in DECLARE, as far as its words say so.
    pub(super) fn may_be_cursor(&self) -> bool {
        self.verb.is_none_or(|verb| verb == Verb::Select) && !self.columns.is_empty()
    }

    /// True where reading a row cannot lock it, as far as its words say so.
    pub(super) fn locks_nothing(&self) -> bool {
        self.locks_nothing
    }

    /// True where it reads by SELECT at its top, and so the rows it counts are not changed ones.
    pub(super) fn reads(&self) -> bool {
        self.verb == Some(Verb::Select)
    }

    fn fit(&self, params: &[Value]) -> Result<Fit, Error> {
        error::require_parameters(self.parameters.len(), params.len())?;
        let mut casts = Vec::new();
        let mut arguments = PgArguments::default();
        for (index, (value, parameter)) in params.iter().zip(&self.parameters).enumerate() {
            match values::encode(value, parameter.codec) {
                Ok(_) if !casts.is_empty() => {}
                Ok(bytes) => push(&mut arguments, bytes, &parameter.info, index + 1)?,
                Err(Unfit::AsText) => casts.push(index + 1),
                Err(Unfit::Never) => {
                    return Err(values::refuse(index + 1, value, parameter.codec, &parameter.type_name));
                }
            }
        }
        Ok(if casts.is_empty() { Fit::Direct(arguments) } else { Fit::AsText(casts) })
    }

    /// Why the statement cannot be sent with casts: what to write instead.
    fn refusal(&self, casts: &[usize], params: &[Value]) -> Error {
        let cast = casts
            .first()
            .and_then(|number| Some((*number, params.get(number - 1)?, self.parameters.get(number - 1)?)));
        if let Some((number, value, parameter)) = cast {
            return values::refuse(number, value, parameter.codec, &parameter.type_name);
        }
        let unreadable = self.direct.reads.iter().position(|codec| !codec.is_readable());
        match unreadable.and_then(|index| self.columns.get(index)) {
            Some(column) => values::unreadable(&column.name, &column.type_name),
            None => error::new(ErrorKind::Conversion, "the statement cannot be sent with casts"),
        }
    }
}

impl Runnable {
    /// Its text, where `original` is the plugin's.
    pub(super) fn sql<'a>(&'a self, original: &'a str) -> &'a str {
        self.rewritten.as_ref().map_or(original, |rewritten| rewritten.sql.as_str())
    }

    /// The place in the plugin's text of a place in the one that was sent.
    fn original_position(&self, position: Option<u32>) -> Option<u32> {
        match &self.rewritten {
            Some(rewritten) => rewritten.original_position(position?),
            None => position,
        }
    }

    fn arguments(&self, parameters: &[Parameter], params: &[Value]) -> Result<PgArguments, Error> {
        let infos = match self.statement.parameters() {
            Some(Either::Left(infos)) => infos,
            _ => &[],
        };
        let mut arguments = PgArguments::default();
        for (index, ((value, parameter), info)) in params.iter().zip(parameters).zip(infos).enumerate() {
            let refused = || values::refuse(index + 1, value, parameter.codec, &parameter.type_name);
            let bytes = match value {
                Value::Null => None,
                value if self.casts.contains(&(index + 1)) => {
                    Some(values::text_form(value).ok_or_else(refused)?.into_bytes())
                }
                value => values::encode(value, parameter.codec).map_err(|_unfit| refused())?,
            };
            push(&mut arguments, bytes, info, index + 1)?;
        }
        Ok(arguments)
    }
}

/// True where both are what sqlx has kept of one answer of the server. sqlx hands out the same
/// memory until it asks again, and this memory is held here meanwhile.
fn is_same(one: &PgStatement, other: &PgStatement) -> bool {
    let parameters = |statement: &PgStatement| match statement.parameters() {
        Some(Either::Left(infos)) => std::ptr::from_ref(infos),
        _ => std::ptr::from_ref::<[PgTypeInfo]>(&[]),
    };
    std::ptr::eq(one.columns(), other.columns()) && std::ptr::eq(parameters(one), parameters(other))
}

/// True where only those types differ that casts were written for.
fn is_as_expected(original: &PgStatement, sent: &PgStatement, casts: &[usize], columns: &[bool]) -> bool {
    let (Some(Either::Left(before)), Some(Either::Left(after))) = (original.parameters(), sent.parameters())
    else {
        return false;
    };
    let parameter = |(index, (before, after)): (usize, (&PgTypeInfo, &PgTypeInfo))| {
        let expected = if casts.contains(&(index + 1)) { TEXT } else { types::number(before) };
        types::number(after) == expected
    };
    let column = |(index, as_text): (usize, &bool)| {
        let before = types::number(original.columns()[index].type_info());
        types::number(sent.columns()[index].type_info()) == if *as_text { TEXT } else { before }
    };
    before.len() == after.len()
        && before.iter().zip(after).enumerate().all(parameter)
        && original.columns().len() == sent.columns().len()
        && columns.iter().enumerate().all(column)
}

fn push(
    arguments: &mut PgArguments,
    bytes: Option<Vec<u8>>,
    info: &PgTypeInfo,
    number: usize,
) -> Result<(), Error> {
    arguments.add(Encoded { bytes, info: info.clone() }).map_err(|error| {
        error::new(ErrorKind::Conversion, format!("parameter ${number} cannot be sent: {error}"))
    })
}

/// A parameter that is in the server's form already.
struct Encoded {
    bytes: Option<Vec<u8>>,
    info: PgTypeInfo,
}

impl Type<Postgres> for Encoded {
    /// Never asked for: `produces` says the type of each parameter.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}

impl Encode<'_, Postgres> for Encoded {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(match &self.bytes {
            None => IsNull::Yes,
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                IsNull::No
            }
        })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }

    fn size_hint(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len)
    }
}
