//! Bytes at random: whatever an image says, reading it ends, soon and without a panic.

use crate::images::Tree;
use crate::patient::Patient;
use imagegen::erofs::read::{Image, Step};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

const OPTIONS: [&str; 9] = [
    "-x1",
    "--chunksize=4096 -Eforce-inode-extended",
    "-zlz4 -Elegacy-compress",
    "-zlz4 -C16384 -Eztailpacking",
    "-zzstd,1 -Eall-fragments,dedupe",
    "-zlzma,1 -C65536",
    "-zdeflate -b512 --zD",
    "-E48bit -zlz4 -Efragments",
    "-m4096 --xattr-prefix=user.com",
];

/// No image of this size may take longer, whatever is in it.
const BOUND: Duration = Duration::from_secs(20);

#[test]
fn bytes_changed_at_random_do_no_harm() {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let tree = Tree::new(60_000);
    let (mut found, mut all) = (0, 0);
    for options in OPTIONS {
        let Some(mut patient) = Patient::new(options, &tree) else {
            return;
        };
        for round in 0..25 {
            damage(&mut patient, &mut random);
            let begin = Instant::now();
            let report = patient.check();
            read_all(&patient.bytes);
            let took = begin.elapsed();
            assert!(
                took < BOUND,
                "{options}, seed {seed}, round {round}: {took:?}"
            );
            found += u64::from(report.exit_code() != 0);
            all += 1;
            patient.heal();
        }
    }
    // Contents that are not compressed have no checksum: such damage cannot be seen.
    assert!(found * 4 > all, "seed {seed}: only {found} of {all} seen");
}

/// Most of it where inodes and directories are: what is not noise.
fn damage(patient: &mut Patient, random: &mut ChaCha8Rng) {
    let inode = patient.find("many");
    let near = (inode.at as usize).min(patient.bytes.len() - 1);
    for _ in 0..random.random_range(1..30) {
        let length = patient.bytes.len();
        let at = match random.random_range(0..4) {
            0 => 1024 + random.random_range(0..144),
            1 => random.random_range(0..length),
            _ => (near & !4095) + random.random_range(0..4 * 4096),
        };
        let byte = match random.random_range(0..3) {
            0 => 0xff,
            1 => random.random(),
            _ => patient.bytes[at % length] ^ (1 << random.random_range(0..8)),
        };
        patient.bytes[at % length] = byte;
    }
    if random.random_range(0..8) == 0 {
        let length = random.random_range(0..patient.bytes.len());
        patient.bytes.truncate(length);
    }
}

/// Some of everything that can be read.
fn read_all(bytes: &[u8]) {
    let Ok(image) = Image::open(bytes) else {
        return;
    };
    let Ok(root) = image.root() else { return };
    let mut walk = image.walk(root);
    let mut steps = 0;
    let mut buffer = vec![0; 10_000];
    while let Some(step) = walk.next() {
        steps += 1;
        if steps > 2000 {
            break;
        }
        let (Step::Enter(inode) | Step::Node(inode)) = step else {
            continue;
        };
        let _ = image.xattrs(&inode);
        let _ = image.link(&inode);
        let Ok(mut contents) = image.contents(&inode) else {
            continue;
        };
        for at in [0, inode.size / 2, inode.size.saturating_sub(9)] {
            let _ = contents.read_at(at, &mut buffer);
        }
    }
}
