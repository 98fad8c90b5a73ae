//! Reads EROFS images: calls the library with what was asked for.

use super::erofs_read::{Cat, Check, Dump, Extract, Image as From, Ls, Verb};
use super::{Failure, composefs, composefs_info, progress};
use imagegen::erofs::extract::{self, Report};
use imagegen::erofs::read::{self, Image, Inode, Nid, ReadError};
use imagegen::erofs::{check as checker, dump as dumper, list};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Contents are read in pieces of so many bytes.
const PIECE: usize = 1 << 20;

/// Does what was asked for.
pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls(arguments) => ls(arguments),
        Verb::Cat(arguments) => cat(arguments),
        Verb::Extract(arguments) => extract(arguments),
        Verb::Dump(arguments) => dump(arguments),
        Verb::Check(arguments) => check(arguments),
        Verb::Composefs(arguments) => composefs::make(arguments),
        Verb::ComposefsInfo(arguments) => composefs_info::run(arguments),
    }
}

/// An image that is open, with its name for errors.
struct Opened<'a> {
    path: &'a Path,
    image: Image<File>,
}

impl<'a> Opened<'a> {
    fn new(from: &'a From) -> Result<Self, Failure> {
        let image = open(&from.image)?;
        let devices = from.devices.iter().map(|path| open(path));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        let image = Image::with_devices(image, devices);
        let path = &from.image;
        let image = image.map_err(|cause| Failure::read_erofs(path, cause))?;
        Ok(Self { path, image })
    }

    fn failed(&self) -> impl Fn(ReadError) -> Failure + '_ {
        |cause| Failure::read_erofs(self.path, cause)
    }

    /// The object of a path, and its last name.
    fn find<'p>(&self, path: Option<&'p OsStr>) -> Result<(Inode, &'p [u8]), Failure> {
        let path = path.unwrap_or_default().as_bytes();
        let inode = self.image.find(path).map_err(self.failed())?;
        let mut names = path.split(|byte| *byte == b'/');
        let name = names.rfind(|name| !name.is_empty());
        Ok((inode, name.unwrap_or_default()))
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|cause| Failure::Open {
        path: path.to_owned(),
        cause,
    })
}

fn ls(arguments: &Ls) -> Result<(), Failure> {
    let opened = Opened::new(&arguments.from)?;
    let (inode, name) = opened.find(arguments.path.as_deref())?;
    let options = list::Options {
        long: arguments.long,
        recursive: arguments.recursive,
        json: arguments.json,
    };
    let mut out = BufWriter::new(stdout().lock());
    let listed = list::list(&opened.image, inode, name, options, &mut out);
    let output = listed.output.and_then(|()| out.flush());
    let shown = opened.path.display();
    let lines = listed.damaged.iter();
    let lines = lines.map(|error| format!("{shown}: {error}")).collect();
    let text = several(lines, listed.found);
    let damage = |error: &list::ListError| matches!(error.cause, ReadError::Damaged { .. });
    let failure = match listed.damaged.iter().any(damage) {
        _ if listed.found == 0 => None,
        true => Some(Failure::Damaged(text)),
        false => Some(Failure::Unreadable(text)),
    };
    finish(failure, output)
}

/// What the command comes to: that nobody reads the answer must not hide what was found.
fn finish(failure: Option<Failure>, output: std::io::Result<()>) -> Result<(), Failure> {
    match failure {
        Some(failure) => Err(failure),
        None => Ok(output?),
    }
}

/// Findings, a line each, with the number of those that were not kept.
fn several(mut lines: Vec<String>, found: u64) -> String {
    let more = found.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn cat(arguments: &Cat) -> Result<(), Failure> {
    let opened = Opened::new(&arguments.from)?;
    let (inode, _) = opened.find(Some(&arguments.path))?;
    if !inode.is_file() && !inode.is_symlink() {
        let shown = arguments.path.display();
        return Err(Failure::usage(format!(
            "{shown}: it has no contents; give a regular file or a symbolic link"
        )));
    }
    let xattrs = opened.image.xattrs(&inode).map_err(opened.failed())?;
    if xattrs.lead_elsewhere() {
        let shown = arguments.path.display();
        return Err(Failure::Unreadable(format!(
            "{shown}: its contents are elsewhere, for composefs in the store of objects; `imagegen erofs composefs-info ls` says which"
        )));
    }
    let mut out = stdout().lock();
    let mut contents = opened.image.contents(&inode).map_err(opened.failed())?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        let got = contents.read_at(at, &mut buffer).map_err(opened.failed())?;
        if got == 0 {
            return Ok(out.flush()?);
        }
        out.write_all(buffer.get(..got).unwrap_or_default())?;
        at += got as u64;
    }
}

