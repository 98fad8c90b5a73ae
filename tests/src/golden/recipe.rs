//! How golden stores are made: the same life, always, in stores of different
//! geometry, ended in order or in the middle.

use snapstore::create::{CreateOptions, create};
use snapstore::engine::{Command, Policy, Reply};
use snapstore::recover::load;
use snapstore::{BLOCK_SIZE, Checksum, Tag, VolumeId};

use super::rig::{MemoryOrigins, Rig, RigError};
use crate::memory::MemoryStore;

/// Chunks of the larger origin: with 4 KiB chunks more exceptions than one leaf holds.
const CHUNKS: u64 = 48;

/// One golden store.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its directory.
    pub name: &'static str,
    /// Bytes in a chunk.
    pub chunk: u32,
    /// What covers its data.
    pub checksum: Checksum,
    /// Blocks of 4 KiB.
    pub blocks: u64,
    /// Ended by an orderly stop; else with changes that only the journal holds.
    pub clean: bool,
}

/// All of them.
pub const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "small-clean",
        chunk: 4 << 10,
        checksum: Checksum::Crc32c,
        blocks: 1024,
        clean: true,
    },
    Recipe {
        name: "small-journal",
        chunk: 4 << 10,
        checksum: Checksum::Xxh3,
        blocks: 1024,
        clean: false,
    },
    Recipe {
        name: "large-clean",
        chunk: 64 << 10,
        checksum: Checksum::Xxh3,
        blocks: 4096,
        clean: true,
    },
    Recipe {
        name: "large-journal",
        chunk: 64 << 10,
        checksum: Checksum::Crc32c,
        blocks: 4096,
        clean: false,
    },
];

/// Lives the life.
struct Life {
    rig: Rig,
    chunk: u64,
    /// Numbers the writes: no two leave the same bytes.
    version: u32,
}

impl Recipe {
    /// Makes the store; it is served still.
    ///
    /// # Errors
    /// If the engine refuses or fails a step.
    pub fn live(&self) -> Result<Rig, RigError> {
        let mut store = MemoryStore::new(self.blocks);
        let options = CreateOptions {
            uuid: *b"golden csnap str",
            chunk_size: self.chunk,
            checksum: self.checksum,
            created_ms: 1_100_000_000_000,
            journal_blocks: Some(32),
        };
        create(&mut store, &options)?;
        let loaded = load(&mut store)?;
        let (rig, _) = Rig::open(loaded, store, MemoryOrigins::default())?;
        let mut life = Life {
            rig,
            chunk: self.chunk.into(),
            version: 0,
        };
        let (alpha, beta) = life.youth()?;
        life.age(alpha, beta)?;
        Ok(life.rig)
    }

    /// Stops it in order, or as it stands.
    ///
    /// # Errors
    /// If the engine fails the stop.
    pub fn end(&self, rig: &mut Rig) -> Result<(), RigError> {
        if self.clean {
            rig.command(Command::Close)?;
        }
        Ok(())
    }
}

impl Life {
    /// What a checkpoint holds: takes, writes, deletions, a name, a priority, a mapping,
    /// a volume that came and went.
    fn youth(&mut self) -> Result<(VolumeId, VolumeId), RigError> {
        // Neither ends with a chunk, nor with a block of 4 KiB.
        let alpha = self.volume("alpha", CHUNKS * self.chunk + 1536)?;
        let gone = self.volume("gone", 4 * self.chunk)?;
        let beta = self.volume("beta", CHUNKS / 2 * self.chunk - 512)?;
        let mut tags = Vec::new();
        for round in 0..5 {
            tags.push(self.take(&[alpha], &format!("round-{round}"))?);
            self.write(alpha, round * 5, 24)?;
        }
        self.take(&[gone], "nobody")?;
        self.write(gone, 0, 3)?;
        self.rig.command(Command::DeleteVolume { volume: gone })?;
        self.rig.origins.0.remove(&gone);
        let both = self.take(&[alpha, beta], "both")?;
        self.write(alpha, CHUNKS - 3, 3)?;
        self.write(beta, 7, 11)?;
        for tag in [tags[1], tags[3]] {
            let targets = vec![(alpha, tag)];
            self.rig.command(Command::DeleteSnapshots { targets })?;
        }
        self.note(alpha, tags[2], both)?;
        self.rig.command(Command::Checkpoint)?;
        Ok((alpha, beta))
    }

