//! What standard output is.

use std::{
    env,
    io::{self, IsTerminal},
    os::fd::AsRawFd,
};

use crate::pipeline::TailStyle;

/// How `tail` shows events there.
pub(super) fn style(json: bool, full: bool) -> TailStyle {
    if json {
        return TailStyle::Envelopes;
    }
    let has_colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
        && io::stdout().is_terminal();
    TailStyle::Lines { columns: if full { None } else { columns() }, has_colours }
}

/// How wide the terminal is; none where it is none.
fn columns() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one `winsize`, and there is one.
    let asked = unsafe { libc::ioctl(io::stdout().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    // Some terminals do not know, and say 0.
    (asked == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}
