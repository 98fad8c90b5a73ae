//! The command: what it says, and its exit codes.

use crate::files::populate;
use crate::judges::{digest, ours};
use crate::same::{V1, V2};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const DUMP: &str = "/ 0 40755 2 0 0 0 0.0 - - -\n\
                    /file 3 100644 1 0 0 0 5.0 - abc -\n";

/// Runs `imagegen erofs` in `dir` and wants exit code `code`.
fn erofs(dir: &Path, code: i32, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    command.arg("erofs").args(words).current_dir(dir);
    command.env_remove("SOURCE_DATE_EPOCH");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    output
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn digests_are_printed_and_images_made() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("dump"), DUMP).unwrap();
    let image = ours(DUMP, V1).unwrap();
    let wanted = digest(&image);
    let words = [
        "composefs",
        "--format=v1",
        "--print-digest",
        "image",
        "dump:dump",
    ];
    assert_eq!(printed(&erofs(dir, 0, &words)), wanted);
    assert!(fs::read(dir.join("image")).unwrap() == image);
    let words = [
        "composefs",
        "--format=v1",
        "--from-dump",
        "--digest-only",
        "dump",
    ];
    assert_eq!(printed(&erofs(dir, 0, &words)), wanted);
    assert_eq!(
        printed(&erofs(dir, 0, &["composefs-info", "measure-file", "image"])),
        wanted
    );
    let listed = erofs(dir, 0, &["composefs-info", "dump", "image"]);
    assert!(printed(&listed).ends_with("/file 3 100644 1 0 0 0 5.0 - abc -"));
    // Other verbs of the same command read it too.
    assert_eq!(printed(&erofs(dir, 0, &["cat", "image", "file"])), "abc");
    let words = ["composefs", "--format=v2", "--json", "second", "dump:dump"];
    let json: serde_json::Value = serde_json::from_str(&printed(&erofs(dir, 0, &words))).unwrap();
    assert_eq!(json["digest"], digest(&ours(DUMP, V2).unwrap()));
    assert_eq!((&json["version"], &json["objects"]), (&2.into(), &2.into()));
}

#[test]
fn a_directory_fills_a_store_of_which_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    populate(&dir.join("tree"));
    let words = [
        "composefs",
        "--json",
        "--digest-store=store",
        "image",
        "tree",
    ];
    let json: serde_json::Value = serde_json::from_str(&printed(&erofs(dir, 0, &words))).unwrap();
    assert_eq!(json["new_in_store"], 5);
    // Zeroes stand for what is in the store, and nobody must take them for it.
    let cat = erofs(dir, 1, &["cat", "image", "deep/4097"]);
    assert!(String::from_utf8_lossy(&cat.stderr).contains("store of objects"));
    let extracted = erofs(dir, 0, &["extract", "image", "copy", "deep"]);
    let said = String::from_utf8_lossy(&extracted.stderr).into_owned();
    assert!(said.contains("4097: its contents are elsewhere"), "{said}");
    erofs(dir, 0, &["check", "image"]);
    let missing = [
        "composefs-info",
        "missing-objects",
        "--basedir=store",
        "image",
    ];
    assert_eq!(printed(&erofs(dir, 0, &missing)), "");
    let objects = printed(&erofs(dir, 0, &["composefs-info", "objects", "image"]));
    let gone = objects.lines().nth(2).unwrap();
    fs::remove_file(dir.join("store").join(gone)).unwrap();
    assert_eq!(printed(&erofs(dir, 0, &missing)), gone);
    // The same image needs no store.
    let digest = erofs(dir, 0, &["composefs", "--digest-only", "tree"]);
    assert_eq!(printed(&digest), json["digest"].as_str().unwrap());
}

#[test]
fn what_does_not_go_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("tree")).unwrap();
    fs::write(dir.join("dump"), "/ 0 40755 2 0 0 0 0.0 - - -\n/a\n").unwrap();
    fs::write(dir.join("there"), "").unwrap();
    let cases: [(i32, &[&str], &str); 9] = [
        (2, &["composefs", "--dedupe", "image", "tree"], "--dedupe"),
        (
            2,
            &["composefs", "--from-dump", "image", "a", "b"],
            "one SOURCE",
        ),
        (
            2,
            &["composefs", "--from-dump", "--times=0", "image", "dump"],
            "taken as it is",
        ),
        (
            2,
            &["composefs", "--digest-store=s", "image", "dump:dump"],
            "needs --objects",
        ),
        (
            2,
            &[
                "composefs",
                "--from-dump",
                "--digest-store=s",
                "image",
                "dump",
            ],
            "--digest-store",
        ),
        (3, &["composefs", "image", "dump:dump"], "line 2"),
        (4, &["composefs", "there", "tree"], "exists"),
        (
            1,
            &["composefs-info", "ls", "there"],
            "no image of composefs",
        ),
        (
            2,
            &["composefs-info", "ls", "--filter=a/b", "there"],
            "without slash",
        ),
    ];
    for (code, words, wanted) in cases {
        let said = erofs(dir, code, words).stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(wanted), "{words:?}: {said}");
    }
    assert!(!dir.join("image").exists());
}
