//! Bytes, for people.

/// In the unit that makes it short.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.),
    }
}
