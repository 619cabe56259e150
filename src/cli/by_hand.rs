//! The commands that write a checkpoint by hand: what they say, and how they ask.

use std::{
    io::{IsTerminal as _, Write as _, stdin},
    path::Path,
};

use tokio::task::spawn_blocking;

use super::{
    arguments::Answer,
    commands::{load, with_shutdown},
    size::size,
};
use crate::{
    failure::Failure,
    pipeline::{
        self, Act, Adoption, Amendment, NotConfirmed, Reset, RowReset, Settings, SnapshotState,
        TakenOverTable,
    },
    telemetry,
};

/// `init --adopt-slot`
pub(super) fn adopt_slot(path: &Path, answer: Answer) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    telemetry::start_logging(&config.log);
    let settings = &config.pipeline;
    let ended = with_shutdown(async |shutdown| {
        let confirm = async |amendment: &Amendment| confirm(amendment, answer).await;
        pipeline::adopt_slot(settings, &shutdown, confirm).await
    })?;
    match ended {
        Some(Adoption::Nothing(checkpoint)) if !answer.json => {
            println!("nothing to adopt: the slot has a checkpoint of this source.");
            print_checkpoint(settings, checkpoint.commit_end_lsn, false);
        }
        Some(Adoption::Nothing(checkpoint)) => {
            print_checkpoint(settings, checkpoint.commit_end_lsn, true);
        }
        Some(Adoption::Adopted(amendment)) => print_outcome(&amendment, answer),
        None => eprintln!("stopped before it was done: nothing was changed."),
    }
    Ok(())
}

/// `reset`
pub(super) fn reset(path: &Path, how: Reset, answer: Answer) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    telemetry::start_logging(&config.log);
    let ended = with_shutdown(async |shutdown| {
        let confirm = async |amendment: &Amendment| confirm(amendment, answer).await;
        pipeline::reset(&config.pipeline, &shutdown, how, confirm).await
    })?;
    match ended {
        Some(amendment) => print_outcome(&amendment, answer),
        None => eprintln!("stopped before it was done: nothing was changed."),
    }
    Ok(())
}

/// `reset --snapshot`
pub(super) fn reset_rows(path: &Path, table: &str, answer: Answer) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    telemetry::start_logging(&config.log);
    let ended = with_shutdown(async |shutdown| {
        let confirm = async |reset: &RowReset| ask(&rows_in_words(reset), answer).await;
        pipeline::reset_rows(&config.pipeline, &shutdown, table, confirm).await
    })?;
    match ended {
        Some(reset) if answer.json => {
            println!("{}", serde_json::to_string(&reset).expect("texts and numbers always encode"));
        }
        Some(reset) => {
            println!("done: the rows of {} are due; start `tailwater run`.", reset.table);
        }
        None => eprintln!("stopped before it was done: nothing was changed."),
    }
    Ok(())
}

fn rows_in_words(reset: &RowReset) -> String {
    let RowReset { table, slot, repeated_rows, .. } = reset;
    let how_far = match (reset.state, &reset.failure) {
        (None, _) => "none was ever asked for".to_owned(),
        (Some(SnapshotState::Due), _) => "none is out yet".to_owned(),
        (Some(SnapshotState::Running), _) => {
            format!("{repeated_rows} are known to be out, and others may be")
        }
        (Some(SnapshotState::Done), _) => format!("all are out, {repeated_rows} of them"),
        (Some(SnapshotState::Failed), reason) => format!(
            "{repeated_rows} are out, and the rest never came: {}",
            reason.as_deref().unwrap_or("nobody said why")
        ),
    };
    format!(
        "All rows that {table} has are published anew for slot \"{slot}\"; of those that it had, \
         {how_far}.\n  doubled: {repeated_rows} rows come again, under other ids\n"
    )
}

/// `init --take-over`
pub(super) fn take_over(
    path: &Path,
    table: &str,
    condition: &str,
    answer: Answer,
) -> Result<(), Box<dyn Failure>> {
    let config = load(path)?;
    telemetry::start_logging(&config.log);
    let ended = with_shutdown(async |shutdown| {
        pipeline::take_over(&config.pipeline, &shutdown, table, condition).await
    })?;
    let Some(taken_over) = ended else {
        eprintln!("stopped before it was done; run it again: it goes on with what is not yet out.");
        return Ok(());
    };
    let TakenOverTable { changed, table, rows, commit_end_lsn } = &taken_over;
    if answer.json {
        println!(
            "{}",
            serde_json::to_string(&taken_over).expect("texts and numbers always encode")
        );
    } else if *changed {
        println!("took over {table}: {rows} rows that waited are published.");
        println!("`tailwater run` publishes what is committed after {commit_end_lsn}.");
    } else {
        println!("nothing to do: {table} was taken over, with {rows} rows.");
    }
    Ok(())
}

