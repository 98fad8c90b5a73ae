//! Names and paths for people.

/// A path with the leading slash; what is not UTF-8, control characters and backslashes
/// escaped.
pub(crate) fn path(path: &[u8]) -> String {
    let mut text = String::from("/");
    let begin = path.iter().position(|byte| *byte != b'/');
    text.push_str(&name(
        begin.and_then(|at| path.get(at..)).unwrap_or_default(),
    ));
    text
}

/// A name, escaped alike.
pub(crate) fn name(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                letter if letter.is_control() => text.extend(letter.escape_default()),
                letter => text.push(letter),
            }
        }
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_could_speak_to_it() {
        assert_eq!(path(b"a/b c"), "/a/b c");
        assert_eq!(path(b"//a"), "/a");
        assert_eq!(path(b""), "/");
        assert_eq!(name("ä\u{1b}[1m\\\n".as_bytes()), "ä\\u{1b}[1m\\\\\\n");
        assert_eq!(name(b"\xffx"), "\\xffx");
    }
}
