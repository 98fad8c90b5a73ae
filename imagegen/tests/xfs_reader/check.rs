//! The checker: silent about file systems that the kernel filled and unmounted, and loud
//! about each kind of damage.

use crate::damage::{Patient, pieces};
use crate::damages::{ALL, Damage};
use crate::images::{FEATURES, Image, run as run_command, xfsprogs};
use imagegen::xfs::check::{Kind, Report, check, check_within, run};
use imagegen::xfs::format::U32;
use imagegen::xfs::fsmap::Fsmap;
use imagegen::xfs::read::{Reader, Source};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;

fn is_clean(image: &Image, what: &str) {
    let mut text = Vec::new();
    let code = run(image.open(), false, &mut text).unwrap();
    assert_eq!(code, 0, "{what}:\n{}", String::from_utf8(text).unwrap());
}

fn clean(size: u64, options: &str, scale: f64) {
    if let Some(image) = Image::filled(size, options, scale) {
        is_clean(&image, options);
    }
}

#[test]
fn silent_about_an_empty_file_system() {
    for options in [
        "",
        FEATURES,
        "-m crc=1,rmapbt=0,reflink=0",
        "-n version=ci",
        "-d su=64k,sw=4",
        "-l su=256k",
        "-s size=4096",
        "-b size=1024 -d agcount=13",
    ] {
        if let Some(image) = Image::made(GIB, options) {
            is_clean(&image, options);
        }
    }
}

#[test]
fn silent_about_defaults() {
    clean(GIB, "", 1.0);
    clean(GIB, FEATURES, 1.0);
}

#[test]
fn silent_about_other_features() {
    clean(
        GIB,
        "-m rmapbt=0,reflink=0,finobt=0,inobtcount=0,bigtime=0 -i sparse=0",
        0.3,
    );
    clean(GIB, "-m rmapbt=0", 0.3);
    clean(GIB, &format!("{FEATURES} -n version=ci"), 0.3);
    clean(GIB, &format!("{FEATURES} -d su=64k,sw=4"), 0.3);
}

#[test]
fn silent_about_other_sizes() {
    for options in [
        "-i size=2048",
        "-n size=16384",
        "-n size=65536",
        "-s size=4096",
    ] {
        clean(GIB, &format!("{FEATURES} {options}"), 0.3);
    }
    clean(GIB, &format!("{FEATURES} -b size=1024 -d agcount=9"), 0.3);
    clean(4 * GIB, &format!("{FEATURES} -b size=65536"), 0.1);
    clean(4 * GIB, &format!("{FEATURES} -b size=16384"), 0.1);
}

/// Filled a second time after the first was deleted in part: fragmented, sparse chunks.
#[test]
fn silent_after_a_long_life() {
    let Some(image) = Image::made(GIB, FEATURES) else {
        return;
    };
    for seed in 0..3 {
        let Some(mount) = image.mount("loop") else {
            return;
        };
        mount.python("churn.py", &[&seed.to_string()]);
        drop(mount);
        is_clean(&image, &format!("seed {seed}"));
    }
}

/// Grown into a device that was too large: copies of the superblock, a last group that
/// was short.
#[test]
fn silent_after_growing() {
    let Some(image) = Image::filled(GIB - (37 << 20), FEATURES, 0.1) else {
        return;
    };
    std::fs::File::options()
        .write(true)
        .open(&image.path)
        .unwrap()
        .set_len(3 * GIB)
        .unwrap();
    let Some(mount) = image.mount("loop") else {
        return;
    };
    run_command(xfsprogs("xfs_growfs").arg(mount.path()));
    mount.python("churn.py", &["7"]);
    drop(mount);
    let reader = Reader::open(image.open()).unwrap();
    assert_eq!(reader.geometry().blocks << 12, 3 * GIB);
    is_clean(&image, "grown");
}

/// Inodes of the file system itself: those of quotas.
#[test]
fn silent_about_quotas() {
    let Some(image) = Image::filled(GIB, FEATURES, 0.1) else {
        return;
    };
    let Some(mount) = image.mount("loop,uquota,gquota,pquota") else {
        return;
    };
    mount.python("churn.py", &["8"]);
    drop(mount);
    is_clean(&image, "quotas");
}

