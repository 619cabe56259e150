//! What each command does.

use std::{path::Path, process::ExitCode};

use clap::Parser;
use tokio::runtime::Runtime;

use super::{
    arguments::{Arguments, Command, SchemaFormat},
    by_hand, outcome, snapshot,
};
use crate::{
    admin,
    config::{Config, Environment, LoadError},
    contract, demo,
    failure::Failure,
    pipeline::{self, Requests, Shutdown},
    telemetry,
};

/// What `tail` logs whatever the settings say. Nothing is published that a line a minute could tell
/// of; whom the slot waits for, and when it is there, is told, or it would look like no events.
const TAIL_DIRECTIVES: &str = "tailwater::pipeline::progress=off,\
    tailwater::pipeline::slot_creation=info,tailwater::pipeline::tail=info";

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
        Command::Reset { how, answer } => match &how.snapshot {
            Some(table) => by_hand::reset_rows(&config, table, answer),
            None => by_hand::reset(&config, how.into(), answer),
        },
        Command::Status { json } => status(&config, json),
        Command::Check { json } => match check(&config, json) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Snapshot { table: Some(table), condition, json, detach } => {
            let body = admin::RequestBody { table, condition };
            snapshot::snapshot(&config, &body, snapshot::Showing { json, detach })
        }
        Command::Snapshot { table: None, json, .. } => snapshot::list(&config, json),
        Command::Schema { format } => schema(&config, format),
        Command::Tail { json, full } => tail(&config, super::terminal::style(json, full)),
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
    with_shutdown(async |shutdown| {
        let config = load(path)?;
        telemetry::start_logging(&config.log);
        let requests = Requests::default();
        let server = admin::Server::start(&config.admin, requests.clone());
        let ended = pipeline::run(&config.pipeline, &requests, shutdown).await;
        server.stop().await;
        ended
    })
}

fn init(path: &Path, json: bool) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    telemetry::start_logging(&config.log);
    let settings = &config.pipeline;
    let checkpoint = with_shutdown(async |shutdown| pipeline::init(settings, &shutdown).await)?;
    let Some(checkpoint) = checkpoint else {
        eprintln!("stopped before it was done; run it again: what it made stays, and is used.");
        return Ok(());
    };
    by_hand::print_checkpoint(settings, checkpoint.commit_end_lsn, json);
    Ok(())
}

fn status(path: &Path, json: bool) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    let found = with_shutdown(async |mut shutdown| {
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

/// What is to be mended is what it was asked for, and no failure of its own; a server that could not
/// be looked at is one.
fn check(path: &Path, json: bool) -> Result<ExitCode, Box<dyn Failure>> {
    let config = load(path)?;
    telemetry::start_logging(&config.log);
    let findings = with_shutdown(async |mut shutdown| {
        let asked = shutdown.clone();
        Ok(tokio::select! {
            findings = pipeline::check::check(&config.pipeline, &asked) => findings,
            () = shutdown.requested() => None,
        })
    })?;
    let Some(findings) = findings else { return Ok(ExitCode::SUCCESS) };
    outcome::print(&match json {
        true => super::check::as_json(&findings) + "\n",
        false => super::check::in_words(&findings),
    });
    if let Some(unreached) = pipeline::check::unreached(&findings) {
        outcome::say(&unreached.detail, unreached.fix.as_deref().unwrap_or_default());
    }
    let is_fine = findings.iter().all(pipeline::check::Finding::is_ok);
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tail(path: &Path, style: pipeline::TailStyle) -> Result<(), Box<dyn Failure>> {
    with_shutdown(async |shutdown| {
        let config = load_by(Config::load_for_database, path)?;
        let filter = format!("{},{TAIL_DIRECTIVES}", config.log.filter);
        telemetry::start_logging(&telemetry::Settings { filter, ..config.log });
        pipeline::tail(&config.pipeline, style, shutdown).await
    })
}

fn print_sql(path: &Path) -> Result<(), Box<dyn Failure>> {
    let config = load_by(Config::load_for_database, path)?;
    let settings = &config.pipeline;
    let statements =
        with_shutdown(async |shutdown| pipeline::publication_sql(settings, &shutdown).await)?;
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

/// Columns of domain tables are the database's to say; all else the settings say.
fn schema(path: &Path, format: SchemaFormat) -> Result<(), Box<dyn Failure>> {
    let config = load_by(Config::load_for_database, path)?;
    let pipeline = &config.pipeline;
    let tables = match pipeline.event.tables.as_slice() {
        [] => Some(Vec::new()),
        [..] => with_shutdown(async |shutdown| pipeline::domain_tables(pipeline, &shutdown).await)?,
    };
    let Some(tables) = tables else { return Ok(()) };
    let document = match format {
        SchemaFormat::JsonSchema => contract::json_schema(&pipeline.event, &tables)?,
        SchemaFormat::AsyncApi => contract::async_api(
            &pipeline.event,
            &tables,
            pipeline.kafka.delivery,
            pipeline.dead_letters.as_ref(),
        )?,
    };
    outcome::print(&format!("{document:#}\n"));
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
    load_by(Config::load, path)
}

pub(super) fn load_by(
    load: fn(&Path, &Environment) -> Result<Config, LoadError>,
    path: &Path,
) -> Result<Config, Box<dyn Failure>> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    load(path, &environment).map_err(|error| {
        if let LoadError::Mistaken(error) = &error {
            eprintln!("{}:", error.path);
            for mistake in &error.mistakes {
                eprintln!("  {mistake}");
            }
        }
        error.into()
    })
}

/// With the end that a signal asks for. That is first of all: a SIGTERM that comes before would be no
/// orderly stop.
pub(super) fn with_shutdown<T>(
    work: impl AsyncFnOnce(Shutdown) -> Result<T, Box<dyn Failure>>,
) -> Result<T, Box<dyn Failure>> {
    within_runtime(async {
        let shutdown = Shutdown::on_signals().expect("signal handlers can be installed");
        work(shutdown).await
    })
}

/// One thread: the loop is one task, and Kafka has its own thread.
fn within_runtime<T>(
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
