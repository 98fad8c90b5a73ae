//! CRC32C over a metadata block (`xfs_cksum.h`): computed with its own field as zero,
//! stored inverted and little-endian, unlike every other number of the format.

/// The checksum of `bytes`, whose own field of 4 bytes begins at `at`.
fn over(bytes: &[u8], at: usize) -> u32 {
    let before = crc32c::crc32c(&bytes[..at]);
    let field = crc32c::crc32c_append(before, &[0; 4]);
    crc32c::crc32c_append(field, &bytes[at + 4..])
}

/// Puts the checksum of `bytes` into its field at `at`.
///
/// # Panics
/// If the field does not lie inside `bytes`: a mistake of the caller.
pub fn seal(bytes: &mut [u8], at: usize) {
    let sum = over(bytes, at);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Whether the checksum at `at` is that of `bytes`.
///
/// # Panics
/// If the field does not lie inside `bytes`: a mistake of the caller.
pub fn holds(bytes: &[u8], at: usize) -> bool {
    bytes[at..at + 4] == over(bytes, at).to_le_bytes()
}
