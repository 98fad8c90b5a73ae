//! Archives as files that can be read anywhere: what comes from a pipe or is compressed is
//! written to a temporary file without a name first.
//!
//! Compression is recognised by the first bytes. gzip and zstd are undone here, of several
//! members or frames too; others by whoever makes the archive.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::TreeError;

/// An archive that can be read anywhere.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    pub(super) file: Arc<File>,
    /// What it is called in errors.
    pub(super) path: Arc<[u8]>,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
    /// Known, but not undone here: its name, and what undoes it.
    Other(&'static str, &'static str),
}

impl Format {
    fn of(begin: &[u8]) -> Self {
        let known: [(&[u8], Self); 7] = [
            (b"\x1f\x8b", Self::Gzip),
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
            (b"\x50\x2a\x4d\x18", Self::Zstd), // a frame to be skipped, as pzstd begins with
            (b"\xfd7zXZ\0", Self::Other("xz", "xz -dc")),
            (b"BZh", Self::Other("bzip2", "bzip2 -dc")),
            (b"\x04\x22\x4d\x18", Self::Other("lz4", "lz4 -dc")),
            (b"LZIP", Self::Other("lzip", "lzip -dc")),
        ];
        let found = known.iter().find(|(magic, _)| begin.starts_with(magic));
        found.map_or(Self::Plain, |(_, format)| *format)
    }
}

impl Archive {
    /// The archive in `file`, which may be a pipe, from where it stands.
    pub(super) fn open(mut file: File, path: &[u8]) -> Result<Self, TreeError> {
        let failed = |action| move |cause: io::Error| TreeError::io(path, action, cause);
        let about = file.metadata().map_err(failed("stat"))?;
        if about.is_dir() {
            return Err(TreeError::invalid(
                path,
                "a directory, where an archive should be",
            ));
        }
        if about.is_file() && file.stream_position().map_err(failed("seek in"))? == 0 {
            let mut begin = [0; 8];
            let length = (&file).take(8).read(&mut begin).map_err(failed("read"))?;
            file.seek(SeekFrom::Start(0)).map_err(failed("seek in"))?;
            if Format::of(&begin[..length]) == Format::Plain {
                return Ok(Self {
                    file: Arc::new(file),
                    path: path.into(),
                    size: about.len(),
                });
            }
        }
        Self::spool(file, path)
    }

    /// The archive that comes from `stream`, without its compression.
    pub(super) fn spool(stream: impl Read, path: &[u8]) -> Result<Self, TreeError> {
        let place = std::env::temp_dir();
        let made = tempfile::tempfile_in(&place);
        let file = made.map_err(|cause| {
            TreeError::io(
                place.as_os_str().as_encoded_bytes(),
                "make a temporary file in",
                cause,
            )
        })?;
        let mut stream = BufReader::with_capacity(256 << 10, stream);
        let mut out = Out {
            file: BufWriter::with_capacity(256 << 10, &file),
            place: &place,
            failed: None,
        };
        let copied = unpack(&mut stream, &mut out);
        let flushed = out.flush();
        if let Some(error) = out.failed.take() {
            return Err(error);
        }
        drop(out);
        let begin = copied.map_err(|fault| match fault {
            Fault::Io(cause) => TreeError::io(path, "read", cause),
            Fault::Format(reason) => TreeError::invalid(path, reason),
        });
        begin?;
        flushed.map_err(|cause| TreeError::io(path, "spool", cause))?;
        let about = file
            .metadata()
            .map_err(|cause| TreeError::io(path, "spool", cause))?;
        Ok(Self {
            file: Arc::new(file),
            path: path.into(),
            size: about.len(),
        })
    }
}

/// The temporary file, whose errors are not the archive's.
struct Out<'a> {
    file: BufWriter<&'a File>,
    place: &'a Path,
    failed: Option<TreeError>,
}

