//! What is read equals what QEMU reads.

use crate::images::{self, Qemu};
use imagegen::qcow2::check;
use imagegen::qcow2::open::{Format, open};
use imagegen::qcow2::read::{Disk, Layer, What};
use rand::RngExt;
use std::fs::File;
use std::path::Path;

fn all(disk: &Disk<File>) -> Vec<u8> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

#[track_caller]
fn same(ours: &[u8], theirs: &[u8], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let differs = ours.iter().zip(theirs).position(|(one, two)| one != two);
    assert_eq!(differs, None, "{what}");
}

#[test]
fn random_images_hold_what_qemu_reads_from_them() {
    let Some(qemu) = Qemu::find() else { return };
    let mut random = images::random();
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (image, snapshots) = images::make(&qemu, dir.path(), &mut random);
        let disk = open(&image, Some(Format::Qcow2), None).unwrap().disk;
        let theirs = qemu.contents(&image, None);
        same(&all(&disk), &theirs, &format!("round {round}"));
        // In parts, as others ask for it.
        for _ in 0..20 {
            let at = random.random_range(0..disk.size());
            let mut part = vec![0; random.random_range(0..=disk.size() - at) as usize];
            disk.read_at(at, &mut part).unwrap();
            same(
                &part,
                &theirs[at as usize..][..part.len()],
                &format!("round {round} at {at}"),
            );
        }
        for name in &snapshots {
            let then = open(&image, Some(Format::Qcow2), Some(name)).unwrap().disk;
            let theirs = qemu.contents(&image, Some(name));
            same(&all(&then), &theirs, &format!("round {round}, {name}"));
        }
        map_says_the_same(&qemu, &image, &disk);
        let report = check::check(File::open(&image).unwrap());
        let (told, code) = qemu.img(&["check", "--output=json", image.to_str().unwrap()]);
        assert_eq!(
            i32::from(report.exit_code()),
            code,
            "round {round}: {report:?} {told}"
        );
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let number = |name: &str| told[name].as_u64().unwrap_or(0);
        assert_eq!(report.total_clusters, number("total-clusters"));
        assert_eq!(
            report.allocated_clusters,
            number("allocated-clusters"),
            "round {round}"
        );
        assert_eq!(report.compressed_clusters, number("compressed-clusters"));
        assert_eq!(
            report.image_end,
            number("image-end-offset"),
            "round {round}"
        );
    }
}

/// Byte by byte, because runs may be cut otherwise.
fn map_says_the_same(qemu: &Qemu, image: &Path, disk: &Disk<File>) {
    let told = qemu.done(&["map", "--output=json", image.to_str().unwrap()]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let mut at = 0;
    for one in told.as_array().unwrap() {
        let number = |name: &str| one[name].as_u64().unwrap();
        let is = |name: &str| one[name].as_bool().unwrap();
        assert_eq!(number("start"), at);
        let end = at + number("length");
        while at < end {
            let run = disk.run(at, end - at).unwrap();
            let data = matches!(run.what, What::Data(_) | What::Compressed(_));
            assert_eq!(data, is("data"), "byte {at}: {run:?} {one}");
            assert_eq!(
                run.what != What::Nothing,
                is("present"),
                "byte {at}: {run:?} {one}"
            );
            let depth = run.depth as u64 - u64::from(run.what == What::Nothing);
            assert_eq!(depth, number("depth"), "byte {at}: {run:?} {one}");
            let place = match run.what {
                What::Data(host) => Some(host),
                What::Zero(aside) => aside,
                What::Nothing | What::Compressed(_) => None,
            };
            let told = one["offset"].as_u64();
            let told = told.map(|first| first + (at - number("start")));
            // Of a subcluster that is not there QEMU tells where it would be.
            if run.what != What::Nothing {
                assert_eq!(place, told, "byte {at}: {run:?} {one}");
            }
            at += run.length;
        }
    }
    assert_eq!(at, disk.size());
}

/// Both say of any byte how far what holds of it goes on, by what single bytes are.
#[test]
fn two_disks_are_the_same_and_differ_byte_by_byte_as_in_runs() {
    let over = |parts| {
        let layers = vec![Layer::Parts(vec![1; 400], parts), Layer::Raw(vec![2; 400])];
        Disk::new(layers).unwrap()
    };
    let (one, two) = (over(vec![0..100, 200..300]), over(vec![50..250, 320..330]));
    let place = |disk: &Disk<Vec<u8>>, at| {
        let run = disk.run(at, 1).unwrap();
        (run.what, run.depth)
    };
    let is_same = |at: &u64| place(&one, *at) == place(&two, *at);
    for at in 0..400 {
        let same = (at..400).take_while(is_same).count() as u64;
        let differing = (at..400).take_while(|at| !is_same(at)).count() as u64;
        assert_eq!(one.same_places(&two, at, 400 - at).unwrap(), same, "{at}");
        assert_eq!(
            one.differing(&two, at, 400 - at).unwrap(),
            differing,
            "{at}"
        );
        assert_eq!(one.differing(&two, at, 3).unwrap(), differing.min(3));
    }
}
