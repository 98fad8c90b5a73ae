//! The command: what it makes is sound, its exit codes are as the help says, and what
//! fails leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `imagegen xfs` in `dir` and wants exit code `code`.
fn xfs(dir: &Path, code: i32, words: &[&str]) -> Output {
    imagegen(dir, code, "xfs", words)
}

/// The same of `imagegen erofs`.
fn erofs(dir: &Path, code: i32, words: &[&str]) -> Output {
    imagegen(dir, code, "erofs", words)
}

fn imagegen(dir: &Path, code: i32, format: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    let output = command
        .arg(format)
        .args(words)
        .current_dir(dir)
        .env_remove("SOURCE_DATE_EPOCH")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert_eq!(said.is_empty(), code == 0, "{words:?}: {said}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with a tree `tree` in it.
fn with_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("below")).unwrap();
    fs::write(tree.join("below/file"), vec![7; 3 << 20]).unwrap();
    fs::hard_link(tree.join("below/file"), tree.join("again")).unwrap();
    dir
}

#[test]
fn an_image_is_made_mapped_and_checked() {
    let dir = with_tree();
    let dir = dir.path();
    let made = xfs(dir, 0, &["--size=64m", "--json", "image", "tree"]);
    let summary: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(summary["size"], 64 << 20);
    assert_eq!(summary["files"], 1);
    assert_eq!(summary["directories"], 2);
    assert_eq!(summary["data"], 3 << 20);
    assert_eq!(fs::metadata(dir.join("image")).unwrap().len(), 64 << 20);

    let checked = xfs(dir, 0, &["check", "image"]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("clean"));
    let map = xfs(dir, 0, &["fsmap", "--paths", "image"]);
    assert!(String::from_utf8_lossy(&map.stdout).contains("/below/file"));

    xfs(dir, 0, &["--quiet", "--size=64m", "same", "tree"]);
    let (one, other) = (fs::read(dir.join("image")), fs::read(dir.join("same")));
    assert!(one.unwrap() == other.unwrap(), "the same tree, other bytes");
}

#[test]
fn a_tar_stream_gives_the_same_files() {
    let dir = with_tree();
    let mut tar = Command::new("tar");
    tar.args(["-c", "-C", "tree", "."]).current_dir(dir.path());
    let mut tar = tar.stdout(Stdio::piped()).spawn().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    command
        .args(["xfs", "--minimal", "image", "-"])
        .current_dir(dir.path());
    let output = command.stdin(tar.stdout.take().unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(tar.wait().unwrap().success());
    let map = xfs(dir.path(), 0, &["fsmap", "--paths", "image"]);
    assert!(String::from_utf8_lossy(&map.stdout).contains("/below/file"));
}

#[test]
fn what_is_there_is_refused_until_forced() {
    let dir = with_tree();
    let dir = dir.path();
    fs::write(dir.join("image"), "mine").unwrap();
    let refused = xfs(dir, 4, &["image", "tree"]);
    assert!(said(&refused).contains("--force"), "{}", said(&refused));
    assert_eq!(fs::read(dir.join("image")).unwrap(), b"mine");
    // Not even force takes it away if nothing comes in its place.
    xfs(dir, 3, &["--force", "image", "missing"]);
    assert_eq!(fs::read(dir.join("image")).unwrap(), b"mine");
    xfs(dir, 0, &["--force", "--quiet", "image", "tree"]);
    xfs(dir, 0, &["check", "--quiet", "image"]);
}

#[test]
fn failures_have_their_codes_and_leave_nothing() {
    let dir = with_tree();
    let dir = dir.path();
    fs::write(dir.join("tree/large"), vec![1; 12 << 20]).unwrap();
    let full = xfs(dir, 5, &["--size=16m", "image", "tree"]);
    assert!(said(&full).contains("no space left in the image"));
    let small = xfs(dir, 2, &["--size=8m", "image", "tree"]);
    assert!(said(&small).contains("16777216"), "{}", said(&small));
    let option = xfs(dir, 2, &["--size=1g", "--block-size=3000", "image"]);
    assert!(said(&option).contains("--block-size 3000"));
    xfs(dir, 2, &["image"]);
    xfs(dir, 2, &["--size=64m", "--exclude=*.o", "image", "-"]);
    let absent = xfs(dir, 3, &["image", "missing"]);
    assert!(said(&absent).contains("missing"), "{}", said(&absent));
    xfs(dir, 1, &["--size=64m", "no/such/dir/image", "tree"]);
    xfs(dir, 1, &["check", "missing"]);
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["tree"]);
}

#[test]
fn damage_has_its_code() {
    let dir = with_tree();
    let dir = dir.path();
    xfs(dir, 0, &["--quiet", "--size=64m", "image", "tree"]);
    let path = dir.join("image");
    let mut bytes = fs::read(&path).unwrap();
    // In the AGF, sector 1.
    bytes[512 + 60] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = xfs(dir, 6, &["check", "image"]);
    assert!(String::from_utf8_lossy(&found.stdout).contains("AGF"));
    xfs(dir, 6, &["check", "--quiet", "image"]);
    xfs(dir, 6, &["fsmap", "image"]);
}

