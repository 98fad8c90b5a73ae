//! How results look: tables for people, tab-separated columns for pipes, JSON for
//! programs. What each kind of row shows is in [`columns`].

pub mod columns;
pub mod human;
pub mod table;

use crate::cli::Common;

/// Version of the JSON that `--json` prints. Raised when a program reading the
/// older one would be misled; new fields do not raise it.
pub const SCHEMA: u32 = 1;

/// How results are printed.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// JSON instead of a table.
    pub json: bool,
    /// These fields only; all default ones when empty.
    pub fields: Vec<String>,
    /// Exact bytes.
    pub bytes: bool,
    /// Without the header.
    pub no_header: bool,
    /// Aligned columns with a bold header; tab-separated ones otherwise.
    pub terminal: bool,
}

impl Style {
    /// The style the options ask for.
    #[must_use]
    pub fn of(common: &Common, terminal: bool) -> Self {
        Self {
            json: common.json,
            fields: common.output.clone(),
            bytes: common.bytes,
            no_header: common.no_header,
            terminal,
        }
    }
}
