//! Which SELinux label an object gets, by its path and kind, from a `file_contexts` file
//! (selabel_file(5)): lines `REGEX [-KIND] LABEL`.
//!
//! Among the lines that match, one without any special character counts before one with,
//! and a later line before an earlier one; this is the order that libselinux sorts lines
//! into. `<<none>>` leaves an object without label. Files of substitutions beside it
//! (`file_contexts.subs`) and of homes are not read: give their lines in the file.

use std::path::Path;

use regex::bytes::{Regex, RegexBuilder};
use std::sync::OnceLock;

use super::{Kind, TreeError};

/// Labels for a whole tree.
#[derive(Debug)]
pub enum Labels {
    /// The same for all.
    All(String),
    /// By path.
    Contexts(Contexts),
}

/// A `file_contexts` file.
#[derive(Debug)]
pub struct Contexts {
    /// Without special characters, sorted by path, the one that counts more behind.
    literal: Vec<Line>,
    /// In the order of the file.
    patterns: Vec<Line>,
    /// What the file is called.
    path: Box<[u8]>,
}

#[derive(Debug)]
struct Line {
    number: usize,
    /// What a path that matches begins with.
    prefix: Vec<u8>,
    pattern: String,
    /// Built when a path with this prefix comes.
    regex: OnceLock<Result<Regex, String>>,
    kind: Option<u8>,
    /// `None` for `<<none>>`.
    label: Option<Box<str>>,
}

impl Contexts {
    /// The file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or a line of it is none: with its number.
    pub fn read(path: &Path) -> Result<Self, TreeError> {
        let name = path.as_os_str().as_encoded_bytes();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|cause| TreeError::io(name, "read", cause))?;
        Self::parse(&text, name).map_err(|reason| TreeError::invalid(name, reason))
    }

    fn parse(text: &str, path: &[u8]) -> Result<Self, String> {
        let path = path.into();
        let (mut literal, mut patterns) = (Vec::new(), Vec::new());
        for (index, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let line = Line::parse(text, number);
            let line = line.ok_or_else(|| {
                format!("line {number} should be a pattern, maybe one of -- -d -l -c -b -p -s, and a label")
            })?;
            if line.prefix.len() == unescaped(&line.pattern).len() && !special(&line.pattern) {
                literal.push(line);
            } else {
                patterns.push(line);
            }
        }
        literal.sort_by(|a: &Line, b: &Line| a.prefix.cmp(&b.prefix)); // keeps the order of equals
        Ok(Self {
            literal,
            patterns,
            path,
        })
    }

    /// The label of the object at `path`, which begins with a slash.
    fn label(&self, path: &[u8], kind: &Kind) -> Result<Option<&str>, TreeError> {
        let begin = self.literal.partition_point(|line| *line.prefix < *path);
        let same = self.literal[begin..]
            .iter()
            .take_while(|line| *line.prefix == *path);
        if let Some(line) = same.filter(|line| line.is_for(kind)).last() {
            return Ok(line.label.as_deref());
        }
        for line in self.patterns.iter().rev() {
            if line.is_for(kind) && path.starts_with(&line.prefix) {
                let regex = line
                    .regex()
                    .map_err(|reason| TreeError::invalid(&self.path, reason))?;
                if regex.is_match(path) {
                    return Ok(line.label.as_deref());
                }
            }
        }
        Ok(None)
    }
}

impl Labels {
    /// The value of `security.selinux` for the object at `path`, which begins with a
    /// slash: the label and a zero byte, as setfilecon(3) stores it.
    pub(super) fn value(&self, path: &[u8], kind: &Kind) -> Result<Option<Vec<u8>>, TreeError> {
        let label = match self {
            Self::All(label) => Some(label.as_str()),
            Self::Contexts(contexts) => contexts.label(path, kind)?,
        };
        Ok(label.map(|label| [label.as_bytes(), b"\0"].concat()))
    }
}

impl Line {
    fn parse(text: &str, number: usize) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (pattern, kind, label) = match words[..] {
            [pattern, label] => (pattern, None, label),
            [pattern, kind, label] => (pattern, Some(kind), label),
            _ => return None,
        };
        let kind = match kind.map(str::as_bytes) {
            None => None,
            Some([b'-', letter]) if b"-dlcbps".contains(letter) => Some(*letter),
            Some(_) => return None,
        };
        Some(Self {
            number,
            prefix: prefix(pattern),
            pattern: pattern.to_owned(),
            regex: OnceLock::new(),
            kind,
            label: (label != "<<none>>").then(|| label.into()),
        })
    }

    fn regex(&self) -> Result<&Regex, String> {
        let built = self.regex.get_or_init(|| {
            let whole = format!("^(?:{})$", self.pattern);
            let built = RegexBuilder::new(&whole)
                .unicode(false)
                .dot_matches_new_line(true)
                .build();
            built
                .map_err(|cause| format!("line {}: not a regular expression: {cause}", self.number))
        });
        built.as_ref().map_err(String::clone)
    }

    fn is_for(&self, kind: &Kind) -> bool {
        let letter = match kind {
            Kind::File(_) => b'-',
            Kind::Directory => b'd',
            Kind::Symlink(_) => b'l',
            Kind::CharDevice(_) => b'c',
            Kind::BlockDevice(_) => b'b',
            Kind::Fifo => b'p',
            Kind::Socket => b's',
        };
        self.kind.is_none_or(|kind| kind == letter)
    }
}

