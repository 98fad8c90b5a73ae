//! The map for people and programs: a table of text, or JSON.
//!
//! Mappings are written as they come. With paths they are held back in parts of
//! [`PART`], because without parent pointers each part costs one walk through all
//! directories.

use super::{Fsmap, Mapping, Owner, paths};
use crate::shown;
use crate::xfs::read::{ReadError, Result, Source};
use rustc_hash::FxHashMap;
use serde::Serialize;
use std::io::{self, Write};
use std::ops::Range;

/// Mappings whose paths are looked for together.
const PART: usize = 1 << 16;

/// What is wanted of a map.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only what touches these bytes of the device.
    pub range: Option<Range<u64>>,
    /// With the paths of inodes.
    pub paths: bool,
    /// JSON instead of a table.
    pub json: bool,
}

/// What ends the writing of a map.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file system.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output.
    #[error("cannot write the map: {0}")]
    Write(#[from] io::Error),
}

impl From<serde_json::Error> for RunError {
    fn from(error: serde_json::Error) -> Self {
        Self::Write(error.into())
    }
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    mapping: &'a Mapping,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<&'a [String]>,
}

/// Writes the map of `fsmap` to `out`.
///
/// In JSON, one object: `block_size`, `owners_known`, and `mappings` with `start`,
/// `length`, `owner` (a number is an inode), `offset` (all in bytes), the flags, and
/// `paths` of inodes (bytes that are not UTF-8 as `\xNN`, a backslash as `\\`).
///
/// # Errors
/// If the file system is damaged or `out` takes no more.
pub fn run<S: Source>(
    fsmap: &Fsmap<S>,
    options: &Options,
    out: &mut dyn Write,
) -> std::result::Result<(), RunError> {
    let range = options.range.clone().unwrap_or(0..fsmap.size());
    let mut writer = Writer {
        out,
        json: options.json,
        rows: 0,
    };
    writer.begin(fsmap)?;
    let mut part = Vec::new();
    let mut query = fsmap.query(range);
    let mut climber = paths::Climber::new(fsmap.reader());
    loop {
        let most = if options.paths { PART } else { 1 };
        part.extend(query.by_ref().take(most).collect::<Result<Vec<_>>>()?);
        if part.is_empty() {
            break;
        }
        let found = if options.paths {
            find(fsmap, &mut climber, &part)?
        } else {
            Found::default()
        };
        for mapping in &part {
            let paths = match mapping.owner {
                Owner::Inode(ino) => found.get(&ino).map(Vec::as_slice),
                _ => None,
            };
            writer.row(&Row { mapping, paths })?;
        }
        part.clear();
    }
    writer.end()
}

type Found = FxHashMap<u64, Vec<String>>;

/// The paths of all inodes in `part`.
fn find<S: Source>(
    fsmap: &Fsmap<S>,
    climber: &mut paths::Climber<'_, S>,
    part: &[Mapping],
) -> Result<Found> {
    let mut found = Found::default();
    for mapping in part {
        if let Owner::Inode(ino) = mapping.owner {
            found.entry(ino).or_default();
        }
    }
    if fsmap.geometry().features.parent {
        for (ino, list) in &mut found {
            climber.paths(*ino, &mut |path| list.push(shown::path(path)))?;
            list.sort();
        }
    } else if !found.is_empty() {
        let wanted = found.keys().copied().collect();
        paths::search(fsmap.reader(), &wanted, &mut |ino, path| {
            if let Some(list) = found.get_mut(&ino) {
                list.push(shown::path(path));
            }
        })?;
        found.values_mut().for_each(|list| list.sort());
    }
    Ok(found)
}

struct Writer<'w> {
    out: &'w mut dyn Write,
    json: bool,
    rows: u64,
}

type Written = std::result::Result<(), RunError>;

impl Writer<'_> {
    fn begin<S: Source>(&mut self, fsmap: &Fsmap<S>) -> Written {
        let known = fsmap.knows_owners();
        if self.json {
            let size = fsmap.geometry().block_size();
            write!(
                self.out,
                "{{\"block_size\":{size},\"owners_known\":{known},\"mappings\":["
            )?;
            return Ok(());
        }
        if !known {
            let note = "# no reverse mappings (rmapbt) here: only free space is known";
            writeln!(self.out, "{note}")?;
        }
        writeln!(
            self.out,
            "{:>16} {:>16}  {:<20} {:>16}  FLAGS  PATHS",
            "START", "LENGTH", "OWNER", "OFFSET"
        )?;
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) -> Written {
        self.rows += 1;
        if self.json {
            self.out
                .write_all(if self.rows > 1 { b",\n" } else { b"\n" })?;
            serde_json::to_writer(&mut self.out, row)?;
            return Ok(());
        }
        let Row { mapping, paths } = row;
        let owner = match mapping.owner {
            Owner::Inode(ino) => ino.to_string(),
            other => other.name().to_string(),
        };
        let flags = &mapping.flags;
        let letters: String = [
            (flags.attribute_fork, 'a'),
            (flags.extent_map, 'm'),
            (flags.unwritten, 'u'),
            (flags.shared, 's'),
        ]
        .map(|(set, letter)| if set { letter } else { '-' })
        .iter()
        .collect();
        let paths = paths
            .as_ref()
            .map(|paths| paths.join("  "))
            .unwrap_or_default();
        let line = format!(
            "{:>16} {:>16}  {owner:<20} {:>16}  {letters}   {paths}",
            mapping.start, mapping.length, mapping.offset
        );
        writeln!(self.out, "{}", line.trim_end())?;
        Ok(())
    }

    fn end(&mut self) -> Written {
        if self.json {
            writeln!(self.out, "\n]}}")?;
        }
        self.out.flush()?;
        Ok(())
    }
}
