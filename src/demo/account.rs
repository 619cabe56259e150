//! Whom the throwaway PostgreSQL runs as.

use std::{ffi::CStr, mem::MaybeUninit, ptr};

/// Whom it runs as where there is no user `postgres`: nobody, on every Linux.
const NOBODY: Account = Account { user: 65_534, group: 65_534 };

/// Enough for any entry of the user database.
const ENTRY_BYTES: usize = 16 * 1024;

/// A user and its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Account {
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Account {
    /// The user to change to: PostgreSQL refuses to run as root. None where we are not root.
    pub(super) fn instead_of_root() -> Option<Self> {
        // SAFETY: reads this process's user.
        let is_root = unsafe { libc::geteuid() } == 0;
        is_root.then(|| Self::named(c"postgres").unwrap_or(NOBODY))
    }

    fn named(name: &CStr) -> Option<Self> {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut texts = vec![0; ENTRY_BYTES];
        let mut found = ptr::null_mut();
        // SAFETY: all pointers are to memory of ours that outlives the call, and the length is
        // that of `texts`.
        let code = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                texts.as_mut_ptr(),
                texts.len(),
                &raw mut found,
            )
        };
        if code != 0 || found.is_null() {
            return None;
        }
        // SAFETY: the call succeeded and found an entry, so it has written all of it.
        let entry = unsafe { entry.assume_init() };
        Some(Self { user: entry.pw_uid, group: entry.pw_gid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_nonsense_is_not() {
        assert_eq!(Account::named(c"root"), Some(Account { user: 0, group: 0 }));
        assert_eq!(Account::named(c"no such user"), None);
    }
}
