//! What each command does.

use std::{path::Path, process::ExitCode};

use clap::Parser;
use tokio::runtime::Runtime;

use super::{
    arguments::{Arguments, Command},
    by_hand, outcome,
};
use crate::{
    config::{Config, LoadError},
    demo,
    failure::Failure,
    pipeline::{self, Shutdown},
    telemetry,
};

/// The program: reads its arguments, does what they say, and says how it ended.
pub fn main() -> ExitCode {
    let Arguments { command, config } = Arguments::parse();
    let ended = match command {
        Command::Run => run(&config),
        Command::Init { print_sql: true, .. } => print_sql(&config),
        Command::Init { adopt_slot: true, answer, .. } => by_hand::adopt_slot(&config, answer),
        Command::Init { take_over: Some(table), condition: Some(condition), answer, .. } => {
            by_hand::take_over(&config, &table, &condition, answer)
        }
        Command::Init { answer, .. } => init(&config, answer.json),
        Command::Reset { how, answer } => by_hand::reset(&config, how.into(), answer),
        Command::Status { json } => status(&config, json),
        Command::Demo { duration, brokers } => {
            return demo(demo::Settings { duration: Some(duration), brokers });
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => outcome::report(&*failure),
    }
}

fn run(path: &Path) -> Result<(), Box<dyn Failure>> {
    within_runtime(async {
        // First of all: a SIGTERM that comes before would be no orderly stop.
        let shutdown = Shutdown::on_signals().expect("signal handlers can be installed");
        let config = load(path)?;
        telemetry::start_logging(&config.log);
        pipeline::run(&config.pipeline, shutdown).await
    })
}

fn init(path: &Path, json: bool) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    telemetry::start_logging(&config.log);
    let settings = &config.pipeline;
    let checkpoint = within_runtime(async {
        let shutdown = Shutdown::on_signals().expect("signal handlers can be installed");
        pipeline::init(settings, &shutdown).await
    })?;
    let Some(checkpoint) = checkpoint else {
        eprintln!("stopped before it was done; run it again: what it made stays, and is used.");
        return Ok(());
    };
    by_hand::print_checkpoint(settings, checkpoint.commit_end_lsn, json);
    Ok(())
}

fn status(path: &Path, json: bool) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    let found = within_runtime(async {
        let mut shutdown = Shutdown::on_signals().expect("signal handlers can be installed");
        let asked = shutdown.clone();
        tokio::select! {
            found = pipeline::status(&config.pipeline, &asked) => found.map(Some),
            () = shutdown.requested() => Ok(None),
        }
    })?;
    match found {
        Some(found) if json => {
            println!("{}", serde_json::to_string(&found).expect("texts and numbers always encode"));
        }
        Some(found) => print!("{}", super::status::in_words(&found)),
        None => {}
    }
    Ok(())
}

fn print_sql(path: &Path) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    let settings = &config.pipeline;
    let statements = within_runtime(async {
        let shutdown = Shutdown::on_signals().expect("signal handlers can be installed");
        pipeline::publication_sql(settings, &shutdown).await
    })?;
    let Some(statements) = statements else { return Ok(()) };
    if statements.is_empty() {
        println!("-- publication \"{}\" has all it needs.", settings.publication);
    }
    for statement in statements {
        println!("{statement};");
    }
    // A slot made by hand has neither intent nor checkpoint, and would be refused.
    println!("-- `tailwater run` or `tailwater init` makes the slot \"{}\".", settings.slot);
    Ok(())
}

/// What it shows is all that it says: there is no log beside it.
fn demo(settings: demo::Settings) -> ExitCode {
    let ended = within_runtime(async { demo::run(settings).await.map_err(Into::into) });
    match ended {
        Ok(summary) if summary.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => outcome::report(&*failure),
    }
}

/// Reads the settings; mistakes are printed one a line.
pub(super) fn load(path: &Path) -> Result<Config, Box<dyn Failure>> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Config::load(path, &environment).map_err(|error| {
        if let LoadError::Mistaken(error) = &error {
            eprintln!("{}:", error.path);
            for mistake in &error.mistakes {
                eprintln!("  {mistake}");
            }
        }
        error.into()
    })
}

/// One thread: the loop is one task, and Kafka has its own thread.
pub(super) fn within_runtime<T>(
    work: impl Future<Output = Result<T, Box<dyn Failure>>>,
) -> Result<T, Box<dyn Failure>> {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let ended = runtime.block_on(work);
    // A call to Kafka that was under way when the end was asked for must not hold it up.
    runtime.shutdown_background();
    ended
}