    fn note(&mut self, volume: VolumeId, tag: Tag, mapped: Tag) -> Result<(), RigError> {
        let name = "renamed".to_owned();
        self.rig
            .command(Command::RenameSnapshot { volume, tag, name })?;
        let priority = -7;
        self.rig.command(Command::SetPriority {
            volume,
            tag,
            priority,
        })?;
        let tag = mapped;
        let mapped = true;
        self.rig.command(Command::SetMapped {
            volume,
            tag,
            mapped,
        })?;
        Ok(())
    }

    /// What only the journal holds, unless the stop is orderly.
    fn age(&mut self, alpha: VolumeId, beta: VolumeId) -> Result<(), RigError> {
        let size = (CHUNKS + 2) * self.chunk;
        self.grow(alpha, size)?;
        let late = self.take(&[alpha], "late")?;
        self.write(alpha, 10, 20)?;
        self.take(&[beta], "dropped")?;
        self.write(beta, 0, 9)?;
        let targets = vec![(alpha, late)];
        self.rig.command(Command::DeleteSnapshots { targets })?;
        let policy = Policy::SnapshotFirst;
        let volume = beta;
        self.rig.command(Command::SetPolicy {
            volume,
            policy: Some(policy),
            full_wait_s: None,
        })?;
        self.take(&[alpha, beta], "last")?;
        self.write(alpha, 0, 2)?;
        self.write(beta, 3, 4)
    }

    fn volume(&mut self, name: &str, size: u64) -> Result<VolumeId, RigError> {
        let command = Command::CreateVolume {
            name: name.to_owned(),
            uuid: [size as u8; 16],
            size,
            origin: format!("/dev/{name}"),
            policy: Policy::OriginFirst,
            created_ms: 1_100_000_000_001,
        };
        let Reply::Volume(volume) = self.rig.command(command)? else {
            return Err(RigError::Silent);
        };
        let bytes = self.contents(volume, 0, size);
        self.rig.origins.0.insert(volume, bytes);
        Ok(volume)
    }

    fn grow(&mut self, volume: VolumeId, size: u64) -> Result<(), RigError> {
        if let Some(origin) = self.rig.origins.0.get_mut(&volume) {
            origin.resize(size as usize, 0xee);
        }
        self.rig.command(Command::ResizeVolume { volume, size })?;
        Ok(())
    }

    fn take(&mut self, volumes: &[VolumeId], name: &str) -> Result<Tag, RigError> {
        let command = Command::Take {
            targets: volumes.iter().map(|v| (*v, name.to_owned())).collect(),
            priority: 0,
            created_ms: 1_100_000_000_002,
        };
        match self.rig.command(command)? {
            Reply::Taken(tag) => Ok(tag),
            _ => Err(RigError::Silent),
        }
    }

    /// Overwrites chunks, as far as the volume reaches.
    fn write(&mut self, volume: VolumeId, first: u64, count: u64) -> Result<(), RigError> {
        self.version += 1;
        let size = self.rig.origins.0.get(&volume).map_or(0, Vec::len) as u64;
        let start = first * self.chunk;
        let end = size.min(start + count * self.chunk);
        let bytes = self.contents(volume, start, end - start);
        self.rig.write(volume, start, &bytes)
    }

    /// Every word says whose it is, in which block and of which write: no two blocks
    /// are the same, and all of it packs well.
    fn contents(&self, volume: VolumeId, start: u64, len: u64) -> Vec<u8> {
        const WORD: u64 = 8;
        let head = u64::from(volume.0) << 56 | u64::from(self.version) << 32;
        let words = start / WORD..(start + len) / WORD;
        let block = |word: u64| word * WORD / BLOCK_SIZE as u64;
        words
            .flat_map(|word| (head | block(word)).to_le_bytes())
            .collect()
    }
}
