//! A guest for the tests: one handler for each thing that a handler can do, well or badly.
//!
//! Arguments and results are JSON. Every handler's comment says what it takes and returns; in
//! short: [`basics`] returns, waits, fails and dies in every way, [`program`] runs small programs
//! against the database, [`transactions`] uses what the SDK makes of transactions, [`gate`] waits
//! for a test, [`trace`] leaves a trace of its attempts, [`services`] calls everything else that
//! the host offers, and [`hostile`] says too much and breaks the rules.

mod basics;
mod gate;
mod hostile;
mod program;
mod services;
mod trace;
mod transactions;
mod values;

use basics::{allocate, echo, fail, fail_until, panic, sleep, spin};
use gate::{hold, narrate};
use hostile::{break_rules, excess};
use program::sql;
use services::{cancelled, checkpoint, config, enqueue, give_up, log, print, progress};
use trace::ledger;
use transactions::{nested, retry_on_conflict, stream, whole_call, whole_read};

innkeeper_sdk::plugin!(
    allocate,
    break_rules,
    cancelled,
    checkpoint,
    config,
    echo,
    enqueue,
    excess,
    fail,
    fail_until,
    give_up,
    hold,
    ledger,
    log,
    narrate,
    nested,
    panic,
    print,
    progress,
    retry_on_conflict,
    sleep,
    spin,
    sql,
    stream,
    whole_call,
    whole_read,
);