/// What `init` leaves behind.
pub(super) fn print_checkpoint(settings: &Settings, position: impl ToString, json: bool) {
    let (publication, slot) = (settings.publication.to_string(), settings.slot.to_string());
    let (position, topic) = (position.to_string(), &settings.kafka.checkpoint_topic);
    if json {
        let answer = serde_json::json!({
            "publication": publication,
            "slot": slot,
            "commit_end_lsn": position,
            "checkpoint_topic": topic,
        });
        println!("{answer}");
        return;
    }
    println!("publication   {publication}");
    println!("slot          {slot}");
    println!("checkpoint    {position} in {topic}");
    println!("`tailwater run` publishes what is committed after it.");
}

fn print_outcome(amendment: &Amendment, answer: Answer) {
    if answer.json {
        println!("{}", serde_json::to_string(amendment).expect("texts and numbers always encode"));
    } else if amendment.changed {
        println!("done: the checkpoint is at {}; start `tailwater run`.", amendment.to_lsn);
    } else {
        println!("nothing to do: the checkpoint is at {}.", amendment.to_lsn);
    }
}

/// Says what would be done, and asks.
async fn confirm(amendment: &Amendment, answer: Answer) -> Result<(), Box<dyn Failure>> {
    ask(&in_words(amendment), answer).await
}

async fn ask(words: &str, answer: Answer) -> Result<(), Box<dyn Failure>> {
    eprint!("{words}");
    if answer.yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(NotConfirmed::NobodyToAsk.into());
    }
    eprint!("Go on? [yes/no] ");
    // A prompt that cannot be written is asked all the same.
    let _ = std::io::stderr().flush();
    let read = spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    match read.await {
        Ok(Ok(line)) if matches!(line.trim(), "y" | "yes") => Ok(()),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(NotConfirmed::Declined.into()),
    }
}

fn in_words(amendment: &Amendment) -> String {
    let Amendment { slot, source, to_lsn, confirmed_flush_lsn, .. } = amendment;
    let former = amendment.from_lsn.map(|lsn| lsn.to_string()).unwrap_or_default();
    let mut text = match amendment.act {
        Act::AdoptSlot => format!(
            "Slot \"{slot}\" has no checkpoint. {source} goes on at its position {to_lsn}: what was \
             committed behind it is published, also what was published before; what lies below it \
             is not.\n"
        ),
        Act::RenameSource => format!(
            "The checkpoint of slot \"{slot}\" at {to_lsn} is of source \"{}\". It becomes that of \
             \"{source}\"; nothing is skipped and nothing doubled.\n",
            amendment.former_source.as_deref().unwrap_or_default()
        ),
        Act::ToSlot | Act::ToNow => format!(
            "The checkpoint of slot \"{slot}\" moves from {former} to {to_lsn}; the slot is at \
             {confirmed_flush_lsn}.\n"
        ),
        Act::ReplayTransaction => {
            format!("The checkpoint of slot \"{slot}\" stays at {to_lsn}.\n")
        }
    };
    let mut line = |line: String| text.push_str(&format!("  {line}\n"));
    if let (Some(written_at), Some(from)) = (&amendment.from_written_at, amendment.from_lsn) {
        let last = amendment.from_committed_at.as_ref();
        let last = last.map_or(String::new(), |at| {
            format!("; the last transaction below it was committed {at}")
        });
        line(format!("the checkpoint at {from} was written {written_at}{last}"));
    }
    if amendment.skipped_bytes > 0 {
        line(format!(
            "skipped: {} of WAL, from {former} to {to_lsn}; what was committed there and is not on \
             Kafka yet is never published",
            size(amendment.skipped_bytes)
        ));
    }
    if amendment.repeated_bytes > 0 {
        line(format!(
            "doubled: what was committed in {} of WAL, from {to_lsn} to {former}, is published \
             again",
            size(amendment.repeated_bytes)
        ));
    }
    if amendment.repeated_events > 0 {
        line(format!(
            "doubled: {} events of the transaction that is out in part are published again, where \
             the server still sends it; where it does not, they stay, and the others never come",
            amendment.repeated_events
        ));
    }
    if amendment.torn_events > 0 {
        line(format!(
            "torn: of a transaction {} events are on Kafka, and its others never will be",
            amendment.torn_events
        ));
    }
    text
}
