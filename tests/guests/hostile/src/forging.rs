//! Handles that the guest never got.

use innkeeper_sdk::{Context, Failure, handler};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{describe, options, wit};

#[expect(unsafe_code, reason = "the SDK lets nobody forge a handle")]
#[link(wasm_import_module = "innkeeper:plugin/db@0.1.0")]
unsafe extern "C" {
    /// `transaction.commit` as the component model flattens it: the handle, and where the
    /// answer goes.
    #[link_name = "[method]transaction.commit"]
    fn commit(handle: u32, answer: *mut u8);

    #[link_name = "[method]transaction.rollback"]
    fn rollback(handle: u32, answer: *mut u8);

    #[link_name = "[method]cursor.fetch"]
    fn fetch(handle: u32, limit: u32, answer: *mut u8);

    #[link_name = "[resource-drop]transaction"]
    fn drop_transaction(handle: u32);
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// Commits by a number that was never given.
    Commit,
    /// The same for a number beyond every table.
    CommitFar,
    /// Drops a transaction that it has dropped before.
    DropTwice,
    /// Uses a transaction's handle as a cursor's.
    TransactionAsCursor,
    /// Has the answer written outside of its memory.
    AnswerOutside,
    /// Has it written where no answer can begin.
    AnswerUnaligned,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forge {
    how: How,
}

/// Takes `{how}` and uses a handle that it must not, while it holds a transaction with a row
/// written into `marks`. It never returns.
#[handler]
pub(crate) fn forge(_ctx: &Context, args: Forge) -> Result<(), Failure> {
    let begin = || wit::begin(&options(None, false)).map_err(|error| Failure::permanent(describe(error)));
    let held = begin()?;
    held.execute("insert into marks (attack, part) values (-1, 1)", &[])
        .map_err(|error| Failure::permanent(describe(error)))?;
    let handle = held.handle();
    let mut answer = [0_u64; 32];
    let answer = answer.as_mut_ptr().cast::<u8>();
    #[expect(unsafe_code, reason = "the SDK lets nobody forge a handle")]
    // SAFETY: the host ends the guest, or writes an answer where there is room for it.
    unsafe {
        match args.how {
            How::Commit => commit(handle + 1, answer),
            How::CommitFar => commit(u32::MAX - 1, answer),
            How::DropTwice => {
                drop(held);
                drop_transaction(handle);
            }
            How::TransactionAsCursor => fetch(handle, 1, answer),
            How::AnswerOutside => rollback(handle, (usize::MAX & !0xfff) as *mut u8),
            How::AnswerUnaligned => rollback(handle, answer.add(1)),
        }
    }
    Err(Failure::permanent("a forged handle was accepted"))
}
