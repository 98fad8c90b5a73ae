//! A store in memory, and the engine driven over it with plain calls.

use std::collections::BTreeMap;

use super::super::trees::{Step, TreeWalk};
use super::super::{CheckOptions, Report, check, newest_store};
use crate::block::{BLOCK_SIZE, Block};
use crate::checksum::Checksum;
use crate::create::{CreateOptions, create};
use crate::device::{BlockDevice, IoError, Origins};
use crate::engine::{
    Command, Config, Effect, Effects, Engine, Event, EventBatch, Notice, Policy, Reply,
    SnapshotInfo, SnapshotState, Source, StoreInfo, TREES, TreeId,
};
use crate::format::header::{header, seal};
use crate::format::journal::JournalBlock;
use crate::ids::{CommandId, GrantId, IoId, Owner, Tag, VolumeId};
use crate::recover::{geometry_of, load, roots_of};

pub(crate) const BLOCKS: u64 = 2048;
pub(crate) const CHUNKS: u64 = 128;
const CHUNK_BLOCKS: usize = 2;
const CHUNK: usize = CHUNK_BLOCKS * BLOCK_SIZE;

/// A device without surprises.
#[derive(Clone)]
pub(crate) struct Disk(pub(crate) Vec<Block>);

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        let end = first
            .checked_add(out.len() as u64)
            .ok_or(IoError::OutOfRange)?;
        let own = self.0.get(first as usize..end as usize);
        out.clone_from_slice(own.ok_or(IoError::OutOfRange)?);
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        let end = first
            .checked_add(data.len() as u64)
            .ok_or(IoError::OutOfRange)?;
        let own = self.0.get_mut(first as usize..end as usize);
        own.ok_or(IoError::OutOfRange)?.clone_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// Per chunk the byte it is full of; a chunk of 255 cannot be read.
#[derive(Clone, Default)]
pub(crate) struct Memory(pub(crate) BTreeMap<VolumeId, Vec<u8>>);

pub(crate) const BAD: u8 = 255;

impl Memory {
    fn chunk(&self, volume: VolumeId, chunk: u64) -> Result<u8, IoError> {
        match self.0[&volume][chunk as usize] {
            BAD => Err(IoError::Errno(5)),
            byte => Ok(byte),
        }
    }
}

