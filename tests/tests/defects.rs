//! The patches of `tests/defects` fit the sources they plant defects in, and the
//! documentation lists them. Whether worlds or tests see them `scripts/defects` tells.
#![allow(clippy::unwrap_used)] // all of it is a test

use std::fs;
use std::path::Path;

struct Patch {
    name: String,
    text: String,
}

impl Patch {
    fn header(&self, field: &str) -> Option<&str> {
        let lines = self.text.lines().take_while(|l| !l.starts_with("---"));
        let mut values = lines.filter_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        values.next()
    }

    /// The lines that each hunk expects, and in which file.
    fn expects(&self) -> Vec<(&str, String)> {
        let mut hunks: Vec<(&str, String)> = Vec::new();
        let mut file = None;
        for line in self.text.lines() {
            if let Some(path) = line.strip_prefix("--- ") {
                file = path.strip_prefix("a/");
            } else if line.starts_with("@@ ") {
                hunks.extend(file.map(|file| (file, "\n".to_owned())));
            } else if let (Some(rest), Some((_, old))) =
                (line.strip_prefix([' ', '-']), hunks.last_mut())
            {
                old.push_str(rest);
                old.push('\n');
            }
        }
        hunks
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn patches() -> Vec<Patch> {
    let entries = fs::read_dir(root().join("tests/defects")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<Patch> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "patch"))
        .map(|path| Patch {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect();
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 14, "the patches were not found");
    found
}

/// Those that plant a defect; the other one adds the switch.
fn defects() -> Vec<Patch> {
    let all = patches().into_iter();
    all.filter(|patch| patch.name != "switch").collect()
}

#[test]
fn every_patch_fits_and_in_one_place_only() {
    let mut wrong = Vec::new();
    for patch in patches() {
        for (file, old) in patch.expects() {
            let source = fs::read_to_string(root().join(file)).unwrap_or_default();
            let places = source.matches(&old).count();
            if places != 1 {
                wrong.push(format!("{}.patch: {places} in {file}:{old}", patch.name));
            }
        }
    }
    assert!(wrong.is_empty(), "no longer apply:\n{}", wrong.join("\n"));
}

#[test]
fn every_patch_says_what_it_breaks_and_has_a_switch_of_its_own() {
    for patch in defects() {
        let name = &patch.name;
        assert!(patch.header("breaks").is_some(), "{name}");
        assert!(seen_by(&patch).is_some(), "{name}");
        let switch = format!("planted::is(\"{name}\")");
        let own = patch.text.matches(&switch).count();
        let all = patch.text.matches("planted::is(").count();
        assert!(own > 0, "{name} asks no switch");
        assert_eq!(own, all, "{name} asks another's switch");
    }
}

#[test]
fn every_defect_is_listed() {
    let text = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let listed: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("| planted defect |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let rows: Vec<String> = defects().iter().map(row).collect();
    assert_eq!(listed, rows, "the table should be:\n{}\n", rows.join("\n"));
}

/// The worlds, or the test, that see it: one of the two.
fn seen_by(patch: &Patch) -> Option<String> {
    let headers = ["test", "worlds", "seeds"].map(|name| patch.header(name));
    match headers {
        [Some(arguments), None, None] => {
            let path: Vec<&str> = arguments.split_whitespace().last()?.split("::").collect();
            let [.., file, function] = path[..] else {
                return Some(format!("test `{}`", path.first()?));
            };
            Some(format!("test `{file}::{function}`"))
        }
        [
            None,
            Some(kind @ ("both" | "stand-in" | "lanes")),
            Some(seeds),
        ] => {
            let seeds: u64 = seeds.parse().ok()?;
            (seeds > 0).then(|| format!("{kind}, {seeds}"))
        }
        _ => None,
    }
}

fn row(patch: &Patch) -> String {
    let what = patch.text.lines().next().unwrap_or("");
    let field = |name| patch.header(name).unwrap_or("");
    format!(
        "| `{}.patch` | {} | {} | {} |",
        patch.name,
        what.trim_end_matches('.'),
        field("breaks"),
        seen_by(patch).unwrap_or_default()
    )
}