impl Out<'_> {
    fn note<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|cause| {
            let cause = io::Error::new(
                cause.kind(),
                format!("{cause}; set TMPDIR to where there is room"),
            );
            let place = self.place.as_os_str().as_encoded_bytes();
            self.failed = Some(TreeError::io(place, "write a temporary file in", cause));
        })
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.file.write(bytes);
        self.note(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.file.flush();
        self.note(done)
    }
}

/// Why something cannot be unpacked.
enum Fault {
    Io(io::Error),
    Format(String),
}

impl From<io::Error> for Fault {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

fn unpack(stream: &mut impl BufRead, out: &mut impl Write) -> Result<(), Fault> {
    // A pipe may give fewer bytes at first than a magic number has.
    let mut begin = Vec::new();
    stream.by_ref().take(8).read_to_end(&mut begin)?;
    let format = Format::of(&begin);
    let mut stream = io::Cursor::new(begin).chain(stream);
    match format {
        Format::Plain => drop(io::copy(&mut stream, out)?),
        Format::Gzip => drop(io::copy(&mut MultiGzDecoder::new(stream), out)?),
        Format::Zstd => unpack_zstd(&mut stream, out)?,
        Format::Other(name, tool) => {
            let reason = format!("compressed by {name}; give it as a pipe from `{tool}`");
            return Err(Fault::Format(reason));
        }
    }
    Ok(())
}

/// Undoes frame after frame.
fn unpack_zstd(stream: &mut impl BufRead, out: &mut impl Write) -> Result<(), Fault> {
    let invalid =
        |cause: &dyn std::error::Error| Fault::Format(format!("not zstd throughout: {cause}"));
    while !stream.fill_buf()?.is_empty() {
        match StreamingDecoder::new(&mut *stream) {
            Ok(mut frame) => {
                io::copy(&mut frame, out)?;
                let decoder = frame.into_frame_decoder();
                let stored = decoder.get_checksum_from_data();
                if stored.is_some() && stored != decoder.get_calculated_checksum() {
                    let reason = "the checksum of a zstd frame does not match its contents";
                    return Err(Fault::Format(reason.into()));
                }
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let skipped = io::copy(&mut stream.by_ref().take(length.into()), &mut io::sink())?;
                if skipped < length.into() {
                    return Err(Fault::Format("it ends within a zstd frame".into()));
                }
            }
            Err(cause) => return Err(invalid(&cause)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::testing::have;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    fn through(program: &str, bytes: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || pipe.write_all(&bytes).unwrap());
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap();
        out.stdout
    }

    fn spooled(bytes: &[u8]) -> Result<Vec<u8>, TreeError> {
        let archive = Archive::spool(bytes, b"archive")?;
        let mut found = vec![0; archive.size as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*archive.file, &mut found, 0).unwrap();
        Ok(found)
    }

    #[test]
    fn what_is_damaged_is_refused_or_was_not_read() {
        let plain: Vec<u8> = (0..200_000u32)
            .map(|n| (n / 7).wrapping_mul(n) as u8)
            .collect();
        for program in ["gzip", "zstd"] {
            if !have(program) {
                continue;
            }
            let packed = through(program, &plain);
            assert!(packed.len() < plain.len() && spooled(&packed).unwrap() == plain);
            let mut runner =
                proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
            let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5);
            let run = runner.run(
                &(changes, any::<prop::sample::Index>(), any::<bool>()),
                |(changes, length, cut)| {
                    let mut bytes = packed.clone();
                    for (at, byte) in changes {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    if cut {
                        bytes.truncate(length.index(bytes.len()));
                    }
                    match spooled(&bytes) {
                        Err(error) => prop_assert!(error.to_string().starts_with("archive: ")),
                        // Both have checksums of the contents, so nothing else is taken for them;
                        // without its magic number it is not compressed at all.
                        Ok(found) => {
                            prop_assert!(found == plain || found == bytes || found.is_empty())
                        }
                    }
                    Ok(())
                },
            );
            run.unwrap();
        }
    }
}
