//! An object store: files under their fs-verity digests, `xx/yyyy...`.
//!
//! What is new is made in a hidden directory of the store, and gets its name when all of it
//! is whole (and on stable storage): nobody ever sees a part of an object, and after a crash
//! there is none. A process that is killed leaves the hidden directory behind, `.new-*`,
//! which the next one removes that writes to the store: only the living hold theirs locked.
//!
//! (Files without names would need an open descriptor for each object, or more than one sync
//! for all.)

use super::ComposefsError;
use super::tree::{Digest, object_path};
use crate::medium::{Buffer, Copy, Failure, Medium, Part};
use crate::target::{Overwrite, Target};
use crate::tree::{Bytes, Content, TreeError};
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Everybody may read an object.
const MODE: u32 = 0o644;

/// What the names of hidden directories begin with.
const HIDDEN: &str = ".new-";

/// A store that is being filled.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Where new objects wait, called by their paths with a dash for the slash.
    waiting: TempDir,
    /// The same directory, locked as long as somebody writes to it.
    _held: File,
    /// Which ones do.
    new: Mutex<FxHashSet<Digest>>,
}

impl Store {
    /// The store in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn open(dir: &Path) -> Result<Self, ComposefsError> {
        fs::create_dir_all(dir).map_err(failed(dir, "make it"))?;
        sweep(dir);
        let (waiting, held) = hidden(dir).map_err(failed(dir, "make a directory in it"))?;
        Ok(Self {
            dir: dir.to_owned(),
            waiting,
            _held: held,
            new: Mutex::default(),
        })
    }

    /// Keeps contents of that digest, unless they are there; shared with their source by the
    /// file system where it can, and with their holes. `buffer` holds what is read meanwhile.
    pub(super) fn keep(
        &self,
        digest: &Digest,
        content: &Content,
        buffer: &mut Buffer,
    ) -> Result<(), ComposefsError> {
        let path = object_path(digest);
        let object = self.dir.join(&path);
        match fs::metadata(&object) {
            Ok(there) if there.is_file() && there.len() == content.size => return Ok(()),
            Ok(_) => return Err(ComposefsError::Object { path: object }),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(failed(&object, "look at it")(cause)),
        }
        if !self.new.lock().insert(*digest) {
            return Ok(());
        }
        let waiting = self.waiting(&path);
        let target = Target::create(&waiting, content.size, Overwrite::Refuse)?;
        fill(&target, content, buffer).map_err(|failure| match failure {
            Failure::Write(cause) => failed(&waiting, "write it")(cause),
            failure => source_failed(failure),
        })?;
        target.finish(false)?;
        fs::set_permissions(&waiting, Permissions::from_mode(MODE))
            .map_err(failed(&waiting, "let everybody read it"))
    }

    fn waiting(&self, path: &str) -> PathBuf {
        self.waiting.path().join(path.replace('/', "-"))
    }

    /// Gives all new objects their names; with `sync` they are on stable storage before, and
    /// their names when this returns. How many they are.
    ///
    /// # Errors
    /// If that fails; objects that have their names by then keep them.
    pub fn finish(self, sync: bool) -> Result<u64, ComposefsError> {
        let new: Vec<Digest> = std::mem::take(&mut *self.new.lock()).into_iter().collect();
        if new.is_empty() {
            return Ok(0);
        }
        self.sync(sync)?;
        for digest in &new {
            let path = object_path(digest);
            let object = self.dir.join(&path);
            if let Some(parent) = object.parent() {
                match fs::create_dir(parent) {
                    Err(cause) if cause.kind() != ErrorKind::AlreadyExists => {
                        return Err(failed(parent, "make it")(cause));
                    }
                    _ => {}
                }
            }
            // Somebody else's of the same name has the same contents.
            fs::rename(self.waiting(&path), &object).map_err(failed(&object, "name it"))?;
        }
        self.sync(sync)?;
        Ok(new.len() as u64)
    }

    /// Waits for all of the file system: far less than to wait for every object.
    fn sync(&self, sync: bool) -> Result<(), ComposefsError> {
        if !sync {
            return Ok(());
        }
        let synced =
            File::open(&self.dir).and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from));
        synced.map_err(failed(&self.dir, "make it durable"))
    }
}

/// Removes hidden directories of processes that are gone, as far as it can: none is in the
/// way of anybody.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_hidden = entry.file_name().to_string_lossy().starts_with(HIDDEN);
        if !is_hidden || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(left) = File::open(entry.path()) else {
            continue;
        };
        if flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes a hidden directory that is locked.
fn hidden(dir: &Path) -> io::Result<(TempDir, File)> {
    loop {
        let waiting = tempfile::Builder::new().prefix(HIDDEN).tempdir_in(dir)?;
        // Before it is locked somebody may take it for one that was left.
        let held = match File::open(waiting.path()) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
            opened => opened?,
        };
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            Ok(()) if !waiting.path().is_dir() => {}
            // Where nothing can be locked, nobody removes what is not his either.
            _ => return Ok((waiting, held)),
        }
    }
}

/// Writes the data of a file into `target`, which is all hole yet.
fn fill(target: &Target, content: &Content, buffer: &mut Buffer) -> Result<(), Failure> {
    match &content.bytes {
        Bytes::Unread => Ok(()),
        Bytes::Read(bytes) => {
            let mut rest = &bytes[..];
            for range in &content.data {
                let length = ((range.end - range.start) as usize).min(rest.len());
                let (now, later) = rest.split_at(length);
                target.write(range.start, now).map_err(Failure::Write)?;
                rest = later;
            }
            Ok(())
        }
        Bytes::At {
            file,
            path,
            offsets,
            written,
        } => {
            let parts = content.data.iter().zip(offsets);
            let copy = Copy {
                file: Arc::clone(file),
                path: Arc::clone(path),
                parts: parts
                    .map(|(range, from)| Part {
                        at: range.start,
                        length: range.end - range.start,
                        from: Some(*from),
                    })
                    .collect(),
                written: *written,
            };
            buffer.start(0);
            copy.carry_out(target, buffer)
        }
    }
}

/// That contents could not be read.
pub(super) fn source_failed(failure: Failure) -> ComposefsError {
    let error = match failure {
        Failure::Changed { path } => TreeError::changed(&path, "its contents"),
        Failure::Copy { path, cause: None } => TreeError::changed(&path, "it shrank"),
        Failure::Copy {
            path,
            cause: Some(cause),
        } => TreeError::io(&path, "read", cause),
        Failure::Write(cause) => TreeError::io(b"contents", "read", cause),
    };
    error.into()
}

fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> ComposefsError {
    let path = path.to_owned();
    move |cause| ComposefsError::Store {
        path: path.clone(),
        action,
        cause,
    }
}
