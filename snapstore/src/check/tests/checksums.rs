//! A store of either checksum: its whole life goes by its own.

use super::super::newest_store;
use super::world::{World, report};
use crate::checksum::Checksum;
use crate::engine::Config;
use crate::ids::VolumeId;
use crate::recover::{Recovered, load};

const VOLUME: VolumeId = VolumeId(1);

/// A snapshot with two chunks kept in a checkpoint, and one in the journal's tail.
fn store(checksum: Checksum) -> World {
    let mut world = World::with(checksum);
    assert_eq!(world.volume("v"), VOLUME);
    world.take(VOLUME, "s");
    world.write(VOLUME, 0, 2, 1);
    world.checkpoint();
    world.write(VOLUME, 9, 1, 2);
    world
}

fn recover(world: &mut World) -> Recovered {
    let loaded = load(&mut world.disk).unwrap();
    let result = loaded.recover(&mut world.disk, &mut world.origins, Config::default());
    result.unwrap().1
}

/// The first block of every chunk kept, the journal's last.
fn kept(world: &mut World) -> Vec<usize> {
    let mut text = String::new();
    super::super::dump(&mut world.disk, &mut text).unwrap();
    let lines = text.lines().filter(|line| line.contains(" tags "));
    let block = |line: &str| {
        let mut words = line.split(' ').skip_while(|word| *word != "block");
        words.nth(1).unwrap().parse().unwrap()
    };
    lines.map(block).collect()
}

#[test]
fn it_is_kept_by_recovery_and_by_every_checkpoint() {
    for by in Checksum::ALL {
        let mut world = store(by);
        for _ in 0..3 {
            let recovered = recover(&mut world);
            assert_eq!((recovered.dropped, recovered.lost), (0, 0), "{by}");
            let newest = newest_store(&mut world.disk).unwrap();
            assert_eq!(newest.superblock.data_checksum(), by);
            let report = report(&mut world.disk, true);
            assert_eq!((report.problems, report.chunks_verified), (vec![], 3));
        }
    }
}

#[test]
fn a_flipped_bit_is_found() {
    for by in Checksum::ALL {
        let mut world = store(by);
        // The tail may be torn and is not judged: recovery writes it out.
        recover(&mut world);
        for block in kept(&mut world) {
            world.disk.0[block].0[17] ^= 4;
            assert_eq!(
                report(&mut world.disk, false).problems,
                Vec::<String>::new()
            );
            let problems = report(&mut world.disk, true).problems;
            let said = format!("data block {block}: checksum mismatch");
            assert_eq!(problems.len(), 1, "{by}: {problems:?}");
            assert!(problems[0].ends_with(&said), "{by}: {problems:?}");
            world.disk.0[block].0[17] ^= 4;
        }
    }
}

#[test]
fn a_tail_that_never_landed_is_judged_by_it() {
    for by in Checksum::ALL {
        for (written, want) in [(false, (1, 0)), (true, (0, 1))] {
            let mut world = store(by);
            let tail = *kept(&mut world).last().unwrap();
            world.disk.0[tail].0[17] ^= 4;
            if !written {
                world.origins.0.get_mut(&VOLUME).unwrap()[9] = 0;
            }
            let recovered = recover(&mut world);
            assert_eq!((recovered.dropped, recovered.lost), want, "{by}");
        }
    }
}