/// Whether a pattern has a character that does not stand for itself.
fn special(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|letter| {
        let special = !escaped && ".^$?*+|[({".contains(letter);
        escaped = !escaped && letter == '\\';
        special
    })
}

/// A pattern without its backslashes.
fn unescaped(pattern: &str) -> Vec<u8> {
    let mut escaped = false;
    let keep = |letter: &u8| {
        escaped = !escaped && *letter == b'\\';
        !escaped
    };
    pattern.bytes().filter(keep).collect()
}

/// Whether a pattern is two or more with `|` between them, outside all parentheses.
fn has_alternatives(pattern: &str) -> bool {
    let (mut escaped, mut depth) = (false, 0i32);
    pattern.chars().any(|letter| {
        match letter {
            '(' | '[' if !escaped => depth += 1,
            ')' | ']' if !escaped => depth -= 1,
            _ => {}
        }
        let found = !escaped && letter == '|' && depth <= 0;
        escaped = !escaped && letter == '\\';
        found
    })
}

/// What everything that a pattern matches begins with.
fn prefix(pattern: &str) -> Vec<u8> {
    if has_alternatives(pattern) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut letters = pattern.bytes().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            b'\\' => match letters.next() {
                // A class of characters, not a character.
                Some(next) if next.is_ascii_alphanumeric() => break,
                Some(next) => found.push(next),
                None => break,
            },
            b'?' | b'*' | b'{' => {
                // The last character need not be there.
                while found.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
                break;
            }
            b'.' | b'^' | b'$' | b'+' | b'|' | b'[' | b'(' => break,
            _ => found.push(letter),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment\n\
        /.*                      system_u:object_r:default_t:s0\n\
        /usr(/.*)?               system_u:object_r:usr_t:s0\n\
        /usr/bin/.*          --  system_u:object_r:bin_t:s0\n\
        /usr/bin/exact\\.x       system_u:object_r:exact_t:s0\n\
        /usr/bin/e.*             system_u:object_r:late_t:s0\n\
        /usr/lib(64)?/x\\+\\+    -d  system_u:object_r:lib_t:s0\n\
        /proc/.*                 <<none>>\n\
        /etc/ab?                 system_u:object_r:etc_t:s0\n";

    fn label(path: &str, kind: Kind) -> Option<String> {
        let contexts = Contexts::parse(TEXT, b"x").unwrap();
        let value = Labels::Contexts(contexts)
            .value(path.as_bytes(), &kind)
            .unwrap()?;
        let text = String::from_utf8(value).unwrap();
        let middle = text.strip_prefix("system_u:object_r:").unwrap();
        Some(middle.strip_suffix("_t:s0\0").unwrap().to_owned())
    }

    #[test]
    fn the_last_match_counts_and_an_exact_one_before_all() {
        let cases = [
            ("/", Kind::Directory, Some("default")),
            ("/usr", Kind::Directory, Some("usr")),
            ("/usrx", Kind::Directory, Some("default")),
            ("/usr/bin/a", Kind::Fifo, Some("usr")),
            ("/usr/bin/exact.x", Kind::Fifo, Some("exact")),
            ("/usr/bin/exactyx", Kind::Fifo, Some("late")),
            ("/usr/lib64/x++", Kind::Directory, Some("lib")),
            ("/usr/lib64/x++", Kind::Fifo, Some("usr")),
            ("/proc/1", Kind::Directory, None),
            ("/etc/a", Kind::Fifo, Some("etc")),
            ("/etc/abc", Kind::Fifo, Some("default")),
        ];
        for (path, kind, wanted) in cases {
            assert_eq!(label(path, kind).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn the_prefix_never_rules_out_what_matches() {
        for (pattern, path) in [
            ("/a?/b", "//b"),
            ("/ab{0}c", "/ac"),
            ("/a|/b", "/b"),
            ("/a(b)|/b", "/b"),
            ("/\u{e9}?x", "/x"),
            ("/x\\d", "/x1"),
            ("/x\\.", "/x."),
        ] {
            assert!(path.as_bytes().starts_with(&prefix(pattern)), "{pattern}");
            assert!(
                Line::parse(&format!("{pattern} l"), 1)
                    .unwrap()
                    .regex()
                    .unwrap()
                    .is_match(path.as_bytes()),
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_is_no_line_is_refused_with_its_number() {
        for line in ["/x", "/x -q label", "/x -- label more"] {
            let reason = Contexts::parse(&format!("\n{line}\n"), b"x").unwrap_err();
            assert!(reason.contains("line 2 "), "{reason}");
        }
        let contexts = Contexts::parse("/x(?=y) label\n", b"file").unwrap();
        let error = contexts.label(b"/xy", &Kind::Fifo).unwrap_err().to_string();
        assert!(error.starts_with("file: line 1: not a regular"), "{error}");
    }
}
