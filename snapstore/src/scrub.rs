//! Verifying every copied chunk of a store while it is served.
//!
//! It reads the device beside the engine and never enters it. What the newest durable
//! checkpoint reaches is not overwritten before the next one is durable, so whatever
//! does not match counts as damage only if no newer checkpoint is found afterwards;
//! else that part is read again under the newer one. Chunks copied since the newest
//! checkpoint are left to the next scrub.
//!
//! A step reads one leaf of the exception tree with its chunks; between steps nothing
//! is held. The caller keeps to a rate by waiting between them.

use crate::block::{BLOCK_SIZE, Block};
use crate::device::BlockDevice;
use crate::engine::{Geometry, TreeId};
use crate::format::exception::{LOST, Place, crcs_of};
use crate::format::superblock::Superblock;
use crate::ids::{Tag, VolumeId};
use crate::recover::{Newest, OpenError, geometry_of, newest_superblock, read_block, roots_of};
use crate::tree::{Key, Missing, Node, Root, Walk};

/// Something damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// A block of a copied chunk.
    Chunk {
        /// Whose.
        volume: VolumeId,
        /// Which chunk of it.
        chunk: u64,
        /// Snapshots up to and including this tag do not need it.
        pred: Tag,
        /// Those after that one up to this one do.
        tag: Tag,
        /// The block in the store.
        block: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A node of the exception tree: what it leads to cannot be verified.
    Node {
        /// The block in the store.
        block: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a step came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes read.
    pub bytes: u64,
    /// Chunks verified.
    pub chunks: u64,
    /// Exceptions to be looked at in all, as far as is known now.
    pub of: u64,
    /// What was found.
    pub damaged: Vec<Damaged>,
    /// There is nothing more to read.
    pub done: bool,
}

/// A scrub under way.
#[derive(Debug, Default)]
pub struct Scrub {
    /// Everything below this was read.
    from: Key,
    under: Option<Under>,
}

/// The checkpoint being read.
#[derive(Debug)]
struct Under {
    generation: u64,
    geometry: Geometry,
    of: u64,
    walk: Walk,
}

impl Under {
    fn new(newest: &Newest) -> Result<Self, OpenError> {
        let superblock: &Superblock = &newest.superblock;
        let (geometry, root) = (geometry_of(superblock), roots_of(superblock).exceptions);
        // A wrong count must not end the walk early.
        let unbounded = Root {
            nodes: geometry.blocks,
            ..root
        };
        let walk = Walk::new(unbounded).map_err(|fault| OpenError::Damaged {
            what: TreeId::Exceptions.name(),
            block: root.ptr.block,
            damage: fault.to_string(),
        })?;
        Ok(Self {
            generation: newest.generation,
            geometry,
            of: root.records,
            walk,
        })
    }
}

impl Scrub {
    /// Reads the next leaf and its chunks.
    ///
    /// # Errors
    /// When no superblock can be read.
    pub fn step(&mut self, dev: &mut impl BlockDevice) -> Result<Step, OpenError> {
        let newest = newest_superblock(dev)?;
        let mut under = match self.under.take() {
            // One being written now may look damaged: the one before counts until it is.
            Some(under) if newest.generation <= under.generation => under,
            _ => Under::new(&newest)?,
        };
        let mut step = Step {
            of: under.of,
            ..Step::default()
        };
        let next = self.read(dev, &mut under, &mut step);
        // Damage under a checkpoint that is no longer the newest may be reuse.
        let replaced = newest_superblock(dev)?.generation > under.generation;
        if replaced && !step.damaged.is_empty() {
            step.damaged.clear();
            step.chunks = 0;
            return Ok(step);
        }
        match next {
            Some(next) => self.from = next,
            None => step.done = true,
        }
        self.under = (!replaced).then_some(under);
        Ok(step)
    }

    /// Reads up to the end of the next leaf, and says where to go on.
    fn read(&self, dev: &mut impl BlockDevice, under: &mut Under, step: &mut Step) -> Option<Key> {
        while let Some(missing) = under.walk.next() {
            let (_, up) = under.walk.bounds();
            if up.is_some_and(|up| up <= self.from) {
                continue;
            }
            step.bytes += BLOCK_SIZE as u64;
            match node(dev, under, missing) {
                Err(reason) => {
                    let block = missing.ptr.block;
                    step.damaged.push(Damaged::Node { block, reason });
                    return up;
                }
                Ok(node) if node.level() > 0 => {}
                Ok(node) => {
                    for index in (0..node.len()).filter(|index| node.key(*index) >= self.from) {
                        chunk(dev, &under.geometry, &node, index, step);
                    }
                    return up;
                }
            }
        }
        None
    }
}

fn node(dev: &mut impl BlockDevice, under: &mut Under, missing: Missing) -> Result<Node, String> {
    let (at, tree) = (missing.ptr.block, TreeId::Exceptions);
    if at == 0 || at >= under.geometry.blocks {
        return Err("a pointer leads outside the store".to_owned());
    }
    let block = read_block(dev, at, tree.name()).map_err(|error| error.to_string())?;
    let shape = under.geometry.shape(tree);
    let node = Node::verify(block.into(), missing.ptr, &shape, missing.level);
    let node = node.map_err(|damage| damage.to_string())?;
    under.walk.enter(&node).map_err(|fault| fault.to_string())?;
    Ok(node)
}

fn chunk(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    node: &Node,
    index: usize,
    step: &mut Step,
) {
    let (key, value) = (node.key(index), node.value(index));
    let place = Place::decode(value);
    step.chunks += 1;
    if place.block == LOST {
        return;
    }
    let mut damaged = |block, reason: String| {
        step.damaged.push(Damaged::Chunk {
            volume: VolumeId(u32::try_from(key.a).unwrap_or(0)),
            chunk: key.b,
            pred: place.pred,
            tag: Tag(key.c),
            block,
            reason,
        });
    };
    let mut data = vec![Block::zeroed(); geometry.chunk_blocks as usize];
    let read = if geometry.holds_chunk(place.block) {
        dev.read(place.block, &mut data)
    } else {
        Err(crate::device::IoError::OutOfRange)
    };
    match read {
        Ok(()) => {
            let pairs = data.iter().zip(crcs_of(value));
            for (at, (data, crc)) in (place.block..).zip(pairs) {
                if geometry.checksum.of(&data.0) != crc {
                    damaged(at, "checksum mismatch".to_owned());
                }
            }
        }
        Err(error) => damaged(place.block, error.to_string()),
    }
    step.bytes += (data.len() * BLOCK_SIZE) as u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::world::{World, report, store};

    /// Scrubs to the end; `between` happens after every step.
    fn run(world: &mut World, mut between: impl FnMut(&mut World)) -> Vec<Step> {
        let mut scrub = Scrub::default();
        let mut steps = Vec::new();
        loop {
            let step = scrub.step(&mut world.disk).unwrap();
            let done = step.done;
            steps.push(step);
            if done {
                return steps;
            }
            between(world);
            assert!(steps.len() < 1000, "it never ends");
        }
    }

    fn all(steps: &[Step]) -> (u64, Vec<Damaged>) {
        let chunks = steps.iter().map(|step| step.chunks).sum();
        let damaged = steps.iter().flat_map(|step| step.damaged.clone());
        (chunks, damaged.collect())
    }

    #[test]
    fn a_sound_store_is_read_in_full() {
        let mut world = store();
        let exceptions = report(&mut world.disk, false).exceptions;
        let steps = run(&mut world, |_| ());
        assert_eq!(all(&steps), (exceptions, vec![]));
        assert!(steps.len() > 2, "one step does it all");
    }

    #[test]
    fn every_damaged_chunk_is_found_with_its_snapshots() {
        let mut world = store();
        let mut text = String::new();
        crate::check::dump(&mut world.disk, &mut text).unwrap();
        let mut wanted = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("exception ")) {
            let words: Vec<&str> = line.split(' ').collect();
            if let Some(at) = words.iter().position(|word| *word == "block") {
                let block: u64 = words[at + 1].parse().unwrap();
                if block.is_multiple_of(3) {
                    world.disk.0[block as usize + 1].0[9] ^= 2;
                    wanted.push(block + 1);
                }
            }
        }
        let found: Vec<u64> = all(&run(&mut world, |_| ()))
            .1
            .iter()
            .map(|damaged| match damaged {
                Damaged::Chunk {
                    block, pred, tag, ..
                } if pred < tag => *block,
                other => panic!("{other:?}"),
            })
            .collect();
        let (mut found, mut expected) = (found, wanted);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    /// Deletions, copies and checkpoints meanwhile reuse chunks and nodes: no alarm.
    #[test]
    fn work_meanwhile_is_not_damage() {
        let mut world = store();
        let volume = VolumeId(1);
        let mut round = 0u8;
        let steps = run(&mut world, |world| {
            round += 1;
            let (live, _) = world.snapshots(volume);
            if let Some(oldest) = live.first().filter(|_| live.len() > 2) {
                world.delete(volume, *oldest);
            }
            world.take(volume, &format!("meanwhile{round}"));
            world.write(volume, u64::from(round) % 90, 30, round);
            world.checkpoint();
        });
        assert!(round > 2);
        let (chunks, damaged) = all(&steps);
        assert_eq!(damaged, vec![]);
        assert!(chunks > 0);
    }

    #[test]
    fn a_damaged_node_is_told_and_passed_by() {
        let mut world = store();
        let (before, _) = all(&run(&mut world, |_| ()));
        let kind = crate::format::Kind::ExceptionNode as u32;
        let leaf = crate::check::tests::world::metadata(&mut world.disk)
            .into_iter()
            .filter(|at| {
                crate::format::header(&world.disk.0[*at as usize])
                    .kind
                    .get()
                    == kind
            })
            .nth(1)
            .unwrap();
        world.disk.0[leaf as usize].0[70] ^= 1;
        let (chunks, damaged) = all(&run(&mut world, |_| ()));
        assert!(chunks > 0 && chunks < before);
        let told = |d: &Damaged| matches!(d, Damaged::Node { block, .. } if *block == leaf);
        assert_eq!(damaged.iter().filter(|d| told(d)).count(), 1, "{damaged:?}");
    }
}
