//! PostgreSQL's data folders. initdb, which takes a second of CPU, runs once for a process and version;
//! a server gets a copy under an identifier of its own: the checkpoints of servers that share a broker
//! would be one otherwise.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use super::{new_folder, postgres, process::Account};

/// Where `system_identifier` is in `pg_control` (`ControlFileData`): it is the first field.
const IDENTIFIER_IN_CONTROL: usize = 0;

/// Where `xlp_sysid` is in the first page of a segment (`XLogLongPageHeaderData`).
const IDENTIFIER_IN_SEGMENT: usize = 24;

/// Makes a data folder by the programs in that folder, where nothing is yet.
pub fn make(binaries: &Path, data: &Path) {
    copy(&template(binaries), data);
    let identifier = fastrand::u64(1 << 62..1 << 63);
    change(&data.join("global/pg_control"), |control| {
        let end = checksum_offset(control);
        put(control, IDENTIFIER_IN_CONTROL, identifier);
        let checksum = crc32c(&control[..end]);
        control[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
    });
    let entries = fs::read_dir(data.join("pg_wal")).expect("a folder").flatten();
    // Its folders are for what a server does later.
    for segment in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
        change(&segment, |segment| put(segment, IDENTIFIER_IN_SEGMENT, identifier));
    }
}

/// Copies a folder with its owner and rights, without which a server does not start.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp starts").success(), "cp");
}

/// What initdb makes, once for these programs.
fn template(binaries: &Path) -> PathBuf {
    static MADE: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let template = made.entry(binaries.to_owned()).or_insert_with(|| {
        let folder = new_folder("initdb");
        Account::give(Account::of_servers(), &folder);
        let data = folder.join("data");
        let output = postgres::program(binaries, "initdb", &data)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .expect("initdb starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        data
    });
    template.clone()
}

fn change(path: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

fn put(bytes: &mut [u8], offset: usize, identifier: u64) {
    bytes[offset..offset + 8].copy_from_slice(&identifier.to_le_bytes());
}

/// Where the checksum of all that is before it stands. It is the last field, and each version has other
/// fields before it.
fn checksum_offset(control: &[u8]) -> usize {
    let is_checksum =
        |offset: &usize| control[*offset..*offset + 4] == crc32c(&control[..*offset]).to_le_bytes();
    (8..512).step_by(4).find(is_checksum).expect("pg_control has its checksum")
}

/// Castagnoli's, as PostgreSQL computes it (`COMP_CRC32C`).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    })
}