impl Origins for Memory {
    fn chunk_checksums(
        &mut self,
        checksum: Checksum,
        volume: VolumeId,
        chunk: u64,
        _: u64,
        out: &mut [u32],
    ) -> Result<(), IoError> {
        let byte = self.chunk(volume, chunk)?;
        out.fill(checksum.of(&[byte; BLOCK_SIZE]));
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) origins: Memory,
    engine: Engine,
    batch: EventBatch,
    replies: Vec<Reply>,
    grants: Vec<GrantId>,
    /// Origin writes that were let through.
    granted: usize,
    /// Block and reason of the damage told of.
    pub(crate) damage: Vec<(u64, String)>,
    /// What every snapshot ever taken must show.
    pub(crate) images: BTreeMap<(VolumeId, Tag), Vec<u8>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Checksum::default())
    }

    pub(crate) fn with(checksum: Checksum) -> Self {
        Self::sized(checksum, BLOCKS)
    }

    /// On a store of so many blocks.
    pub(crate) fn sized(checksum: Checksum, blocks: u64) -> Self {
        let mut disk = Disk(vec![Block::zeroed(); blocks as usize]);
        let options = CreateOptions {
            uuid: *b"0123456789abcdef",
            chunk_size: CHUNK as u32,
            checksum,
            created_ms: 1,
            journal_blocks: Some(64),
        };
        create(&mut disk, &options).unwrap();
        Self::open(disk, Memory::default())
    }

    pub(crate) fn open(disk: Disk, origins: Memory) -> Self {
        Self::open_with(disk, origins, Config::default())
    }

    pub(crate) fn open_with(mut disk: Disk, mut origins: Memory, config: Config) -> Self {
        let loaded = load(&mut disk).unwrap();
        let (engine, _) = loaded.recover(&mut disk, &mut origins, config).unwrap();
        Self {
            disk,
            origins,
            engine,
            batch: EventBatch::default(),
            replies: Vec::new(),
            grants: Vec::new(),
            granted: 0,
            damage: Vec::new(),
            images: BTreeMap::new(),
        }
    }

    pub(crate) fn volume(&mut self, name: &str) -> VolumeId {
        let command = Command::CreateVolume {
            name: name.to_owned(),
            uuid: [7; 16],
            size: CHUNKS * CHUNK as u64,
            origin: format!("/dev/{name}"),
            policy: Policy::OriginFirst,
            created_ms: 2,
        };
        let Some(Reply::Volume(id)) = self.command(command) else {
            panic!("no volume");
        };
        self.origins.0.insert(id, vec![0; CHUNKS as usize]);
        id
    }

    pub(crate) fn take(&mut self, volume: VolumeId, name: &str) -> Tag {
        let command = Command::Take {
            targets: vec![(volume, name.to_owned())],
            priority: 0,
            created_ms: 3,
        };
        match self.command(command) {
            Some(Reply::Taken(tag)) => {
                self.images
                    .insert((volume, tag), self.origins.0[&volume].clone());
                tag
            }
            other => panic!("no snapshot: {other:?}"),
        }
    }

    pub(crate) fn delete(&mut self, volume: VolumeId, tag: Tag) {
        let targets = vec![(volume, tag)];
        self.command(Command::DeleteSnapshots { targets });
    }

    pub(crate) fn checkpoint(&mut self) {
        self.command(Command::Checkpoint);
    }

    /// Overwrites chunks of an origin with a byte.
    pub(crate) fn write(&mut self, volume: VolumeId, first: u64, count: u64, byte: u8) {
        let (owner, before) = (Owner(1), self.granted);
        self.batch.events.push(Event::Write {
            owner,
            volume,
            first,
            count: count as u32,
        });
        self.run();
        assert_eq!(self.granted, before + 1, "the write hangs");
        let chunks = self.origins.0.get_mut(&volume).unwrap();
        chunks[first as usize..(first + count) as usize].fill(byte);
    }

    /// Reads a snapshot and keeps the grant, so that it is not purged.
    pub(crate) fn hold(&mut self, volume: VolumeId, tag: Tag) {
        self.batch.events.push(Event::Read {
            owner: Owner(2),
            volume,
            tag,
            first: 0,
            count: 1,
        });
        self.run();
        assert!(!self.grants.is_empty(), "no grant");
    }

    /// The byte that a snapshot's chunk is full of; `None`: reading it fails.
    pub(crate) fn view(&mut self, volume: VolumeId, tag: Tag, chunk: u64) -> Option<u8> {
        self.batch.events.push(Event::Read {
            owner: Owner(3),
            volume,
            tag,
            first: chunk,
            count: 1,
        });
        let mut effects = Effects::default();
        loop {
            effects.clear();
            self.engine.step(&mut self.batch, &mut effects);
            assert!(!effects.list.is_empty(), "the read hangs");
            let mut answer = None;
            let arena = effects.crcs.clone();
            for effect in effects.list.drain(..) {
                match effect {
                    Effect::ReadFailed {
                        owner: Owner(3), ..
                    } => answer = Some(None),
                    Effect::ReadFrom {
                        owner: Owner(3),
                        grant,
                        source,
                        crcs,
                        ..
                    } => {
                        self.batch.events.push(Event::ReadDone { grant });
                        answer = Some(match source {
                            Source::Origin => self.origins.chunk(volume, chunk).ok(),
                            Source::Store { block } => {
                                let crcs = crcs.of(&arena);
                                self.kept(block, crcs)
                            }
                        });
                    }
                    effect => self.carry_out(effect),
                }
            }
            if let Some(answer) = answer {
                self.run();
                return answer;
            }
        }
    }

    fn kept(&mut self, block: u64, crcs: &[u32]) -> Option<u8> {
        let checksum = self.engine.checksum();
        let blocks = &self.disk.0[block as usize..][..CHUNK_BLOCKS];
        let found = blocks.iter().map(|block| checksum.of(&block.0));
        found.eq(crcs.iter().copied()).then(|| blocks[0].0[0])
    }

    pub(crate) fn info(&self) -> StoreInfo {
        self.engine.store_info()
    }

    /// Bytes that only one snapshot holds, of each.
    pub(crate) fn exclusive(&self, volume: VolumeId) -> Vec<u64> {
        let all = self.engine.snapshots(volume);
        all.iter().map(|info| info.exclusive_bytes).collect()
    }

    /// The live snapshots of a volume, and the others in its table.
    pub(crate) fn snapshots(&self, volume: VolumeId) -> (Vec<Tag>, Vec<Tag>) {
        let all = self.engine.snapshots(volume);
        let (live, dead): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|info| info.state == SnapshotState::Live);
        let tags = |infos: Vec<SnapshotInfo>| infos.iter().map(|info| info.tag).collect();
        (tags(live), tags(dead))
    }

    pub(crate) fn command(&mut self, command: Command) -> Option<Reply> {
        let id = CommandId(1);
        self.batch.events.push(Event::Command { id, command });
        self.run();
        self.replies.pop()
    }

    fn run(&mut self) {
        let mut effects = Effects::default();
        loop {
            effects.clear();
            self.engine.step(&mut self.batch, &mut effects);
            if effects.list.is_empty() {
                return;
            }
            for effect in effects.list.drain(..) {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let event = match effect {
            Effect::Copy {
                copy,
                volume,
                first,
                count,
                block,
                ..
            } => return self.copy(copy, volume, first, count, block),
            Effect::ReadFrom { grant, last, .. } => {
                if last {
                    self.grants.push(grant);
                }
                return;
            }
            Effect::ReadBlock { io, block } => {
                let mut data = Box::<Block>::default();
                let read = self.disk.read(block, std::slice::from_mut(&mut *data));
                let result = read.map(|()| data.into());
                Event::BlockRead { io, result }
            }
            Effect::WriteBlock {
                io, block, data, ..
            } => {
                let result = self.disk.write(block, std::slice::from_ref(&*data));
                Event::BlockWritten { io, result }
            }
            Effect::FlushStore { io }
            | Effect::FlushOrigin { io, .. }
            | Effect::RecordInvalid { io, .. } => Event::Flushed { io, result: Ok(()) },
            Effect::Pause { io, .. } => Event::Paused { io, drained: true },
            Effect::Reply { result, .. } => {
                self.replies.push(result.unwrap());
                return;
            }
            Effect::WriteGranted { .. } => {
                self.granted += 1;
                return;
            }
            Effect::Notice(Notice::Damage { block, reason }) => {
                self.damage.push((block, reason));
                return;
            }
            Effect::WriteFailed { error, .. } => panic!("{error}"),
            Effect::ReadFailed { error, .. } => panic!("{error}"),
            _ => return,
        };
        self.batch.events.push(event);
    }

    fn copy(&mut self, copy: IoId, volume: VolumeId, first: u64, count: u32, block: u64) {
        let mut data = Vec::new();
        for chunk in first..first + u64::from(count) {
            match self.origins.chunk(volume, chunk) {
                Ok(byte) => data.resize(data.len() + CHUNK_BLOCKS, Block([byte; BLOCK_SIZE])),
                Err(error) => {
                    let result = Err(error);
                    return self.batch.events.push(Event::CopyRead { copy, result });
                }
            }
        }
        let checksum = self.engine.checksum();
        let crcs: Vec<u32> = data.iter().map(|block| checksum.of(&block.0)).collect();
        let result = self.disk.write(block, &data);
        self.batch.copy_read(copy, &crcs);
        self.batch.events.push(Event::CopyWritten { copy, result });
    }
}

/// A store with a bit of everything: two volumes, live, deleted, dropped and
/// half-purged snapshots, a LOST chunk, trees of several levels, and a journal.
pub(crate) fn store() -> World {
    let mut world = World::new();
    let (a, b) = (world.volume("alpha"), world.volume("beta"));
    let mut tags = Vec::new();
    for round in 0..5u8 {
        tags.push(world.take(a, &format!("s{round}")));
        world.write(a, u64::from(round) * 7, 80, round + 1);
    }
    let held = world.take(b, "held");
    world.write(b, 0, 60, 9);
    world.take(b, "kept");
    world.origins.0.get_mut(&b).unwrap()[70] = BAD;
    world.write(b, 50, 40, 11);
    world.delete(a, tags[1]);
    world.delete(a, tags[3]);
    world.hold(b, held);
    world.delete(b, held);
    world.checkpoint();
    let late = world.take(a, "late");
    world.write(a, 3, 30, 77);
    world.delete(a, tags[0]);
    world.take(b, "later");
    world.write(b, 100, 20, 78);
    world.write(a, 100, 2, 79);
    assert!(late > held);
    world
}

pub(crate) fn report(disk: &mut Disk, data: bool) -> Report {
    check(disk, CheckOptions { data }, &mut |done, of| {
        assert!(done <= of);
    })
    .unwrap()
}

/// Every metadata block of the newest checkpoint, with those of the journal that
/// are known flushed.
pub(crate) fn metadata(disk: &mut Disk) -> Vec<u64> {
    let newest = newest_store(disk).unwrap();
    let superblock = newest.superblock;
    let (geometry, roots) = (geometry_of(&superblock), roots_of(&superblock));
    let mut found = vec![0, geometry.blocks - 1];
    let alloc = crate::alloc::load(
        disk,
        geometry.store,
        superblock.bitmap.into(),
        geometry.blocks,
        geometry.chunk_blocks,
    );
    found.extend(alloc.unwrap().image_blocks());
    for tree in TREES {
        let mut walk = TreeWalk::new(&geometry, &roots, tree);
        while let Some(step) = walk.next(disk, None) {
            let Step::Node(node) = step else {
                panic!("{step:?}");
            };
            found.push(node.ptr().block);
        }
    }
    let ring = geometry.journal_first..geometry.journal_first + geometry.journal_blocks;
    let blocks: Vec<(u64, JournalBlock)> = ring
        .filter_map(|at| {
            let decoded = JournalBlock::decode(&disk.0[at as usize], at, geometry.store);
            decoded.ok().map(|(block, _)| (at, block))
        })
        .filter(|(_, block)| block.seq >= superblock.journal_tail.get())
        .collect();
    let flushed = blocks.iter().map(|(_, block)| block.flushed).max();
    let known = blocks
        .iter()
        .filter(|(_, block)| Some(block.seq) < flushed)
        .map(|(at, _)| *at);
    found.extend(known);
    found
}

/// Seals a changed block again as what it was, so that only its contents are wrong.
pub(crate) fn reseal(block: &mut Block, was: &Block) {
    let was = header(was);
    seal(
        block,
        was.kind().unwrap(),
        was.block.get(),
        was.store.get(),
        was.generation.get(),
    );
}

/// Changes the value of record `index` of a tree, sealed again.
pub(crate) fn edit(
    disk: &mut Disk,
    tree: TreeId,
    mut index: usize,
    change: impl FnOnce(&mut [u8]),
) {
    let superblock = newest_store(disk).unwrap().superblock;
    let (geometry, roots) = (geometry_of(&superblock), roots_of(&superblock));
    let mut walk = TreeWalk::new(&geometry, &roots, tree);
    while let Some(Step::Node(node)) = walk.next(disk, None) {
        let records = if node.level() == 0 { node.len() } else { 0 };
        if index >= records {
            index -= records;
            continue;
        }
        let value_len = node.value(index).len();
        let start = 64 + index * (16 + value_len) + 16;
        let at = node.ptr().block as usize;
        let was = Box::new(disk.0[at].clone());
        change(&mut disk.0[at].0[start..start + value_len]);
        return reseal(&mut disk.0[at], &was);
    }
    panic!("no such record");
}
