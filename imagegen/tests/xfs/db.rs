//! xfs_db as a second reader of an image.

use crate::image::Image;
use crate::tools::{Suite, xfsprogs};
use std::collections::BTreeMap;

/// Answers of xfs_db to several questions, one program run for all.
pub(crate) fn ask(suite: Suite, image: &Image, questions: &[Vec<String>]) -> Option<Vec<Answer>> {
    const MARK: &str = "--8<-- \n";
    let mut answers = Vec::new();
    for part in questions.chunks(500) {
        let mut command = xfsprogs(suite, "xfs_db")?;
        command.arg("-r").arg("-f");
        for question in part {
            for line in question {
                command.args(["-c", line]);
            }
            command.args(["-c", &format!("echo {}", MARK.trim_end())]);
        }
        let output = command.arg(image.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.trim().is_empty(),
            "xfs_db: {errors}"
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let sections = text.split(MARK).take(part.len());
        answers.extend(sections.map(|text| Answer(text.to_owned())));
    }
    assert_eq!(answers.len(), questions.len());
    Some(answers)
}

/// What it printed.
#[derive(Debug, Clone)]
pub(crate) struct Answer(pub(crate) String);

/// One extent of a fork, in blocks: where in the fork, where on the device, how many.
pub(crate) type Extent = (u64, u64, u64);

impl Answer {
    /// Lines `name = value`.
    pub(crate) fn fields(&self) -> BTreeMap<&str, &str> {
        self.0
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .collect()
    }

    /// A number, whatever base it is printed in.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let fields = self.fields();
        let value = fields
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in: {}", self.0));
        let value = value.split_whitespace().next().unwrap_or("");
        let parsed = match (value.strip_prefix("0x"), value.strip_prefix('0')) {
            (Some(hex), _) => u64::from_str_radix(hex, 16),
            (None, Some(octal)) if !octal.is_empty() => u64::from_str_radix(octal, 8),
            _ => value.parse(),
        };
        parsed.unwrap_or_else(|error| panic!("{name} = {value}: {error}"))
    }

    /// The answer to `bmap`.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        let extent = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| {
                let at = words.iter().position(|found| *found == word)?;
                words.get(at + 1)?.parse().ok()
            };
            Some((after("offset")?, after("startblock")?, after("count")?))
        };
        self.0.lines().filter_map(extent).collect()
    }

    /// Tuples of a B-tree block's `recs[1-9] = [a,b] 1:[1,2] 2:[3,4]`.
    pub(crate) fn records(&self) -> Vec<Vec<u64>> {
        let records = self
            .0
            .split("recs[")
            .nth(1)
            .and_then(|text| text.split_once("] = ["))
            .map_or("", |(_, text)| text);
        let body = records.split_once(']').map_or("", |(_, body)| body);
        body.split(":[")
            .skip(1)
            .map(|tuple| {
                let inside = tuple.split(']').next().unwrap_or("");
                inside.split(',').map(number).collect()
            })
            .collect()
    }
}

fn number(text: &str) -> u64 {
    let text = text.trim();
    let parsed = text
        .strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.unwrap_or_else(|_| text.parse::<i64>().map_or(u64::MAX, |value| value as u64))
}

/// A question of several commands.
pub(crate) fn question(commands: &[&str]) -> Vec<String> {
    commands
        .iter()
        .map(|command| (*command).to_owned())
        .collect()
}
