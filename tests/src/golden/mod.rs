//! Golden stores: small ones of every format version there was, kept in the tree
//! (`tests/golden/vN/NAME`), with what each must show for ever.
//!
//! | file | what it is |
//! |---|---|
//! | `store.zst` | the store device, packed with zstd |
//! | `origin-V.zst` | the origin of volume V at the same moment |
//! | `expected.json` | [`Expected`]: what it holds, the SHA-256 of every snapshot |
//!
//! `cargo run -p csnap-tests --bin golden` makes those of the present version anew.
//! Once a version is released its stores are never made again.

pub mod recipe;
pub mod rig;
pub mod seeds;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapstore::VolumeId;
use snapstore::format::superblock::VERSION;

use self::recipe::Recipe;
use self::rig::{MemoryOrigins, Rig, RigError};
use crate::memory::MemoryStore;

/// Why a golden store cannot be made or had.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The engine did not do what was asked of it.
    #[error("{store}: {error}")]
    Rig {
        /// Which store.
        store: String,
        /// What it said.
        error: RigError,
    },
}

/// What a golden store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Version of the format.
    pub format: u32,
    /// Bytes in a chunk.
    pub chunk_size: u32,
    /// What covers its data.
    pub checksum: String,
    /// It was stopped in order.
    pub clean: bool,
    /// Its volumes.
    pub volumes: Vec<ExpectedVolume>,
}

/// A volume of a golden store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedVolume {
    /// Its number.
    pub volume: u32,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Its snapshots by age.
    pub snapshots: Vec<ExpectedSnapshot>,
}

/// A snapshot of a golden store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedSnapshot {
    /// Its number.
    pub tag: u64,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Lowest is dropped first.
    pub priority: i32,
    /// It is mapped.
    pub mapped: bool,
    /// Of all its bytes, in hexadecimal.
    pub sha256: String,
}

/// A golden store with its origins.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Directory, `vN/NAME`.
    pub name: String,
    /// The store.
    pub store: MemoryStore,
    /// The origins.
    pub origins: MemoryOrigins,
    /// What it must show.
    pub expected: Expected,
}

/// Where the stores of all versions lie.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every golden store, by version and name.
///
/// # Errors
/// If one cannot be read.
pub fn all() -> Result<Vec<Golden>, GoldenError> {
    let mut found = Vec::new();
    for version in entries(&directory())? {
        for store in entries(&version)? {
            found.push(Golden::read(&store)?);
        }
    }
    Ok(found)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, GoldenError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut found = list().map_err(|error| file(dir, error))?;
    found.sort();
    Ok(found)
}

fn file(path: &Path, error: io::Error) -> GoldenError {
    let path = path.to_owned();
    GoldenError::File { path, error }
}

impl Golden {
    /// Makes the store of a recipe in the present version of the format.
    ///
    /// # Errors
    /// If the engine refuses or fails a step.
    pub fn make(recipe: &Recipe) -> Result<Self, GoldenError> {
        let name = format!("v{VERSION}/{}", recipe.name);
        let make = || {
            let mut rig = recipe.live()?;
            let expected = expected_of(&mut rig, recipe)?;
            recipe.end(&mut rig)?;
            Ok((rig.store, rig.origins, expected))
        };
        match make() {
            Ok((store, origins, expected)) => Ok(Self {
                name,
                store,
                origins,
                expected,
            }),
            Err(error) => Err(GoldenError::Rig { store: name, error }),
        }
    }

    /// Writes it below `dir`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), GoldenError> {
        let dir = dir.join(&self.name);
        fs::create_dir_all(&dir).map_err(|error| file(&dir, error))?;
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(|error| file(&path, error))
        };
        let put_packed = |name: &str, bytes: &[u8]| {
            let packed = pack(bytes).map_err(|error| file(&dir.join(name), error))?;
            put(name, &packed)
        };
        put_packed("store.zst", &self.store.to_bytes())?;
        for ExpectedVolume { volume, .. } in &self.expected.volumes {
            if let Some(bytes) = self.origins.0.get(&VolumeId(*volume)) {
                put_packed(&format!("origin-{volume}.zst"), bytes)?;
            }
        }
        let json = serde_json::to_vec_pretty(&self.expected);
        let mut json = json.map_err(|error| file(&dir, error.into()))?;
        json.push(b'\n');
        put("expected.json", &json)
    }

    fn read(dir: &Path) -> Result<Self, GoldenError> {
        let get = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|error| file(&path, error))
        };
        let unpacked =
            |name: &str| unpack(&get(name)?).map_err(|error| file(&dir.join(name), error));
        let expected: Expected = serde_json::from_slice(&get("expected.json")?)
            .map_err(|error| file(&dir.join("expected.json"), error.into()))?;
        let mut origins = MemoryOrigins::default();
        for ExpectedVolume { volume, .. } in &expected.volumes {
            let bytes = unpacked(&format!("origin-{volume}.zst"))?;
            origins.0.insert(VolumeId(*volume), bytes);
        }
        let mut parts: Vec<_> = dir
            .iter()
            .rev()
            .take(2)
            .map(|p| p.to_string_lossy())
            .collect();
        parts.reverse();
        Ok(Self {
            name: parts.join("/"),
            store: MemoryStore::of_bytes(&unpacked("store.zst")?),
            origins,
            expected,
        })
    }
}

fn expected_of(rig: &mut Rig, recipe: &Recipe) -> Result<Expected, RigError> {
    Ok(Expected {
        format: VERSION,
        chunk_size: recipe.chunk,
        checksum: recipe.checksum.to_string(),
        clean: recipe.clean,
        volumes: volumes(rig)?,
    })
}

/// What an engine's volumes and snapshots are and hold.
///
/// # Errors
/// If a snapshot cannot be read.
pub fn volumes(rig: &mut Rig) -> Result<Vec<ExpectedVolume>, RigError> {
    let mut found = Vec::new();
    for volume in rig.engine().volumes() {
        let mut snapshots = Vec::new();
        for snapshot in rig.engine().snapshots(volume.id) {
            let bytes = rig.view(volume.id, snapshot.tag, snapshot.size)?;
            snapshots.push(ExpectedSnapshot {
                tag: snapshot.tag.0,
                name: snapshot.name,
                size: snapshot.size,
                priority: snapshot.priority,
                mapped: snapshot.mapped,
                sha256: digest(&bytes),
            });
        }
        found.push(ExpectedVolume {
            volume: volume.id.0,
            name: volume.name,
            size: volume.size,
            snapshots,
        });
    }
    Ok(found)
}

fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Packs with the program `zstd`, which whoever makes golden stores needs: the
/// library only unpacks well.
fn pack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut zstd = Command::new("zstd")
        .args(["-19", "--stdout", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = zstd.stdin.take();
    thread::scope(|scope| {
        let feed = scope.spawn(|| input.map_or(Ok(()), |mut input| input.write_all(bytes)));
        let output = zstd.wait_with_output()?;
        feed.join().map_err(|_| io::Error::other("no input"))??;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(io::Error::other(format!("zstd: {}", output.status))),
        }
    })
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed)
        .map_err(io::Error::other)?
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