fn extract(arguments: &Extract) -> Result<(), Failure> {
    let opened = Opened::new(&arguments.from)?;
    let (inode, name) = opened.find(arguments.path.as_deref())?;
    let options = extract::Options {
        force: arguments.force,
    };
    let all = work(&opened.image);
    let quiet = arguments.quiet || arguments.json;
    let report = progress::shown(&all, quiet, |seen| {
        extract::extract(&opened.image, inode, name, &arguments.target, options, seen)
    });
    said(arguments, &report?)
}

/// Says what was extracted and what was not.
fn said(arguments: &Extract, report: &Report) -> Result<(), Failure> {
    let shown = arguments.from.image.display();
    let lines = |list: &[extract::Problem], found| {
        let lines = list.iter();
        let lines = lines.map(|problem| format!("{shown}: {}: {}", problem.path, problem.text));
        several(lines.collect(), found)
    };
    let damaged = lines(&report.damaged, report.damaged_found);
    let failed = lines(&report.failed, report.failed_found);
    let failure = match (report.damaged_found, report.failed_found) {
        (0, 0) => None,
        (0, _) => Some(Failure::Unreadable(failed)),
        (_, 0) => Some(Failure::Damaged(damaged)),
        _ => Some(Failure::Damaged(format!("{damaged}\n{failed}"))),
    };
    finish(failure, summary(arguments, report))
}

fn summary(arguments: &Extract, report: &Report) -> std::io::Result<()> {
    if arguments.json {
        let mut out = stdout().lock();
        serde_json::to_writer(&mut out, report)?;
        return writeln!(out);
    }
    if arguments.quiet {
        return Ok(());
    }
    let mut out = std::io::stderr().lock();
    for problem in &report.skipped {
        writeln!(out, "{}: {}", problem.path, problem.text)?;
    }
    let more = report.skipped_found - report.skipped.len() as u64;
    if more > 0 {
        writeln!(out, "and {more} more that could not be restored")?;
    }
    let (objects, data) = (report.objects, report.data);
    writeln!(out, "{objects} objects, {data} bytes of contents")
}

fn dump(arguments: &Dump) -> Result<(), Failure> {
    let opened = Opened::new(&arguments.from)?;
    let image = &opened.image;
    let mut out = BufWriter::new(stdout().lock());
    let (inode, path) = match (arguments.nid, &arguments.path) {
        (Some(nid), _) => {
            let inode = image.inode(nid).map_err(opened.failed())?;
            (inode, format!("inode {}", Nid(nid)))
        }
        (None, Some(path)) => {
            let (inode, _) = opened.find(Some(path))?;
            (inode, read::show(path.as_bytes()))
        }
        (None, None) => {
            dumper::superblock(image, arguments.json, &mut out)?;
            return Ok(out.flush()?);
        }
    };
    let shown = dumper::inode(image, &inode, path, arguments.json, &mut out);
    let output = shown.output.and_then(|()| out.flush());
    let image = opened.path.display();
    let failure =
        (!shown.sound).then(|| Failure::Damaged(format!("{image}: not all of it can be read")));
    finish(failure, output)
}

fn check(arguments: &Check) -> Result<(), Failure> {
    let from = &arguments.from;
    let image = open(&from.image)?;
    let all = expected(&from.image);
    let devices = from.devices.iter().map(|path| open(path));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    let quiet = arguments.quiet || arguments.json;
    let report = progress::shown(&all, quiet, |seen| checker::check(image, devices, seen));
    let output = match arguments.quiet {
        true => Ok(()),
        false => {
            let mut out = BufWriter::new(stdout().lock());
            let written = report.write(arguments.json, &mut out);
            written.and_then(|()| out.flush())
        }
    };
    let shown = from.image.display();
    let failure = match report.exit_code() {
        0 => None,
        1 => Some(Failure::Damaged(format!("{shown}: problems were found"))),
        _ => {
            let why = report.failure.unwrap_or_default();
            let text = format!("{shown}: it could not be checked: {why}");
            Some(Failure::Unreadable(text))
        }
    };
    finish(failure, output)
}

/// How much there is to do, as the superblock says.
fn work(image: &Image<File>) -> progress::Work {
    let superblock = image.superblock();
    progress::Work {
        data: superblock.blocks << superblock.block_bits,
        objects: superblock.raw.inodes.get(),
    }
}

/// The same of an image that may not be one.
fn expected(path: &Path) -> progress::Work {
    let image = File::open(path)
        .ok()
        .and_then(|file| Image::open(file).ok());
    let nothing = progress::Work {
        data: 0,
        objects: 0,
    };
    image.map_or(nothing, |image| work(&image))
}
