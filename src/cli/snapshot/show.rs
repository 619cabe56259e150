//! How far it is: a bar on a terminal, a line now and then elsewhere, or JSON.

use std::{
    fmt::Write,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::time::Instant;

use super::Showing;
use crate::pipeline::{Blocker, SnapshotProgress};

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

const WITH_ESTIMATE: &str = "{msg} {wide_bar} {percent:>3} %  {human_pos} of about {human_len} rows  \
    {pace}  {eta} left";
const WITHOUT: &str = "{spinner} {msg}  {human_pos} rows  {pace}  {elapsed}";

/// Where it is shown.
enum Surface {
    Bar(ProgressBar),
    Lines { written_at: Instant, rows: u64 },
    Json { last: Option<String> },
}

/// Shows it.
pub(super) struct Show {
    surface: Surface,
    began: Instant,
    request: String,
    /// What was said last, so that it is said once.
    said: Option<String>,
    /// For whom it waits, as was said.
    waits_for: Vec<Blocker>,
}

impl Show {
    pub(super) fn begin(progress: &SnapshotProgress, is_known: bool, showing: Showing) -> Self {
        let now = Instant::now();
        let surface = match (showing.json, stderr().is_terminal() && !showing.detach) {
            (true, _) => Surface::Json { last: None },
            (false, true) => Surface::Bar(bar(progress)),
            (false, false) => Surface::Lines { written_at: now, rows: progress.rows },
        };
        let request = progress.request.clone();
        let mut show = Self { surface, began: now, request, said: None, waits_for: Vec::new() };
        let words = match is_known {
            true => format!(
                "{} is under way already, as request {}: {} rows are out",
                what(progress),
                progress.request,
                progress.rows
            ),
            false => format!("{} is accepted, as request {}", what(progress), progress.request),
        };
        match &show.surface {
            Surface::Json { .. } => show.update(progress),
            Surface::Lines { .. } if showing.detach => println!("{words}"),
            Surface::Lines { .. } | Surface::Bar(_) => show.say(&words),
        }
        show
    }

    /// How far it is by now.
    pub(super) fn update(&mut self, progress: &SnapshotProgress) {
        self.said = None;
        if self.request != progress.request {
            self.request.clone_from(&progress.request);
            self.say(&format!(
                "all rows come again from the first one on, as request {}: the daemon's log says why",
                progress.request
            ));
            self.said = None;
        }
        let unsaid = |blocker: &&Blocker| !self.waits_for.contains(blocker);
        let unsaid: Vec<Blocker> = progress.waits_for.iter().filter(unsaid).cloned().collect();
        if let Some(waiting) = waiting(&unsaid).filter(|_| !self.is_json()) {
            self.say(&format!("{} {waiting}", what(progress)));
        }
        self.waits_for.extend(unsaid);
        match &mut self.surface {
            Surface::Bar(bar) => {
                style(bar, progress);
                bar.set_position(progress.rows);
            }
            Surface::Lines { written_at, rows } => {
                let elapsed = written_at.elapsed();
                if elapsed >= LINE_INTERVAL {
                    let new = progress.rows.saturating_sub(*rows) as f64;
                    eprintln!("{}", line(progress, new / elapsed.as_secs_f64()));
                    (*written_at, *rows) = (Instant::now(), progress.rows);
                }
            }
            Surface::Json { last } => {
                let text = json(progress);
                if last.as_ref() != Some(&text) {
                    println!("{text}");
                    *last = Some(text);
                }
            }
        }
    }

    /// Says something, once in a row.
    pub(super) fn say(&mut self, words: &str) {
        if self.said.as_deref() == Some(words) {
            return;
        }
        self.said = Some(words.to_owned());
        match &self.surface {
            Surface::Bar(bar) => bar.println(words),
            Surface::Lines { .. } | Surface::Json { .. } => eprintln!("{words}"),
        }
    }

    /// Nothing more is shown.
    pub(super) fn end(&self) {
        if let Surface::Bar(bar) = &self.surface {
            bar.finish_and_clear();
        }
    }

    fn is_json(&self) -> bool {
        matches!(self.surface, Surface::Json { .. })
    }

    /// It is over.
    pub(super) fn finish(&self, progress: &SnapshotProgress) {
        self.end();
        if !self.is_json() && progress.failure.is_none() {
            let seconds = self.began.elapsed().as_secs_f64();
            println!("{} is done: {} rows, {seconds:.1} s", what(progress), progress.rows);
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.end();
    }
}

/// As a line of JSON.
pub(super) fn json(progress: &SnapshotProgress) -> String {
    serde_json::to_string(progress).expect("texts and numbers always encode")
}

/// For whom it waits, in words; none where it waits for nobody.
pub(super) fn waiting(waits_for: &[Blocker]) -> Option<String> {
    let names: Vec<String> = waits_for.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("waits for the end of {}", names.join(", ")))
}

fn what(progress: &SnapshotProgress) -> String {
    match &progress.condition {
        None => format!("the back-fill of {}", progress.table),
        Some(condition) => format!("the back-fill of {} where {condition}", progress.table),
    }
}

/// A bar that begins with the rows that are out: its pace is that of what comes.
fn bar(progress: &SnapshotProgress) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    let bar = bar.with_position(progress.rows).with_message(progress.table.clone());
    bar.reset_eta();
    style(&bar, progress);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// An estimate is known by and by, and is none where more rows are out.
fn style(bar: &ProgressBar, progress: &SnapshotProgress) {
    let estimate = known_estimate(progress);
    if bar.length() == estimate && estimate.is_some() {
        return;
    }
    match estimate {
        Some(rows) => bar.set_length(rows),
        None => bar.unset_length(),
    }
    let template = if estimate.is_some() { WITH_ESTIMATE } else { WITHOUT };
    let pace = |state: &ProgressState, text: &mut dyn Write| {
        // Into memory.
        let _ = write!(text, "{:.0} rows/s", state.per_sec());
    };
    bar.set_style(
        ProgressStyle::with_template(template).expect("a template").with_key("pace", pace),
    );
}

/// More than there should be: nobody knows how many more.
fn known_estimate(progress: &SnapshotProgress) -> Option<u64> {
    progress.estimate.filter(|estimate| *estimate > progress.rows)
}

fn line(progress: &SnapshotProgress, rows_per_second: f64) -> String {
    let SnapshotProgress { table, rows, outstanding, .. } = progress;
    let mut text = format!("{table}: {rows} rows");
    let left = known_estimate(progress).map(|estimate| (estimate, (estimate - rows) as f64));
    if let Some((estimate, _)) = left {
        let percent = 100. * *rows as f64 / estimate as f64;
        text.push_str(&format!(" of about {estimate} ({percent:.0} %)"));
    }
    text.push_str(&format!(", {rows_per_second:.0} rows/s"));
    if let Some((_, left)) = left.filter(|_| rows_per_second > 0.) {
        text.push_str(&format!(", {:.0} s left", left / rows_per_second));
    }
    if *outstanding > 0 {
        text.push_str(&format!(", {outstanding} that were changed meanwhile are looked for"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::SnapshotProgress;

    fn progress(rows: u64, estimate: Option<u64>, outstanding: usize) -> SnapshotProgress {
        serde_json::from_value(serde_json::json!({
            "request": "r", "table": "public.orders", "where": null, "state": "running",
            "failure": null, "rows": rows, "estimate": estimate, "outstanding": outstanding,
            "requested_at": "a", "written_at": "b",
        }))
        .expect("progress")
    }

    #[test]
    fn a_line_says_what_is_known() {
        for (progress, pace, expected) in [
            (
                progress(250, Some(1_000), 0),
                50.,
                "public.orders: 250 rows of about 1000 (25 %), 50 rows/s, 15 s left",
            ),
            (
                progress(250, Some(1_000), 0),
                0.,
                "public.orders: 250 rows of about 1000 (25 %), 0 rows/s",
            ),
            (progress(1_200, Some(1_000), 0), 50., "public.orders: 1200 rows, 50 rows/s"),
            (
                progress(7, None, 2),
                1.,
                "public.orders: 7 rows, 1 rows/s, 2 that were changed meanwhile are looked for",
            ),
        ] {
            assert_eq!(line(&progress, pace), expected);
        }
    }

    #[test]
    fn templates_of_the_bar_can_be_read() {
        for template in [WITH_ESTIMATE, WITHOUT] {
            ProgressStyle::with_template(template).expect(template);
        }
    }
}
