//! Named damages, each with the kind of problem that the checker must report.

mod files;
mod groups;

use crate::damage::Patient;
use imagegen::xfs::check::Kind;

/// One damage.
pub(crate) struct Damage {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Only with parent pointers.
    pub(crate) parent: bool,
    pub(crate) act: fn(&mut Patient),
}

const fn damage(name: &'static str, kind: Kind, act: fn(&mut Patient)) -> Damage {
    Damage {
        name,
        kind,
        parent: false,
        act,
    }
}

/// All damages.
pub(crate) const ALL: &[&[Damage]] = &[
    groups::SUPERS,
    groups::HEADERS,
    groups::TREES,
    files::INODES,
    files::FORKS,
    files::DIRECTORIES,
    files::ATTRIBUTES,
];
