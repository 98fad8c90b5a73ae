//! Text on the wire is bounded; people's names and messages may not be.

/// The longest beginning of `text` that has at most `most` bytes and is whole.
pub(super) fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
