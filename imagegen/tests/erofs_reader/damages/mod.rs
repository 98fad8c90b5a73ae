//! Named damages, each with the kind of finding that the checker must report.

mod contents;
mod metadata;

use crate::patient::Patient;
use contents::{CHUNKS, COMPACT, ENCODED, FLAT, FRAGMENTS, FULL, GARBAGE, METABOX};
use imagegen::erofs::check::Kind;
use metadata::{DIRECTORIES, INODES, PREFIXES, SUPERBLOCK, XATTRS};

/// One damage.
pub(crate) struct Damage {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) act: fn(&mut Patient),
}

const fn damage(name: &'static str, kind: Kind, act: fn(&mut Patient)) -> Damage {
    Damage { name, kind, act }
}

/// Damages by the options of the image that they are done to.
pub(crate) const ALL: &[(&str, &[Damage])] = &[
    (PLAIN, SUPERBLOCK),
    (PLAIN, INODES),
    (PLAIN, DIRECTORIES),
    (PLAIN, XATTRS),
    (PLAIN, FLAT),
    ("-Eforce-inode-extended --xattr-prefix=user.long.", PREFIXES),
    ("--chunksize=4096 -Eforce-inode-extended", CHUNKS),
    ("-zlz4 -Elegacy-compress", FULL),
    ("-zlz4 -C16384", COMPACT),
    ("-E48bit -zlz4hc -C65536", ENCODED),
    ("-zlz4 -Eall-fragments", FRAGMENTS),
    ("-zlzma,1", GARBAGE),
    ("-zdeflate", GARBAGE),
    ("-zzstd,1", GARBAGE),
    ("-m4096", METABOX),
];

const PLAIN: &str = "-Eforce-inode-extended";
