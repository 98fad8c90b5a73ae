//! Every store that a csnap of any format version made still opens, is sound and
//! shows what it showed; and the program that made those of the present version
//! still makes such stores.
#![allow(clippy::unwrap_used)] // all of it is a test

use csnap_tests::golden::recipe::RECIPES;
use csnap_tests::golden::rig::Rig;
use csnap_tests::golden::{Golden, all, directory, volumes};
use csnap_tests::memory::MemoryStore;
use snapstore::check::{CheckOptions, Report, check, dump};
use snapstore::engine::Command;
use snapstore::format::superblock::VERSION;
use snapstore::recover::load;
use snapstore::{Tag, VolumeId};

fn report(store: &mut MemoryStore) -> Report {
    check(store, CheckOptions { data: true }, &mut |_, _| {}).unwrap()
}

/// Opens it, reads all it holds, and deletes that.
fn open(mut golden: Golden) {
    let name = &golden.name;
    let before = report(&mut golden.store);
    assert_eq!(before.problems, Vec::<String>::new(), "{name}");
    assert_eq!(before.journal_records == 0, golden.expected.clean, "{name}");
    let mut text = String::new();
    dump(&mut golden.store, &mut text).unwrap();
    assert!(
        !text.lines().any(|line| line.starts_with('!')),
        "{name}: {text}"
    );

    let loaded = load(&mut golden.store).unwrap();
    assert_eq!(loaded.clean(), golden.expected.clean, "{name}");
    assert_eq!(loaded.chunk_size(), golden.expected.chunk_size, "{name}");
    let (mut rig, recovered) = Rig::open(loaded, golden.store, golden.origins).unwrap();
    assert_eq!((recovered.dropped, recovered.lost), (0, 0), "{name}");
    let checksum = rig.engine().checksum().to_string();
    assert_eq!(checksum, golden.expected.checksum, "{name}");
    assert_eq!(
        volumes(&mut rig).unwrap(),
        golden.expected.volumes,
        "{name}"
    );
    assert_eq!(
        report(&mut rig.store).problems,
        Vec::<String>::new(),
        "{name}"
    );

    for volume in &golden.expected.volumes {
        let id = VolumeId(volume.volume);
        let tags = volume.snapshots.iter().map(|s| (id, Tag(s.tag)));
        let targets: Vec<(VolumeId, Tag)> = tags.collect();
        for (volume, tag) in &targets {
            rig.command(Command::SetMapped {
                volume: *volume,
                tag: *tag,
                mapped: false,
            })
            .unwrap();
        }
        rig.command(Command::DeleteSnapshots { targets }).unwrap();
    }
    rig.command(Command::Close).unwrap();
    let after = report(&mut rig.store);
    assert_eq!(after.problems, Vec::<String>::new(), "{name}");
    assert_eq!((after.snapshots, after.exceptions), (0, 0), "{name}");
}

#[test]
fn every_golden_store_shows_what_it_showed() {
    let stores = all().unwrap();
    for version in 1..=VERSION {
        let of_version = stores.iter().filter(|s| s.expected.format == version);
        assert!(
            of_version.count() > 0,
            "no golden store of version {version}"
        );
    }
    for store in stores {
        assert!(store.expected.volumes.iter().any(|v| v.snapshots.len() > 3));
        open(store);
    }
}

/// Not byte by byte: where things lie in a store is the allocator's affair.
#[test]
fn the_program_still_makes_them() {
    let stores = all().unwrap();
    for recipe in &RECIPES {
        let made = Golden::make(recipe).unwrap();
        let kept = stores.iter().find(|kept| kept.name == made.name);
        let kept = kept.unwrap_or_else(|| panic!("{} is not in {:?}", made.name, directory()));
        assert_eq!(made.expected, kept.expected, "{}", made.name);
        assert_eq!(made.origins.0, kept.origins.0, "{}", made.name);
        open(made);
    }
}

#[test]
fn a_byte_changed_in_a_golden_store_is_seen() {
    for mut golden in all().unwrap() {
        let mut block = (*golden.store.get(0)).clone();
        block.0[200] ^= 1;
        golden.store.put(0, block.into());
        let found = check(
            &mut golden.store,
            CheckOptions { data: true },
            &mut |_, _| {},
        );
        assert!(
            found.is_err() || !found.unwrap().problems.is_empty(),
            "{}",
            golden.name
        );
    }
}
