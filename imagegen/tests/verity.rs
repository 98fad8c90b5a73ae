//! Hash trees of ours and those of the programs that everybody uses.
#![allow(clippy::unwrap_used, clippy::panic)]

mod tools;

use imagegen::medium::Medium;
use imagegen::target::{Overwrite, Target};
use imagegen::verity::{Algorithm, dm, fs};
use std::path::Path;
use std::process::Command;
use tools::machine;
use uuid::Uuid;

/// Bytes that differ from block to block.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = length as u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// What a program says, which must succeed.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn target(path: &Path, size: u64) -> Target {
    Target::create(path, size, Overwrite::Refuse).unwrap()
}

#[test]
fn of_no_bytes_the_digest_is_the_known_one() {
    let (digest, size) = fs::digest(&[][..], Algorithm::Sha256).unwrap();
    let wanted = "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
    assert_eq!((digest.to_string().as_str(), size), (wanted, 0));
}

/// Around the sizes at which levels fill: 1 block, 128 (or 64) blocks, their square.
#[test]
fn digests_are_those_of_the_fsverity_tool() {
    let Some(mut fsverity) = machine("fsverity") else {
        return;
    };
    let level = 128 * 4096;
    let sizes = [
        1,
        4095,
        4096,
        4097,
        level - 1,
        level,
        level + 1,
        3 * level + 5,
        128 * level,
        128 * level + 1,
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    for (algorithm, sizes) in [
        (Algorithm::Sha256, &sizes[..]),
        (
            Algorithm::Sha512,
            &[5, level / 2, level / 2 + 1, 33 * level][..],
        ),
    ] {
        for &size in sizes {
            let bytes = bytes(size);
            std::fs::write(&file, &bytes).unwrap();
            let option = format!("--hash-alg={}", algorithm.name());
            let mut command = fsverity();
            let wanted = said(command.args(["digest", "--compact", &option]).arg(&file));
            let wanted = wanted.trim();
            let streamed = fs::digest(&bytes[..], algorithm).unwrap().0;
            assert_eq!(streamed.to_string(), wanted, "{size}");
            // The same of an image that several threads read.
            let image = target(&dir.path().join("image"), size as u64);
            image.write(0, &bytes).unwrap();
            for threads in [1, 3] {
                let digest = fs::digest_image(&image, size as u64, algorithm, threads);
                assert_eq!(digest.unwrap().to_string(), wanted, "{size}, {threads}");
            }
        }
    }
}

/// Pieces of any length give the same digest as the whole.
#[test]
fn a_digest_does_not_depend_on_the_pieces() {
    let bytes = bytes(3 * 4096 + 77);
    let whole = fs::digest(&bytes[..], Algorithm::Sha256).unwrap().0;
    for piece in [1, 7, 4095, 4096, 4097, 9000] {
        let mut meter = fs::Meter::new(Algorithm::Sha256);
        bytes.chunks(piece).for_each(|piece| meter.update(piece));
        assert_eq!(meter.finish(), whole, "{piece}");
    }
}

/// One image and area, by us and by `veritysetup format`.
struct Case {
    length: usize,
    data_block: u32,
    hash_block: u32,
    algorithm: Algorithm,
    salt: Option<&'static [u8]>,
}

const SALT: Option<&[u8]> = Some(b"\x01\x02\xff");

fn case(length: usize, data_block: u32, hash_block: u32) -> Case {
    Case {
        length,
        data_block,
        hash_block,
        algorithm: Algorithm::Sha256,
        salt: SALT,
    }
}

impl Case {
    fn options(&self) -> dm::Options {
        dm::Options {
            algorithm: self.algorithm,
            data_block: self.data_block,
            hash_block: self.hash_block,
            salt: self.salt.map(<[u8]>::to_vec),
            uuid: Some(Uuid::from_u128(0x1234_5678_9abc)),
        }
    }
}

/// Sizes at which levels fill, in blocks of several sizes.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(1, 4096, 4096),
        case(4096, 4096, 4096),
        case(4097, 4096, 4096),
        case(128 * 4096, 4096, 4096),
        case(128 * 4096 + 1, 4096, 4096),
        case(16 * 512 * 16, 512, 512),
        case(16 * 512 * 16 + 1, 512, 512),
        case(300_000, 512, 4096),
        case(300_000, 4096, 512),
        case(3 << 20, 1024, 16384),
        case(3 << 20, 16384, 1024),
        case(1 << 20, 524_288, 4096),
    ];
    cases.push(Case {
        algorithm: Algorithm::Sha512,
        ..case(2 << 20, 4096, 4096)
    });
    cases.push(Case {
        salt: Some(b""),
        ..case(2 << 20, 4096, 4096)
    });
    cases.push(Case {
        salt: Some(&[7; 256]),
        ..case(2 << 20, 4096, 4096)
    });
    cases
}

