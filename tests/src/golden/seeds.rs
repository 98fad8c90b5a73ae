//! Golden stores taken apart: what the fuzz targets of `fuzz/` begin with, one
//! directory per target.

use std::fs;
use std::path::Path;

use snapstore::format::{HEADER_LEN, Kind, header};
use snapstore::{BLOCK_SIZE, Block};

use super::{GoldenError, all, file};

/// Bytes of a journal block before its records.
const RECORDS: usize = HEADER_LEN + 32;
/// Most bytes of one change.
const LONGEST: usize = u8::MAX as usize;
/// What the target `store` does: seals, chains, attaches the origins.
const EVERYTHING: u8 = 7;

/// Writes every metadata block of every golden store below `dir`.
///
/// # Errors
/// If a golden store cannot be read or a file not written.
pub fn write(dir: &Path) -> Result<(), GoldenError> {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let dir = dir.join(target);
        let path = dir.join(format!("golden-{}", name.replace('/', "-")));
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|error| file(&path, error))
    };
    for (index, golden) in (0u8..).zip(all()?) {
        put("store", &golden.name, &[index, EVERYTHING])?;
        for at in golden.store.written() {
            let block = golden.store.get(at);
            let name = format!("{}-{at}", golden.name);
            let Some(target) = target(&block) else {
                continue;
            };
            if target == "bitmap" {
                put(target, &name, &changes(&block))?;
                continue;
            }
            put(target, &name, without_zeroes(&block.0))?;
            if target == "journal" {
                let records = block.0.get(RECORDS..).unwrap_or_default();
                put("tables", &name, without_zeroes(records))?;
            }
        }
    }
    Ok(())
}

/// Which target reads such a block.
fn target(block: &Block) -> Option<&'static str> {
    match header(block).kind()? {
        Kind::Superblock => Some("superblock"),
        Kind::Journal => Some("journal"),
        Kind::BitmapPage => Some("bitmap"),
        Kind::BitmapDirectory => None,
        Kind::ExceptionNode
        | Kind::EraNode
        | Kind::VolumeNode
        | Kind::SnapshotNode
        | Kind::SharingNode => Some("node"),
    }
}

/// A page of a bitmap as changes of the image that the target makes itself: what is not
/// zero behind the header goes into its second block, the first page.
fn changes(page: &Block) -> Vec<u8> {
    let body = page.0.get(HEADER_LEN..).unwrap_or_default();
    let places = (HEADER_LEN as u16..).step_by(LONGEST);
    let mut changes = Vec::new();
    for (at, piece) in places.zip(body.chunks(LONGEST)) {
        if piece.iter().any(|byte| *byte != 0) {
            changes.extend(1u16.to_le_bytes());
            changes.extend(at.to_le_bytes());
            changes.push(piece.len() as u8);
            changes.extend(piece);
        }
    }
    changes
}

/// Whole words: a record ends with its padding.
fn without_zeroes(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes
        .get(..end.next_multiple_of(8).min(BLOCK_SIZE))
        .unwrap_or(bytes)
}
