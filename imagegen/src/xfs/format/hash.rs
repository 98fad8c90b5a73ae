//! The hash of names in directories and attributes (`xfs_da_hashname` in
//! `xfs_da_btree.c`), and the one of parent pointers (`xfs_parent_hashval` in
//! `xfs_parent.c`).

/// Hash of a name of a directory entry or an attribute.
pub fn name(name: &[u8]) -> u32 {
    let mut hash = 0_u32;
    let mut fours = name.chunks_exact(4);
    for four in &mut fours {
        hash = (u32::from(four[0]) << 21)
            ^ (u32::from(four[1]) << 14)
            ^ (u32::from(four[2]) << 7)
            ^ u32::from(four[3])
            ^ hash.rotate_left(28);
    }
    match *fours.remainder() {
        [a, b, c] => {
            (u32::from(a) << 14) ^ (u32::from(b) << 7) ^ u32::from(c) ^ hash.rotate_left(21)
        }
        [a, b] => (u32::from(a) << 7) ^ u32::from(b) ^ hash.rotate_left(14),
        [a] => u32::from(a) ^ hash.rotate_left(7),
        _ => hash,
    }
}

/// A name as it compares where case does not count: ASCII in lower case, and the letters
/// of Latin-1 likewise (`xfs_ascii_ci_xfrm` in `xfs_dir2.c`).
pub fn folded(name: &[u8]) -> Vec<u8> {
    let small = |byte: &u8| match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte + 0x20,
        byte => *byte,
    };
    name.iter().map(small).collect()
}

/// Hash of a name of a directory entry, which is of the [`folded`] name where case does
/// not count (`xfs_ascii_ci_hashname` in `xfs_dir2.c`).
pub fn entry(entry: &[u8], folds: bool) -> u32 {
    if folds {
        name(&folded(entry))
    } else {
        name(entry)
    }
}

/// Hash of the parent pointer of an entry called `name` in directory `parent`; `folds`
/// as in [`entry`].
pub fn parent(name: &[u8], parent: u64, folds: bool) -> u32 {
    let (high, low) = ((parent >> 32) as u32, parent as u32);
    entry(name, folds) ^ high ^ low
}

#[cfg(test)]
mod tests {
    use super::name;

    /// As `xfs_db -c "hash NAME"` prints them.
    #[test]
    fn names_hash_as_xfs_db_says() {
        assert_eq!(name(b""), 0);
        assert_eq!(name(b"a"), 0x61);
        assert_eq!(name(b"lost+found"), 0x021a_a60c);
        assert_eq!(name(b"abcdefghijk"), 0x1ed3_fa2c);
    }
}