#[test]
fn areas_are_those_of_veritysetup() {
    let Some(mut veritysetup) = machine("veritysetup") else {
        return;
    };
    for case in cases() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let options = case.options();
        let length = case.length as u64;
        let layout = dm::Layout::new(length, &options).unwrap();
        let whole = layout.behind() + layout.length();
        let image = target(&path("ours"), whole);
        let data = bytes(case.length);
        image.write(0, &data).unwrap();
        let area = dm::write(&image, length, &image, layout.behind(), &options, 2).unwrap();
        image.finish(false).unwrap();

        let mut theirs = data;
        theirs.resize(layout.behind() as usize, 0);
        std::fs::write(path("theirs"), &theirs).unwrap();
        let salt: String = area.salt.iter().map(|byte| format!("{byte:02x}")).collect();
        let salt = if salt.is_empty() { "-" } else { &salt };
        let place = format!("--hash-offset={}", layout.behind());
        let mut format = veritysetup();
        format
            .args(["format", &place, &format!("--salt={salt}")])
            .arg(format!("--uuid={}", area.uuid))
            .arg(format!("--hash={}", case.algorithm.name()))
            .arg(format!("--data-block-size={}", case.data_block))
            .arg(format!("--hash-block-size={}", case.hash_block))
            .arg(format!("--data-blocks={}", area.data_blocks))
            .args([path("theirs"), path("theirs")]);
        let told = said(&mut format);
        let (_, told) = told.split_once('\n').unwrap();
        let ours = area.to_string();
        assert!(told.starts_with(&ours), "{ours}\n{told}");
        let (ours, theirs) = (path("ours"), path("theirs"));
        let mut ours_bytes = std::fs::read(&ours).unwrap();
        let their_bytes = std::fs::read(&theirs).unwrap();
        // veritysetup leaves the superblock's block short where no hashes follow.
        assert!(their_bytes.len() <= ours_bytes.len());
        let more = ours_bytes.split_off(their_bytes.len());
        assert!(ours_bytes == their_bytes && more.iter().all(|byte| *byte == 0));

        let mut verify = veritysetup();
        verify.args(["verify", &place]).args([&ours, &ours]);
        said(verify.arg(area.root.to_string()));
    }
}

#[test]
fn an_area_elsewhere_with_all_derived_verifies_and_damage_does_not() {
    let Some(mut veritysetup) = machine("veritysetup") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let options = dm::Options::default();
    let length = 5 << 20;
    let layout = dm::Layout::new(length, &options).unwrap();
    let image = target(&path("image"), layout.data_length());
    image.write(0, &bytes(length as usize)).unwrap();
    let hashes = target(&path("hashes"), layout.length());
    let area = dm::write(&image, length, &hashes, 0, &options, 0).unwrap();
    let again = target(&path("again"), layout.length());
    let same = dm::write(&image, length, &again, 0, &options, 1).unwrap();
    assert_eq!(area, same);
    image.finish(false).unwrap();
    hashes.finish(false).unwrap();
    let mut verify = || {
        let mut command = veritysetup();
        command
            .arg("verify")
            .args([path("image"), path("hashes")])
            .arg(area.root.to_string());
        command.output().unwrap()
    };
    assert!(verify().status.success());
    let mut damaged = std::fs::read(path("image")).unwrap();
    damaged[3_000_000] ^= 1;
    std::fs::write(path("image"), damaged).unwrap();
    assert!(!verify().status.success());
}

#[test]
fn what_no_area_can_be_is_refused() {
    let refused = |length, options: dm::Options| {
        let refused = dm::Layout::new(length, &options);
        refused.unwrap_err().to_string()
    };
    let options = dm::Options::default;
    let block = |data_block| dm::Options {
        data_block,
        ..options()
    };
    for size in [0, 256, 4095, 1 << 20] {
        assert!(refused(1, block(size)).contains("data blocks of"), "{size}");
    }
    let hash_block = 100;
    assert!(
        refused(
            1,
            dm::Options {
                hash_block,
                ..options()
            }
        )
        .contains("hash blocks of 100")
    );
    let salt = Some(vec![0; 257]);
    assert!(refused(1, dm::Options { salt, ..options() }).contains("257 bytes"));
    assert!(refused(0, options()).contains("no bytes"));
    assert!(refused(u64::MAX, options()).contains("too large"));
}

/// Runs `imagegen erofs` and returns what it printed.
fn erofs(dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    said(command.arg("erofs").args(words).current_dir(dir))
}

#[test]
fn images_are_made_with_their_trees_and_digests() {
    let (Some(mut veritysetup), Some(mut fsverity)) = (machine("veritysetup"), machine("fsverity"))
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("tree")).unwrap();
    std::fs::write(dir.join("tree/file"), bytes(1 << 20)).unwrap();
    // Blocks smaller than those that are hashed: the image is made longer.
    for (block, more) in [
        ("4k", &[][..]),
        ("512", &[][..]),
        ("4k", &["--verity-file=hashes"]),
    ] {
        let words = [
            "-q",
            "--force",
            "--verity",
            "--fsverity",
            "--block-size",
            block,
            "image",
        ];
        let told = erofs(dir, &[&words[..], &["tree"], more].concat());
        let field = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name));
            let text = line.unwrap_or_else(|| panic!("no {name} in {told}"));
            text.split_whitespace().next().unwrap().to_owned()
        };
        let mut digest = fsverity();
        let digest = said(digest.args(["digest", "image"]).current_dir(dir));
        assert!(told.ends_with(&digest), "{told} {digest}");
        let hashes = if more.is_empty() { "image" } else { "hashes" };
        let mut verify = veritysetup();
        let place = format!("--hash-offset={}", field("Hash offset:"));
        verify.args(["verify", &place, "image", hashes, &field("Root hash:")]);
        said(verify.current_dir(dir));
        // The file system is not disturbed by what follows it.
        assert_eq!(erofs(dir, &["ls", "image"]), "file\n");
    }
    let json = erofs(
        dir,
        &[
            "--force",
            "--json",
            "--verity",
            "--verity-salt=-",
            "image",
            "tree",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["verity"]["salt"], json.get("fsverity")),
        (&"".into(), None)
    );
    assert_eq!(json["verity"]["root_hash"].as_str().unwrap().len(), 64);
    let size = std::fs::metadata(dir.join("image")).unwrap().len();
    assert_eq!(json["size"], size);
}