/// Another identity for people, the old one in metadata.
#[test]
fn silent_about_another_uuid() {
    let Some(image) = Image::filled(GIB, FEATURES, 0.1) else {
        return;
    };
    let uuid = "8a7a32a4-57f5-4a3e-9f5b-2a9d1f4c6b01";
    let mut db = xfsprogs("xfs_db");
    run_command(
        db.args(["-x", "-c", &format!("uuid {uuid}")])
            .arg(&image.path),
    );
    let reader = Reader::open(image.open()).unwrap();
    assert_eq!(reader.geometry().uuid.to_string(), uuid);
    assert_ne!(reader.meta_uuid(), reader.geometry().uuid.as_bytes());
    is_clean(&image, "another uuid");
    let Some(mount) = image.mount("loop") else {
        return;
    };
    mount.python("churn.py", &["9"]);
    drop(mount);
    is_clean(&image, "another uuid, used");
}

/// The log of a file system that went down is dirty, and that is what comes first.
#[test]
fn a_dirty_log_is_called_so() {
    let Some(image) = Image::filled(GIB, FEATURES, 0.05) else {
        return;
    };
    let Some(mount) = image.mount("loop") else {
        return;
    };
    std::fs::write(mount.path().join("more"), "contents").unwrap();
    let mut down = xfsprogs("xfs_io");
    down.args(["-x", "-c", "shutdown -f"]).arg(mount.path());
    run_command(&mut down);
    drop(mount);
    let report = check(image.open());
    assert_eq!(report.exit_code(), 1);
    assert_eq!(
        report.problems[0].kind,
        Kind::DirtyLog,
        "{:?}",
        report.problems
    );
}

fn patient() -> Option<(Image, Patient)> {
    // Parent pointers if mkfs.xfs knows them.
    let newest = xfsprogs("mkfs.xfs").args(["-N", "-n", "parent=1"]).output();
    let parent = newest
        .is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains("unknown option"));
    let options = if parent {
        format!("{FEATURES} -n parent=1")
    } else {
        FEATURES.to_owned()
    };
    let image = Image::filled(GIB, &options, 1.0)?;
    let patient = Patient::new(image.open());
    Some((image, patient))
}

