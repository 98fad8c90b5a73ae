//! Damage is found, and never ends in a panic or without an end.

use crate::images::{self, Qemu, begin};
use imagegen::qcow2::check;
use imagegen::qcow2::read::{Disk, Image, Layer};
use rand::RngExt;
use std::path::Path;

/// Reads all that an image gives, and checks it.
fn use_it(bytes: &[u8]) -> u8 {
    if let Ok(image) = Image::open(bytes) {
        let _ = image.snapshots();
        let _ = image.bitmaps();
        let disk = Disk::new(vec![Layer::Qcow2(Box::new(image))]).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        // A disk may say that it is large; what it maps is not.
        for _ in 0..64 {
            let length = buffer.len().min((disk.size() - at) as usize);
            let _ = disk.read_at(at, &mut buffer[..length]);
            at += length as u64;
        }
    }
    check::check(bytes).exit_code()
}

#[test]
fn random_damage_is_an_error_and_never_a_panic() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    for _ in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (image, _) = images::make(&qemu, dir.path(), &mut random);
        let sound = std::fs::read(image).unwrap();
        for _ in 0..200 {
            let mut bytes = sound.clone();
            for _ in 0..random.random_range(1..4) {
                // Mostly in the header and the tables, which lie first.
                let end = if random.random_bool(0.5) {
                    512
                } else {
                    bytes.len()
                };
                let at = random.random_range(0..end);
                bytes[at] = random.random();
            }
            if random.random_ratio(1, 8) {
                bytes.truncate(random.random_range(0..bytes.len()));
            }
            use_it(&bytes);
        }
    }
}

/// A small image with data in it.
fn plain(qemu: &Qemu, dir: &Path) -> Vec<u8> {
    let image = dir.join("image.qcow2");
    qemu.create(&image, &["4M"]);
    qemu.io(&image, &["write -P 7 0 1M".to_owned()]);
    std::fs::read(image).unwrap()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Each kind of damage is found by us and by QEMU.
#[test]
fn wrong_counts_and_marks_are_found() {
    let Some((qemu, dir)) = begin() else { return };
    let sound = plain(&qemu, dir.path());
    assert_eq!(use_it(&sound), 0);
    let block = number(&sound, number(&sound, 48) as usize) as usize;
    let level1 = number(&sound, 40) as usize;
    let level2 = (number(&sound, level1) & 0x00ff_ffff_ffff_fe00) as usize;
    // Cluster 5 is the first with data.
    let data = (number(&sound, level2) & 0x00ff_ffff_ffff_fe00) as usize;
    let count = block + data / 65536 * 2 + 1;
    let damages: [(&str, usize, &[u8], u8); 6] = [
        ("counted too often", count, &[2], 2),
        ("not counted", count, &[0], 2),
        ("a leak", level2, &[0; 8], 3),
        ("counted beyond the end", block + 1000 * 2 + 1, &[1], 0),
        ("not marked", level2, &[0], 2),
        ("used twice", level2 + 8 + 5, &sound[level2 + 5..][..1], 2),
    ];
    for (what, at, new, code) in damages {
        let mut bytes = sound.clone();
        let old = &mut bytes[at..at + new.len()];
        assert_ne!(old, new, "{what}");
        old.copy_from_slice(new);
        let found = check::check(&bytes[..]);
        assert_eq!(found.exit_code(), code, "{what}: {found:?}");
        let image = dir.path().join("damaged.qcow2");
        std::fs::write(&image, &bytes).unwrap();
        let (told, their_code) = qemu.img(&["check", image.to_str().unwrap()]);
        assert_eq!(their_code, i32::from(code), "{what}: {told}");
    }
}

/// A table without entries lies nowhere.
#[test]
fn an_empty_disk_is_sound_wherever_its_table_would_be() {
    let Some((qemu, dir)) = begin() else { return };
    let image = dir.path().join("image.qcow2");
    qemu.create(&image, &["0"]);
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[36..40].fill(0);
    bytes[40..48].copy_from_slice(&(1u64 << 40).to_be_bytes());
    assert!(Image::open(&bytes[..]).is_ok());
    let found = check::check(&bytes[..]);
    assert_eq!(found.errors, 0, "{found:?}");
}

/// What must not be believed costs neither time nor memory.
#[test]
fn sizes_without_sense_are_refused() {
    let Some((qemu, dir)) = begin() else { return };
    let sound = plain(&qemu, dir.path());
    let fields: [(&str, usize, &[u8]); 7] = [
        ("clusters of 2^63 bytes", 20, &[0, 0, 0, 63]),
        ("a disk of 2^64 bytes", 24, &[0xff; 8]),
        ("a level 1 table of 4 billion entries", 36, &[0xff; 4]),
        ("a refcount table of 4 billion clusters", 56, &[0xff; 4]),
        ("4 billion snapshots", 60, &[0xff; 4]),
        ("refcounts of 2^255 bits", 96, &[0, 0, 0, 255]),
        ("a header of 4 GiB", 100, &[0xff; 4]),
    ];
    for (what, at, value) in fields {
        let mut bytes = sound.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        assert!(Image::open(&bytes[..]).is_err(), "{what}");
    }
}
