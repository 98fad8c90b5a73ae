//! The digests of files, found by several threads, which keep the files in a store as well.

use super::ComposefsError;
use super::store::{Store, source_failed};
use super::tree::{Digest, Number};
use crate::medium::{Buffer, Failure};
use crate::tree::{Bytes, Content, written};
use crate::verity::{Algorithm, fs::Meter};
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a file that are read at a time.
const PIECE: usize = 1 << 20;

/// A file to be hashed.
pub(super) struct Job {
    pub(super) object: Number,
    pub(super) content: Content,
}

/// What the threads found.
#[derive(Default)]
pub(super) struct Shared {
    digests: Mutex<Vec<(Number, Digest)>>,
    failure: Mutex<Option<ComposefsError>>,
}

impl Shared {
    /// What went wrong, if something did.
    pub(super) fn failure(&self) -> Option<ComposefsError> {
        self.failure.lock().take()
    }

    /// All digests, or why there are none.
    pub(super) fn finish(self) -> Result<Vec<(Number, Digest)>, ComposefsError> {
        match self.failure.into_inner() {
            Some(failure) => Err(failure),
            None => Ok(self.digests.into_inner()),
        }
    }
}

/// Takes files until no more come.
pub(super) fn serve(work: &Receiver<Job>, shared: &Shared, store: Option<&Store>) {
    let mut buffer = store.map(|_| Buffer::new());
    let mut piece = Vec::new();
    for Job { object, content } in work {
        // After a failure jobs are only taken, so that nobody waits.
        if shared.failure.lock().is_some() {
            continue;
        }
        let done = digest(&content, &mut piece).and_then(|digest| {
            if let (Some(store), Some(buffer)) = (store, &mut buffer) {
                store.keep(&digest, &content, buffer)?;
            }
            shared.digests.lock().push((object, digest));
            Ok(())
        });
        if let Err(failure) = done {
            shared.failure.lock().get_or_insert(failure);
        }
    }
}

/// The fs-verity digest of contents.
fn digest(content: &Content, piece: &mut Vec<u8>) -> Result<Digest, ComposefsError> {
    let mut meter = Meter::new(Algorithm::Sha256);
    let mut at = 0;
    let mut before = 0;
    for (number, range) in content.data.iter().enumerate() {
        meter.zeroes(range.start.saturating_sub(at));
        let length = range.end - range.start;
        match &content.bytes {
            Bytes::Unread => meter.zeroes(length),
            Bytes::Read(bytes) => {
                let end = before + length as usize;
                meter.update(bytes.get(before..end).unwrap_or_default());
                before = end;
            }
            Bytes::At {
                file,
                path,
                offsets,
                ..
            } => {
                let from = offsets.get(number).copied().unwrap_or_default();
                hash_file(&mut meter, file, path, from, length, piece)?;
            }
        }
        at = range.end;
    }
    meter.zeroes(content.size.saturating_sub(at));
    if let Bytes::At {
        file,
        path,
        written: Some(when),
        ..
    } = &content.bytes
        && written(file).ok() != Some(*when)
    {
        let path = Arc::clone(path);
        return Err(source_failed(Failure::Changed { path }));
    }
    let hash = meter.finish();
    Ok(Digest::try_from(hash.bytes()).unwrap_or_default())
}

fn hash_file(
    meter: &mut Meter,
    file: &File,
    path: &Arc<[u8]>,
    from: u64,
    length: u64,
    piece: &mut Vec<u8>,
) -> Result<(), ComposefsError> {
    piece.resize(PIECE, 0);
    let mut done = 0;
    while done < length {
        let now = (length - done).min(PIECE as u64) as usize;
        let room = piece.get_mut(..now).unwrap_or_default();
        file.read_exact_at(room, from + done).map_err(|cause| {
            let cause = (cause.kind() != ErrorKind::UnexpectedEof).then_some(cause);
            let path = Arc::clone(path);
            source_failed(Failure::Copy { path, cause })
        })?;
        meter.update(room);
        done += now as u64;
    }
    Ok(())
}
