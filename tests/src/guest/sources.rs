//! The machine's apt sources, read: both the one-line format and deb822, as
//! `sources.list(5)` describes them. Pure text in, entries out.

use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// An entry of binary packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The first address of the entry.
    pub uri: String,
    /// Its suites.
    pub suites: Vec<String>,
    /// Its components.
    pub components: Vec<String>,
    /// The keyring it demands, a path; none if apt's own are used.
    pub signed_by: Option<String>,
}

/// The entry of `suite main` that the machine itself uses.
///
/// # Errors
/// If there is none.
pub fn mirror_of(suite: &str) -> Result<Source> {
    let places = [
        Path::new("/etc/apt/sources.list"),
        Path::new("/etc/apt/sources.list.d"),
    ];
    let mut files: Vec<PathBuf> = vec![places[0].to_path_buf()];
    if let Ok(entries) = std::fs::read_dir(places[1]) {
        let mut more: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        more.sort();
        files.extend(more);
    }
    let mut entries = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => entries.extend(one_line(&text)),
            Some("sources") => entries.extend(deb822(&text)),
            _ => {}
        }
    }
    pick(entries, suite).ok_or_else(|| Error::NoMirror {
        suite: suite.into(),
        places: "/etc/apt/sources.list and /etc/apt/sources.list.d".into(),
    })
}

/// The first entry of `suite main`.
#[must_use]
pub fn pick(entries: Vec<Source>, suite: &str) -> Option<Source> {
    let has = |list: &[String], word: &str| list.iter().any(|one| one == word);
    entries
        .into_iter()
        .find(|entry| has(&entry.suites, suite) && has(&entry.components, "main"))
}

/// Entries of the one-line format: `deb [option=value ...] uri suite component...`.
#[must_use]
pub fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line_entry).collect()
}

fn one_line_entry(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="));
    Some(Source {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

/// Entries of the deb822 format: stanzas of `Field: value`, `Enabled: no` left out.
#[must_use]
pub fn deb822(text: &str) -> Vec<Source> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let Some(fields) = stanzas.last_mut() else {
            continue;
        };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            fields.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas.iter().filter_map(|one| deb822_entry(one)).collect()
}

fn deb822_entry(fields: &[(String, String)]) -> Option<Source> {
    let value = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    };
    let words = |name: &str| -> Vec<String> {
        let words = value(name).unwrap_or_default().split_whitespace();
        words.map(str::to_owned).collect()
    };
    let off = ["no", "false", "without", "off", "disable"];
    if value("enabled").is_some_and(|enabled| off.contains(&enabled.to_ascii_lowercase().as_str()))
        || !words("types").iter().any(|kind| kind == "deb")
    {
        return None;
    }
    Some(Source {
        uri: words("uris").into_iter().next()?,
        suites: words("suites"),
        components: words("components"),
        // A key written out in place is apt's business only with the machine's own entry.
        signed_by: value("signed-by")
            .filter(|path| path.starts_with('/'))
            .map(str::to_owned),
    })
}

/// Packages as they are installed, or what they are built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `deb`
    Binary,
    /// `deb-src`
    Source,
}

/// The same mirror and keyring, other suites, as deb822.
#[must_use]
pub fn render(mirror: &Source, kind: Kind, suites: &[&str]) -> String {
    let kind = match kind {
        Kind::Binary => "deb",
        Kind::Source => "deb-src",
    };
    let mut text = format!(
        "Types: {kind}\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: amd64\n",
        mirror.uri,
        suites.join(" ")
    );
    if let Some(keyring) = &mirror.signed_by {
        text.push_str(&format!("Signed-By: {keyring}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
Types: deb deb-src
# a remark in a stanza
URIs: http://mirror.invalid/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /keys/debian.gpg

Types: deb
Enabled: no
URIs: http://off.invalid/debian
Suites: bookworm-security
Components: main

Types: deb-src
URIs: http://source.invalid/debian
Suites: bookworm
Components: main
";

    const LINES: &str = "\
# deb http://comment.invalid/debian bookworm main
deb-src http://source.invalid/debian bookworm main
deb http://security.invalid/debian bookworm-security main
deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.invalid/debian bookworm main contrib # remark
";

    #[test]
    fn both_formats_say_the_same() {
        let stanza = pick(deb822(STANZAS), "bookworm").unwrap();
        let line = pick(one_line(LINES), "bookworm").unwrap();
        assert_eq!(stanza.uri, "http://mirror.invalid/debian");
        assert_eq!(stanza.suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(line.uri, stanza.uri);
        assert_eq!(line.components, stanza.components);
        assert_eq!(line.signed_by.as_deref(), Some("/keys/debian.gpg"));
        assert_eq!(stanza.signed_by, line.signed_by);
    }

    #[test]
    fn disabled_source_only_and_foreign_entries_do_not_count() {
        assert_eq!(deb822(STANZAS).len(), 1);
        assert_eq!(pick(deb822(STANZAS), "bookworm-security"), None);
        assert_eq!(one_line(LINES).len(), 2);
        let contrib = one_line("deb http://x.invalid/ bookworm contrib");
        assert_eq!(pick(contrib, "bookworm"), None);
        assert!(one_line("debris http://x.invalid bookworm main\ndeb\n").is_empty());
    }

    #[test]
    fn what_is_rendered_is_read_back() {
        let mirror = pick(deb822(STANZAS), "bookworm").unwrap();
        let again = deb822(&render(
            &mirror,
            Kind::Binary,
            &["trixie", "trixie-backports"],
        ));
        let sources = deb822(&render(&mirror, Kind::Source, &["trixie"]));
        assert!(sources.is_empty(), "{sources:?}");
        assert_eq!(again[0].suites, ["trixie", "trixie-backports"]);
        assert_eq!(again[0].signed_by, mirror.signed_by);
        assert_eq!(again[0].uri, mirror.uri);
    }
}