#[test]
fn an_erofs_image_is_made_and_checked() {
    let dir = with_tree();
    let dir = dir.path();
    let made = erofs(dir, 0, &["--json", "--label=some", "image", "tree"]);
    let summary: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let size = fs::metadata(dir.join("image")).unwrap().len();
    assert_eq!(summary["size"], size);
    assert_eq!(
        (&summary["files"], &summary["directories"]),
        (&1.into(), &2.into())
    );
    erofs(dir, 0, &["check", "--quiet", "image"]);
    erofs(
        dir,
        0,
        &["--quiet", "--label=some", "--threads=3", "same", "tree"],
    );
    let (one, other) = (fs::read(dir.join("image")), fs::read(dir.join("same")));
    assert!(one.unwrap() == other.unwrap(), "the same tree, other bytes");
}

#[test]
fn data_of_an_erofs_image_lies_where_it_was_asked_for() {
    let dir = with_tree();
    let dir = dir.path();
    let blob = ["--blob=data", "--blob-tag=x", "--dedupe"];
    erofs(dir, 0, &[&blob[..], &["--quiet", "image", "tree"]].concat());
    let length = |name: &str| fs::metadata(dir.join(name)).unwrap().len();
    let again = ["--json", "--force", "image", "tree"];
    let made = erofs(dir, 0, &[&blob[..], &again].concat());
    let summary: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(summary["blob_size"], length("data"));
    assert_eq!(summary["size"], length("image"));
    assert!(
        length("image") < 64 << 10 && length("data") == 4096,
        "equal blocks once"
    );
    let data = ["--device=data", "image", "below/file"];
    assert_eq!(
        erofs(dir, 0, &[&["cat"][..], &data].concat()).stdout,
        vec![7; 3 << 20]
    );
    let mut tar = Command::new("tar");
    tar.args(["-cf", "tree.tar", "-C", "tree", "."])
        .current_dir(dir);
    assert!(tar.status().unwrap().success());
    erofs(dir, 0, &["--quiet", "--tar-index", "indexed", "tree.tar"]);
    let data = ["--device=tree.tar", "indexed", "again"];
    assert_eq!(
        erofs(dir, 0, &[&["cat"][..], &data].concat()).stdout,
        vec![7; 3 << 20]
    );
    assert!(length("indexed") < 64 << 10);
    // No part takes another's place, whatever it is called.
    let before = fs::read(dir.join("tree.tar")).unwrap();
    let archive = ["--force", "--tar-index", "tree/../tree.tar", "tree.tar"];
    assert!(said(&erofs(dir, 2, &archive)).contains("a file of its own"));
    assert_eq!(fs::read(dir.join("tree.tar")).unwrap(), before);
    erofs(dir, 2, &["--force", "--blob=./one", "one", "tree"]);
    erofs(
        dir,
        2,
        &["--verity", "--verity-file=one", "--blob=one", "two", "tree"],
    );
    assert!(!dir.join("one").exists() && !dir.join("two").exists());
}

#[test]
fn erofs_failures_have_their_codes_and_leave_nothing() {
    let dir = with_tree();
    let dir = dir.path();
    let option = erofs(dir, 2, &["--block-size=3000", "image", "tree"]);
    assert!(said(&option).contains("--block-size 3000"));
    let level = said(&erofs(dir, 2, &["--compress=lz4,9", "image", "tree"]));
    assert!(level.contains("only 1 is possible"), "{level}");
    let level = said(&erofs(dir, 2, &["--compress=zstd,99", "image", "tree"]));
    assert!(level.contains("choose one from 1 to 22"), "{level}");
    for how in ["--compress=lz4", "--compress-rule=*=lz4"] {
        let text = said(&erofs(dir, 2, &["--blob=data", how, "image", "tree"]));
        let option = how.split('=').next().unwrap();
        assert!(text.contains(&format!("--blob with {option}:")), "{text}");
        assert!(!text.contains("--chunk-size"), "{text}");
    }
    erofs(dir, 2, &["--tar-index", "image", "tree"]);
    erofs(dir, 2, &["--chunk-size=1k", "image", "tree"]);
    erofs(dir, 3, &["image", "missing"]);
    erofs(dir, 1, &["no/such/dir/image", "tree"]);
    erofs(dir, 1, &["--blob=no/such/dir/data", "image", "tree"]);
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["tree"]);
    fs::write(dir.join("image"), "mine").unwrap();
    erofs(dir, 4, &["image", "tree"]);
    assert_eq!(fs::read(dir.join("image")).unwrap(), b"mine");
    erofs(dir, 0, &["--force", "--quiet", "image", "tree"]);
}
