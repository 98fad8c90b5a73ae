//! The verbs of the command: what they print, their exit codes, their JSON.

use crate::images::{Made, Tree, made};
use crate::tools::Suite;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn erofs(code: i32, words: &[&str], image: &Path, rest: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    command.arg("erofs").args(words).arg(image).args(rest);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{words:?} {rest:?}: {said}"
    );
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn image(options: &str) -> Option<Made> {
    made(Suite::Newest, options, Tree::new(50_000).path())
}

#[test]
fn directories_are_listed() {
    let Some(made) = image("") else { return };
    let image = &made.image;
    assert_eq!(text(&erofs(0, &["ls"], image, &["names"])), "one\ntwo\n");
    let all = text(&erofs(0, &["ls", "-R"], image, &[]));
    assert!(
        all.contains("\nnames/two\n") && all.contains("deep/er/and/deeper\n"),
        "{all}"
    );
    let long = text(&erofs(0, &["ls", "-l"], image, &["/"]));
    assert!(long.contains(" link -> where/it/leads\n"), "{long}");
    assert!(long.contains("prw-r-----   1 "), "{long}");
    let row = text(&erofs(0, &["ls", "--json"], image, &["names/one"]));
    let row: serde_json::Value = serde_json::from_str(&row).unwrap();
    assert_eq!((&row["links"], &row["size"]), (&3.into(), &22.into()));
    assert_eq!(
        (&row["path"], &row["kind"]),
        (&"one".into(), &"file".into())
    );
}

#[test]
fn contents_come_out() {
    let Some(made) = image("-zlz4 -Eall-fragments") else {
        return;
    };
    let tree = Tree::new(50_000);
    let large = erofs(0, &["cat"], &made.image, &["large"]);
    assert!(large.stdout == fs::read(tree.path().join("large")).unwrap());
    assert_eq!(
        text(&erofs(0, &["cat"], &made.image, &["link"])),
        "where/it/leads"
    );
    let said = erofs(2, &["cat"], &made.image, &["names"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("no contents"));
    let said = erofs(2, &["cat"], &made.image, &["nothing"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("/nothing"));
}

#[test]
fn structures_are_shown() {
    let Some(made) = image("-zlz4 -Ededupe --xattr-prefix=user.com") else {
        return;
    };
    let image = &made.image;
    let shown = text(&erofs(0, &["dump"], image, &[]));
    assert!(
        shown.contains(", holds\n") && shown.contains("lz4"),
        "{shown}"
    );
    let json = erofs(0, &["dump", "--json"], image, &[]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["block_size"], 4096);
    assert_eq!(json["checksum_holds"], true);
    assert_eq!(json["prefixes"][0]["infix"], "com");
    let json = erofs(0, &["dump", "--json"], image, &["large"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let lengths = json["extents"].as_array().unwrap().iter();
    let sum: u64 = lengths
        .map(|extent| extent["length"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 50_000);
    let by_number = format!("--nid={}", json["nid"]);
    let shown = text(&erofs(0, &["dump", &by_number], image, &[]));
    assert!(shown.contains("Lz4") && shown.contains("OFFSET"), "{shown}");
    let shown = text(&erofs(0, &["dump"], image, &["names"]));
    assert!(shown.contains("directory block at 0"), "{shown}");
    let shown = text(&erofs(0, &["dump"], image, &["sizes/text-100"]));
    assert!(shown.contains("user.common (shared, "), "{shown}");
}

#[test]
fn damage_has_its_code() {
    let Some(made) = image("-Eforce-inode-extended") else {
        return;
    };
    let path = &made.image;
    assert!(text(&erofs(0, &["check"], path, &[])).starts_with("clean: "));
    let mut bytes = fs::read(path).unwrap();
    bytes[1024 + 70] ^= 1;
    fs::write(path, &bytes).unwrap();
    let found = text(&erofs(6, &["check"], path, &[]));
    assert!(found.contains("checksum"), "{found}");
    let found = erofs(6, &["check", "--json"], path, &[]);
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["problems"][0]["kind"], "checksum");
    assert!(erofs(6, &["check", "--quiet"], path, &[]).stdout.is_empty());
    // Nothing of it is needed to read on.
    erofs(0, &["ls"], path, &[]);
    bytes[1024] ^= 1;
    fs::write(path, &bytes).unwrap();
    let said = erofs(1, &["ls"], path, &[]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("no EROFS"));
    erofs(1, &["check"], path, &[]);
}

#[test]
fn an_extraction_says_what_it_did() {
    let Some(made) = image("") else { return };
    let out = tempfile::tempdir().unwrap();
    let target = out.path().to_str().unwrap();
    let report = erofs(0, &["extract", "--json"], &made.image, &[target, "names"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["objects"], 1);
    assert_eq!(report["data"], 22);
    let said = erofs(4, &["extract"], &made.image, &[target]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("--force"));
    erofs(
        0,
        &["extract", "--force", "--quiet"],
        &made.image,
        &[target, "names"],
    );
}
