//! House style, as far as a program can tell: what a newcomer may rely on.
#![allow(clippy::unwrap_used)] // all of it is a test

use std::fs;
use std::path::{Path, PathBuf};

const LONGEST_FILE: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    for part in [
        "snapstore",
        "ublk-target",
        "ctl",
        "imagegen",
        "tests",
        "fuzz/src",
        "fuzz/fuzz_targets",
    ] {
        let dir = root().join(part);
        if dir.is_dir() {
            walk(&dir, &mut found);
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn offenders(what: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let sources = sources()
        .into_iter()
        .filter(|(path, text)| what(path, text));
    sources
        .map(|(path, _)| path.display().to_string())
        .collect()
}

fn is_empty(offenders: &[String], rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn files_are_short() {
    let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let long = offenders(|_, text| text.lines().filter(code).count() > LONGEST_FILE);
    is_empty(
        &long,
        "files with more than 500 lines of code: split them by idea",
    );
}

#[test]
fn files_say_what_they_are_for() {
    let silent = offenders(|path, text| {
        // Build scripts and generated tables would be named here.
        let first = text
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("");
        !first.starts_with("//!") && path.file_name().is_some_and(|name| name != "build.rs")
    });
    is_empty(&silent, "files that do not begin with a `//!` comment");
}

#[test]
fn unsafe_lives_in_ublk_target_only() {
    let word = concat!("uns", "afe ");
    let rule = |path: &Path, text: &str| {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let mut code = code.map(|line| line.replace(concat!("forbid(uns", "afe_code)"), ""));
        !path.starts_with(root().join("ublk-target"))
            && code.any(|line| {
                line.contains(&format!("{word}{{")) || line.contains(&format!("{word}fn"))
            })
    };
    is_empty(&offenders(rule), "unsafe outside ublk-target");
}

#[test]
fn versions_stand_in_the_workspace_only() {
    for part in ["snapstore", "ublk-target", "ctl", "tests"] {
        let manifest = root().join(part).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let versions = text.lines().filter(|line| {
            let line = line.trim();
            (line.contains("version = \"") || line.contains("= \"")) && depends(&text, line)
        });
        let versions: Vec<&str> = versions.collect();
        assert!(versions.is_empty(), "{}: {versions:?}", manifest.display());
    }
}

/// Each file of tests of the real programs has its row in docs/testing.md.
#[test]
fn the_tables_of_tests_are_complete() {
    let text = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let mut missing = Vec::new();
    for dir in ["tests/tests/e2e", "tests/tests/guest"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let row = format!("\n| `{name}` |");
            if name != "main.rs" && !text.contains(&row) {
                missing.push(format!("{dir}/{name}"));
            }
        }
    }
    is_empty(&missing, "without a row in docs/testing.md");
}

/// What the table of the rules in docs/testing.md names is there: tests as
/// `` `file.rs::name` ``, planted defects as `` `Name` `` or `` `name.patch` ``.
#[test]
fn every_test_named_for_a_rule_exists() {
    let text = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let heading = "## The rules of design, one by one";
    let section = text.split(heading).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let sources = sources();
    let planted = fs::read_to_string(root().join("tests/src/sim/defect.rs")).unwrap();
    let exists = |name: &str| match name.split_once(".rs::") {
        Some((file, test)) => {
            let (file, test) = (format!("{file}.rs"), format!("fn {test}("));
            let named = sources.iter().filter(|(path, _)| path.ends_with(&file));
            named.filter(|(_, text)| is_test(text, &test)).count() == 1
        }
        None if name.ends_with(".patch") => root().join("tests/defects").join(name).is_file(),
        None => planted.contains(&format!("    {name},\n")),
    };
    let missing: Vec<String> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| !exists(name))
        .map(str::to_owned)
        .collect();
    is_empty(
        &missing,
        "named in docs/testing.md, but not once in the tree",
    );
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.filter(|row| !row.starts_with("| rule ")).collect();
    let unproven = |row: &&&str| !row.contains('`') && !row.contains("does not apply: ");
    let unproven = rows.iter().filter(unproven).map(|row| (*row).to_owned());
    is_empty(&unproven.collect::<Vec<_>>(), "rules that nothing proves");
    for rule in 1..=28 {
        let starts = format!("| {rule} | ");
        let own = rows.iter().filter(|row| row.starts_with(&starts));
        assert_eq!(own.count(), 1, "rows of rule {rule}");
    }
}

/// Whether `function` is in `text`, as a test.
fn is_test(text: &str, function: &str) -> bool {
    text.split(function).next().is_some_and(|before| {
        let last = before.rsplit("\n\n").next().unwrap_or(before);
        before.len() < text.len() && last.contains("#[test]")
    })
}

/// Whether `line` stands below a heading of dependencies.
fn depends(manifest: &str, line: &str) -> bool {
    let before = manifest.lines().take_while(|other| other.trim() != line);
    let heading = before.filter(|other| other.starts_with('[')).last();
    heading.is_some_and(|heading| heading.contains("dependencies"))
}
