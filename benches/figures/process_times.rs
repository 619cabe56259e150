//! CPU time and memory of processes, as /proc has them.

use std::fs;

/// User and system time so far, in seconds; 0 where the process is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold blanks.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> =
        fields.split_whitespace().map(|field| field.parse().unwrap_or(0.)).collect();
    let ticks = fields.get(11).unwrap_or(&0.) + fields.get(12).unwrap_or(&0.);
    // SAFETY: sysconf reads a constant.
    ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}
