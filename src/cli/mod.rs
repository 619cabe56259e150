//! The commands, their arguments, their exit codes and last words.
//!
//! Exit codes: 0 done or stopped as asked, 1 stopped on an error, 2 usage or settings (whatever has
//! the code `settings`, also where only the server can tell).

mod arguments;
mod by_hand;
mod check;
mod commands;
mod outcome;
mod size;
mod snapshot;
mod status;
mod terminal;

pub use commands::main;
