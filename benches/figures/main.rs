//! The figures of docs/benchmarks.md: both sides of each ratio are measured in one run, in turns,
//! against a real PostgreSQL and a real Apache Kafka. Run by `make bench`.

#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "the tests' servers, of which figures need a part")]
mod support;

mod drain;
mod latency;
mod process_times;
mod snapshot;
mod start;

/// Both guarantees, as settings have them.
const DELIVERIES: [&str; 2] = ["exactly-once", "at-least-once"];

/// Prints a table's row.
fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// The middle one; of an even number the lower of both.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len().saturating_sub(1) / 2;
    numbers.get(middle).copied().unwrap_or(f64::NAN)
}

fn number_of(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    println!("{}\n", jiff::Timestamp::now());
    // 0 leaves one out.
    match number_of("ROUNDS", 3) {
        0 => {}
        rounds => drain::measure(number_of("ROWS", 1_000_000), rounds),
    }
    match number_of("SNAPSHOT_ROUNDS", 3) {
        0 => {}
        rounds => snapshot::measure(number_of("SNAPSHOT_ROWS", 5_000_000), rounds),
    }
    match number_of("SECONDS", 30) {
        0 => {}
        seconds => latency::measure(seconds),
    }
    match number_of("BACK_FILL_SECONDS", 30) {
        0 => {}
        seconds => latency::measure_beside(seconds),
    }
    match number_of("STARTS", 7) {
        0 => {}
        starts => start::measure(starts),
    }
}
