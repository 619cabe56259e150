//! Headers of a record: how long and how many.

/// The longest name of a header, in bytes. A batch writes a name's length in 16 bits.
pub const HEADER_NAME_BYTES_MAX: usize = 65_535;

/// The most headers that the settings may add to a table's records: no table has many more columns.
pub const CONFIGURED_HEADERS_MAX: usize = 1_000;

/// The most headers that a row may bring along, those of the settings included. A record counts its
/// headers in 16 bits; what is left is for Tailwater's own.
pub const EXTRA_HEADERS_MAX: usize = 65_000;
