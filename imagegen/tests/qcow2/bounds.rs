//! What a small image may ask for: time, memory, open files.

use crate::command::said;
use crate::images::{begin, text};
use imagegen::medium::Source;
use imagegen::qcow2::check::{self, Report};
use imagegen::qcow2::read::{Disk, Image, Layer};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An image of version 3 without a disk, to be made worse.
struct Made {
    bytes: Vec<u8>,
    cluster_bits: u32,
}

impl Made {
    fn new(cluster_bits: u32, length: usize) -> Self {
        let mut made = Self {
            bytes: vec![0; length],
            cluster_bits,
        };
        made.put(0, &0x5146_49fb_0000_0003u64.to_be_bytes());
        made.put(20, &cluster_bits.to_be_bytes());
        made.put(36, &1u32.to_be_bytes());
        made.put(100, &104u32.to_be_bytes());
        made.put(96, &4u32.to_be_bytes());
        made
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn number(&mut self, at: usize, number: u64) {
        self.put(at, &number.to_be_bytes());
    }

    /// Entries of a table that all lead to `to`.
    fn table(&mut self, at: usize, entries: usize, to: u64) {
        for index in 0..entries {
            self.number(at + index * 8, to);
        }
    }

    /// Where cluster `number` begins.
    const fn at(&self, number: usize) -> usize {
        number << self.cluster_bits
    }
}

#[track_caller]
fn checked_in_seconds(bytes: &[u8]) -> Report {
    let begin = Instant::now();
    let report = check::check(bytes);
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    assert_ne!(report.exit_code(), 0);
    report
}

#[test]
fn a_refcount_block_that_is_named_often_is_looked_at_once() {
    let mut made = Made::new(16, 1 << 20);
    made.put(96, &0u32.to_be_bytes());
    let (table, block) = (made.at(1), made.at(10));
    made.number(40, made.at(11) as u64);
    made.number(48, table as u64);
    made.put(56, &8u32.to_be_bytes());
    made.table(table, 8 << 13, block as u64);
    made.bytes[block..block + (1 << 16)].fill(0xff);
    let report = checked_in_seconds(&made.bytes);
    assert_eq!(report.exit_code(), 2, "{:?}", report.findings.first());
}

/// Tables of 10,000 snapshots or bitmaps that are one, or overlap.
#[test]
fn tables_that_many_share_are_walked_once() {
    let mut made = Made::new(9, 1 << 20);
    let (l1, list) = (made.at(8), made.at(1100));
    made.number(40, made.at(2) as u64);
    made.number(48, made.at(1) as u64);
    made.put(56, &1u32.to_be_bytes());
    made.number(made.at(1), made.at(3) as u64);
    made.table(l1, 64 << 10, 512 * 5);
    let plain = made.bytes.clone();
    made.put(60, &10_000u32.to_be_bytes());
    made.number(64, list as u64);
    for number in 0..10_000 {
        let at = list + number * 40;
        // One table, one that grows, and one that moves.
        let (begin, entries) = match number % 3 {
            0 => (l1, 60_000),
            1 => (l1, 50_000 + number),
            _ => (l1 + number / 32 * 512, 20_000),
        };
        made.number(at, begin as u64);
        made.put(at + 8, &(entries as u32).to_be_bytes());
    }
    checked_in_seconds(&made.bytes);

    made.bytes = plain;
    made.number(88, 1);
    made.put(104, &0x2385_2875u32.to_be_bytes());
    made.put(108, &24u32.to_be_bytes());
    made.put(112, &10_000u32.to_be_bytes());
    made.number(120, 10_000 * 32);
    made.number(128, list as u64);
    for number in 0..10_000 {
        let at = list + number * 32;
        made.number(at, (l1 + number % 100 * 512) as u64);
        made.put(at + 8, &40_000u32.to_be_bytes());
        made.put(at + 16, &[1, 16, 0, 1]);
        made.put(at + 24, b"b");
    }
    checked_in_seconds(&made.bytes);
    made.number(128, u64::MAX);
    checked_in_seconds(&made.bytes);
}

/// A file of 8 TiB that takes little room: 16,384 tables of level 2 of 2 MiB in its hole.
#[test]
fn tables_in_holes_are_not_read() {
    let mut made = Made::new(21, 4 << 21);
    for (field, cluster) in [(40, 1), (48, 2)] {
        made.number(field, made.at(cluster) as u64);
    }
    made.put(36, &16_384u32.to_be_bytes());
    made.put(56, &1u32.to_be_bytes());
    let l1 = made.at(1);
    for index in 0..16_384 {
        made.number(l1 + index * 8, (index as u64 + 1) << 29);
    }
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&made.bytes, 0).unwrap();
    file.set_len((1 << 43) + (1 << 30)).unwrap();
    let begin = Instant::now();
    assert_eq!(check::check(file).exit_code(), 2);
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

/// A table of 262,144 clusters that are alike is not walked for every 4 KiB of them.
#[test]
fn what_is_asked_for_little_costs_little() {
    let mut made = Made::new(21, 5 << 21);
    made.number(24, 1 << 39);
    for (field, cluster) in [(40, 1), (48, 2)] {
        made.number(field, made.at(cluster) as u64);
    }
    made.put(56, &1u32.to_be_bytes());
    made.number(made.at(1), made.at(3) as u64);
    made.table(made.at(3), 1 << 18, 1);
    let image = Image::open(made.bytes).unwrap();
    let disk = Disk::new(vec![Layer::Qcow2(Box::new(image))]).unwrap();
    let begin = Instant::now();
    for piece in 0..20_000 {
        assert_eq!(disk.run(piece << 12, 1 << 12).unwrap().length, 1 << 12);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(disk.run(4096, u64::MAX).unwrap().length, (1 << 39) - 4096);
}

/// Data, a hole and data, and how often that was asked for.
#[derive(Default)]
struct Counted {
    asked: AtomicU64,
}

impl Source for &Counted {
    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(7);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(3 << 30)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let all = [0..1 << 30, 2 << 30..3 << 30];
        let next = all.into_iter().find(|data| data.end > offset);
        Ok(next.map(|data| data.start.max(offset)..data.end))
    }
}

#[test]
fn where_data_lies_is_asked_once_for_each_run_of_it() {
    let counted = Counted::default();
    let disk = Disk::new(vec![Layer::Raw(&counted)]).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for piece in 0..3 << 10 {
        disk.read_at(piece << 20, &mut buffer).unwrap();
        let is_hole = (1 << 10..2 << 10).contains(&piece);
        assert_eq!(buffer[0], if is_hole { 0 } else { 7 }, "{piece}");
    }
    assert!(
        counted.asked.load(Ordering::Relaxed) <= 3,
        "{:?}",
        counted.asked
    );
}

#[test]
fn many_snapshots_need_no_more_open_files_than_one() {
    let Some((qemu, dir)) = begin() else { return };
    let (base, image) = (
        dir.path().join("base.qcow2"),
        dir.path().join("image.qcow2"),
    );
    qemu.create(&base, &["4M"]);
    qemu.create(&image, &["-F", "qcow2", "-b", text(&base)]);
    for number in 0..24 {
        qemu.io(&image, &[format!("write -P {number} {number}k 4k")]);
        qemu.done(&["snapshot", "-c", &format!("s{number}"), text(&image)]);
    }
    let out = Command::new("sh")
        .args(["-c", "ulimit -n 24; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_imagegen"))
        .args([
            "qcow2",
            "convert",
            "-fqcow2",
            "-O",
            "qcow2",
            "--snapshots",
            "image.qcow2",
            "again.qcow2",
        ])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let again = dir.path().join("again.qcow2");
    for name in ["s0", "s12", "s23"] {
        assert!(
            qemu.contents(&again, Some(name)) == qemu.contents(&image, Some(name)),
            "{name}"
        );
    }
}

#[test]
fn bitmaps_of_more_than_can_be_held_are_refused() {
    let Some((qemu, dir)) = begin() else { return };
    let image = dir.path().join("image.qcow2");
    qemu.create(&image, &["1T"]);
    for name in ["one", "two", "three"] {
        qemu.done(&["bitmap", "--add", "-g", "512", text(&image), name]);
    }
    let words = ["convert", "-O", "qcow2", "--bitmaps", "image.qcow2", "x"];
    let (text, code) = said(dir.path(), &words);
    assert_eq!((text.contains("512 MiB"), code), (true, 1), "{text}");
}
