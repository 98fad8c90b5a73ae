//! Images of dumps, by us and by others.

use crate::tools;
use imagegen::erofs::composefs::{ComposefsError, Format, Prepared, Version, read_dump};
use imagegen::verity::{Algorithm, fs};
use std::path::Path;
use std::process::Command;

/// Our image of a dump.
pub(crate) fn ours(dump: &str, format: Format) -> Result<Vec<u8>, ComposefsError> {
    let tree = read_dump(dump.as_bytes(), b"dump", format)?;
    let prepared = Prepared::new(tree, format)?;
    let image = prepared.lay_out()?;
    let mut bytes = Vec::new();
    image.write(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, image.length());
    Ok(bytes)
}

/// An image's own digest.
pub(crate) fn digest(image: &[u8]) -> String {
    let digest = fs::digest(image, Algorithm::Sha256).unwrap().0;
    digest.to_string()
}

/// Who makes images besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Other {
    /// `mkcomposefs`.
    C,
    /// The Rust crate.
    Crate,
}

/// Image of a dump in `file` by another, who must take it; none if he is not there.
pub(crate) fn theirs(other: Other, file: &Path, format: Format) -> Option<Vec<u8>> {
    let image = file.with_extension("image");
    match other {
        Other::C => {
            let mut command = mkcomposefs(format)?;
            succeed(command.arg("--from-file").arg(file).arg(&image));
            Some(std::fs::read(&image).unwrap())
        }
        Other::Crate => {
            let mut command = oracle(format)?;
            Some(succeed(command.arg("dump").arg(file)))
        }
    }
}

/// The same of a dump that the other may refuse, which is `Some(None)`.
pub(crate) fn offered(other: Other, file: &Path, format: Format) -> Option<Option<Vec<u8>>> {
    let image = file.with_extension("image");
    let output = match other {
        Other::C => {
            let mut command = mkcomposefs(format)?;
            command.arg("--from-file").arg(file).arg(&image).output()
        }
        Other::Crate => oracle(format)?.arg("dump").arg(file).output(),
    };
    let output = output.unwrap();
    Some(output.status.success().then(|| match other {
        Other::C => std::fs::read(&image).unwrap(),
        Other::Crate => output.stdout,
    }))
}

/// `mkcomposefs` for a format.
pub(crate) fn mkcomposefs(format: Format) -> Option<Command> {
    let mut command = tools::composefs("mkcomposefs")?;
    match format {
        Format::Auto => &mut command,
        Format::Exactly(version) => command
            .arg(format!("--min-version={}", version.number()))
            .arg(format!("--max-version={}", version.number())),
    };
    Some(command)
}

/// The crate's program for a format.
pub(crate) fn oracle(format: Format) -> Option<Command> {
    let mut command = tools::composefs_crate()?;
    command.arg(match format {
        Format::Exactly(Version::V1) => "v1",
        Format::Exactly(Version::V2) => "v2",
        Format::Auto | Format::Exactly(Version::V0) => "v0",
    });
    Some(command)
}

/// What a program says, which must succeed.
pub(crate) fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error} ({command:?})");
    output.stdout
}

/// Says where two images differ first.
pub(crate) fn equal(ours: &[u8], theirs: &[u8], what: &str) {
    if ours != theirs {
        let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
        let (a, b) = (ours.len(), theirs.len());
        panic!("{what}: {a} and {b} bytes, different first at {at:?}");
    }
}
