//! Which objects are left out, by patterns over their paths below the root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::TreeError;

/// Compiled patterns; see [`WalkOptions::exclude`](super::WalkOptions::exclude).
pub(super) struct Excludes {
    all: GlobSet,
    directories: GlobSet,
}

impl Excludes {
    pub(super) fn new(patterns: &[String]) -> Result<Self, TreeError> {
        let (mut all, mut directories) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let invalid = |reason: String| TreeError::invalid(pattern.as_bytes(), reason);
            let bare = pattern.trim_end_matches('/');
            if bare.is_empty() {
                return Err(invalid("a pattern that would leave out everything".into()));
            }
            let glob = glob(bare);
            let glob = glob.map_err(|cause| invalid(format!("not a pattern: {cause}")))?;
            if bare.len() < pattern.len() {
                directories.add(glob);
            } else {
                all.add(glob);
            }
        }
        let build = |set: GlobSetBuilder| {
            let built = set.build();
            built.map_err(|cause| {
                TreeError::invalid(b"the patterns of what to leave out", cause.to_string())
            })
        };
        let (all, directories) = (build(all)?, build(directories)?);
        Ok(Self { all, directories })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.directories.is_empty()
    }

    /// Whether the object at `path`, relative to the root, is left out.
    pub(super) fn matches(&self, path: &[u8], directory: bool) -> bool {
        let candidate = Candidate::new(OsStr::from_bytes(path));
        self.all.is_match_candidate(&candidate)
            || (directory && self.directories.is_match_candidate(&candidate))
    }
}

/// A pattern over paths below the root: `*` and `?` within a name, `**` across, anchored by
/// a leading slash.
pub(crate) fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    let glob = match pattern.strip_prefix('/') {
        Some(anchored) => anchored.trim_start_matches('/').to_owned(),
        None => format!("**/{pattern}"),
    };
    GlobBuilder::new(&glob).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(pattern: &str, path: &str, directory: bool) -> bool {
        let excludes = Excludes::new(&[pattern.to_owned()]).unwrap();
        excludes.matches(path.as_bytes(), directory)
    }

    #[test]
    fn patterns_are_anchored_only_by_a_leading_slash() {
        assert!(left_out("*.o", "a.o", false) && left_out("*.o", "x/y/a.o", false));
        assert!(left_out("/a.o", "a.o", false) && !left_out("/a.o", "x/a.o", false));
        assert!(left_out("b/out", "b/out", true) && left_out("b/out", "x/b/out", true));
        assert!(!left_out("b/out", "xb/out", true) && !left_out("b/out", "b/out/x", true));
    }

    #[test]
    fn a_star_stays_in_its_directory_and_two_do_not() {
        assert!(left_out("/x/*", "x/y", false) && !left_out("/x/*", "x/y/z", false));
        assert!(left_out("/x/**/z", "x/y/y/z", false) && left_out("/x/**", "x/y/z", false));
        assert!(left_out("[ab]?", "q/bz", false) && !left_out("[ab]?", "q/cz", false));
    }

    #[test]
    fn a_trailing_slash_means_directories() {
        assert!(left_out("tmp/", "x/tmp", true) && !left_out("tmp/", "x/tmp", false));
    }

    #[test]
    fn bytes_that_are_not_text_match_too() {
        let excludes = Excludes::new(&["a*z".to_owned()]).unwrap();
        assert!(excludes.matches(b"q/a\xff\xfez", false));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_name() {
        for pattern in ["a[", "", "/", "{a"] {
            let Err(error) = Excludes::new(&[pattern.to_owned()]) else {
                panic!("{pattern} was taken")
            };
            assert!(
                error.to_string().starts_with(&format!("{pattern}: ")),
                "{error}"
            );
        }
    }
}
