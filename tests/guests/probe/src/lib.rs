//! A guest for the tests: one handler for each thing that a handler can do, well or badly.
//!
//! Arguments and results are JSON. Every handler's comment says what it takes and returns; in
//! short: [`basics`] returns, waits, fails and dies in every way, [`program`] runs small programs
//! against the database, [`services`] calls everything else that the host offers, and [`hostile`] says
//! too much and breaks the rules.

mod basics;
mod hostile;
mod program;
mod services;
mod values;

use basics::{allocate, echo, fail, fail_until, panic, sleep, spin};
use hostile::{break_rules, excess};
use program::{hold, sql};
use services::{cancelled, checkpoint, config, enqueue, log, print, progress};

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
    hold,
    log,
    panic,
    print,
    progress,
    sleep,
    spin,
    sql,
);