#[test]
fn each_damage_is_found() {
    let Some((_image, mut patient)) = patient() else {
        return;
    };
    assert!(ALL.iter().map(|list| list.len()).sum::<usize>() >= 40);
    assert_eq!(patient.check().found, 0, "{:#?}", patient.check());
    let mut wrong = Vec::new();
    for Damage {
        name,
        kind,
        parent,
        act,
    } in ALL.iter().copied().flatten()
    {
        if *parent && !patient.geometry().features.parent {
            crate::images::skip(&format!("{name}: mkfs.xfs makes no parent pointers"));
            continue;
        }
        patient.heal();
        let acted = std::panic::AssertUnwindSafe(|| act(&mut patient));
        if std::panic::catch_unwind(acted).is_err() {
            wrong.push(format!("{name}: could not be done"));
            continue;
        }
        let report = patient.check();
        let kinds: Vec<Kind> = report.problems.iter().map(|problem| problem.kind).collect();
        if !kinds.contains(kind) || report.exit_code() != 1 {
            let first: Vec<_> = report
                .problems
                .iter()
                .take(5)
                .map(|p| p.to_string())
                .collect();
            wrong.push(format!("{name}: no {kind:?} among {first:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is no XFS, or one that this code does not know, is neither clean nor broken.
#[test]
fn what_cannot_be_checked_is_called_so() {
    let report = check(vec![0; 1 << 20]);
    assert_eq!(report.exit_code(), 2);
    assert!(report.failure.unwrap().contains("no XFS"));
    assert_eq!(check(Vec::new()).exit_code(), 2);
    let Some(image) = Image::made(GIB, FEATURES) else {
        return;
    };
    let mut patient = Patient::new(image.open());
    patient.superblock(0, |sb| sb.features_ro_compat |= U32::new(1 << 9));
    let report = patient.check();
    assert_eq!((report.exit_code(), report.found), (2, 0));
    assert!(report.failure.unwrap().contains("newer"));
    patient.heal();
    patient.superblock(0, |sb| sb.features_incompat |= U32::new(0x100));
    assert!(patient.check().failure.unwrap().contains("metadir"));
}

/// With room for few extents the inodes are read again for each group, to the same end.
#[test]
fn several_passes_find_the_same() {
    let Some(image) = Image::filled(GIB, &format!("{FEATURES} -d agcount=8"), 0.3) else {
        return;
    };
    let mut patient = Patient::new(image.open());
    for budget in [0, 100, 700] {
        let report = check_within(patient.overlay.clone(), budget);
        assert_eq!(report.found, 0, "budget {budget}: {:#?}", report.problems);
    }
    for list in ALL.iter().take(3) {
        for damage in list.iter().step_by(5) {
            patient.heal();
            (damage.act)(&mut patient);
            let texts = |report: Report| {
                let texts = report.problems.iter().map(ToString::to_string);
                texts.collect::<Vec<_>>()
            };
            let (one, many) = (patient.check(), check_within(patient.overlay.clone(), 100));
            assert_eq!(texts(one), texts(many), "{}", damage.name);
        }
    }
}

/// One byte anywhere in any piece of metadata, its checksum left alone.
#[test]
fn a_checksum_that_does_not_hold_is_found() {
    let Some((_image, mut patient)) = patient() else {
        return;
    };
    patient.seals = false;
    let all = pieces(&patient);
    assert!(all.len() > 1000, "{} pieces", all.len());
    let seed = 77;
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for round in 0..60 {
        patient.heal();
        // The first pieces are headers; half of the rounds take all, in turn.
        let chosen = if round % 2 == 0 {
            round / 2
        } else {
            random.random_range(0..all.len())
        };
        let piece = all[chosen];
        let at = random.random_range(0..piece.length);
        patient.piece(piece, |bytes| bytes[at] ^= 1 << random.random_range(0..8));
        let report = patient.check();
        let code = report.exit_code();
        // Byte 0 to 3 of the first superblock say that it is one.
        assert!(code != 0, "byte {at} of {piece:?}: {:?}", report.problems);
    }
}

/// Bytes of metadata changed by chance and sealed: whatever is said of it, it is said in
/// time and without a panic. `ROUNDS` may ask for more.
#[test]
fn no_damage_makes_it_panic_or_hang() {
    for options in [
        FEATURES.to_owned(),
        format!("{FEATURES} -b size=1024 -n size=8192"),
        "-m rmapbt=0,reflink=0,finobt=0,inobtcount=0,bigtime=0 -i sparse=0".to_owned(),
        String::new(),
    ] {
        damage_by_chance(&options);
    }
}

fn damage_by_chance(options: &str) {
    let Some(image) = Image::filled(GIB, options, 0.1) else {
        return;
    };
    let mut patient = Patient::new(image.open());
    let all = pieces(&patient);
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100);
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    println!(
        "{options}: seed {seed}, {rounds} rounds, {} pieces",
        all.len()
    );
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut silent = 0;
    for round in 0..rounds {
        patient.heal();
        for _ in 0..random.random_range(1..4) {
            // Headers and roots come first and matter most.
            let most = if random.random_bool(0.5) {
                80.min(all.len())
            } else {
                all.len()
            };
            let piece = all[random.random_range(0..most)];
            let length = piece.length.min(if random.random_bool(0.5) {
                256
            } else {
                piece.length
            });
            let value = random.random::<u8>();
            let at = random.random_range(0..length);
            let count = random.random_range(1..5);
            let (seals, crc) = (patient.seals, piece.crc_at);
            assert!(seals && crc < piece.length);
            patient.piece(piece, |bytes| {
                for byte in bytes.iter_mut().skip(at).take(count) {
                    *byte = byte.wrapping_add(value | 1);
                }
                let end = bytes.len() - 1;
                bytes[end] ^= u8::from(at + 4 > crc && at < crc + 4);
            });
        }
        let begin = Instant::now();
        silent += u32::from(patient.check().exit_code() == 0);
        read_all(&patient);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(20), "round {round}: {took:?}");
    }
    // Much of an inode and of a block that is not full may hold anything.
    assert!(
        silent < rounds * 2 / 3,
        "{silent} of {rounds} damages were not found"
    );
}

/// Reads all that a damaged file system still gives.
fn read_all(patient: &Patient) {
    let Ok(reader) = Reader::open(patient.overlay.clone()) else {
        return;
    };
    let mut numbers = Vec::new();
    for ag in 0..reader.geometry().ag_count.min(8) {
        let Ok(agi) = reader.agi(ag) else {
            continue;
        };
        for record in reader.inobt(ag, &agi, 0..u64::MAX).records().flatten() {
            if let Ok(chunk) = reader.chunk(ag, &record) {
                numbers.extend(chunk.numbers().map(|(ino, _)| ino));
            }
        }
    }
    for ino in numbers.iter().step_by(numbers.len() / 300 + 1) {
        let Ok(inode) = reader.inode(*ino) else {
            continue;
        };
        let mut buffer = [0; 5000];
        let _ = reader.read_file(&inode, 3, &mut buffer);
        let _ = reader.read_link(&inode);
        if let Ok(directory) = reader.directory(&inode) {
            let names: Vec<_> = directory.entries().flatten().take(50).collect();
            for entry in names {
                let _ = reader
                    .directory(&inode)
                    .map(|open| open.lookup(&entry.name));
            }
        }
        if let Ok(attributes) = reader.attributes(&inode) {
            for attribute in attributes.flatten().take(1000) {
                let _ = reader.attribute_value(&inode, &attribute);
            }
        }
    }
    let size = Source::size(&patient.overlay).unwrap();
    let fsmap = Fsmap::open(reader);
    let owners: Vec<_> = fsmap
        .query(0..size)
        .flatten()
        .map(|mapping| mapping.owner)
        .collect();
    for owner in owners.iter().step_by(owners.len() / 20 + 1) {
        if let imagegen::xfs::fsmap::Owner::Inode(ino) = owner {
            let _ = fsmap.paths(*ino, &mut |_| {});
        }
    }
}

/// Whatever xfs_repair finds in damage by chance, the checker finds too.
#[test]
fn what_xfs_repair_finds_is_found() {
    let Some(image) = Image::filled(GIB, FEATURES, 0.1) else {
        return;
    };
    let mut patient = Patient::new(image.open());
    let all = pieces(&patient);
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(40);
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    println!("seed {seed}, {rounds} rounds");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let file = std::fs::File::options()
        .write(true)
        .open(&image.path)
        .unwrap();
    let (mut both, mut missed) = (0, Vec::new());
    for _ in 0..rounds {
        let most = if random.random_bool(0.6) {
            80
        } else {
            all.len()
        };
        let piece = all[random.random_range(0..most)];
        let at = random.random_range(0..piece.length.min(220));
        let bit = 1 << random.random_range(0..8);
        patient.heal();
        let mut old = vec![0; piece.length];
        patient.overlay.read_at(piece.offset, &mut old).unwrap();
        if (piece.crc_at..piece.crc_at + 4).contains(&at) {
            continue;
        }
        patient.piece(piece, |bytes| bytes[at] ^= bit);
        let mut new = old.clone();
        patient.overlay.read_at(piece.offset, &mut new).unwrap();
        let ours = patient.check().exit_code() != 0;
        file.write_all_at(&new, piece.offset).unwrap();
        let mut repair = xfsprogs("xfs_repair");
        let output = repair.arg("-n").arg(&image.path).output().unwrap();
        file.write_all_at(&old, piece.offset).unwrap();
        let theirs = !output.status.success();
        both += u32::from(ours && theirs);
        if theirs && !ours {
            let text = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            let dull = [
                "Phase",
                "        - ",
                "No modify",
                "would be",
                "Cannot get",
                "Repair may",
                "the image",
            ];
            let lines = text
                .lines()
                .filter(|line| !dull.iter().any(|dull| line.starts_with(dull)));
            let lines: Vec<_> = lines.take(4).collect();
            missed.push(format!("bit {bit} of byte {at} of {piece:?}: {lines:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert!(both > rounds / 5, "both found {both} of {rounds}");
}
