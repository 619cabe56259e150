//! The `tailwater` program.

use std::process::ExitCode;

/// Takes the place of the C library's allocator in librdkafka too: each record costs it a dozen
/// small allocations that one thread makes and another frees, for which glibc took a third of all
/// CPU time (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tailwater::cli::main()
}
