//! `csnapctl snapshot mount` and `umount`.
//!
//! | module | what it holds |
//! |---|---|
//! | `content` | what is on the device |
//! | `partition` | where a partition is |
//! | `options` | how each file system is mounted |
//! | `table` | what is mounted, by whom it is used |
//!
//! mount(8) and umount(8) do the work: they know the helpers some file systems
//! need, keep the user options, and their messages are the ones people know.
//! Contract: what fails leaves nothing behind: not mapped, no directory made. After
//! a mount it is verified that what is there lies on the snapshot's device.

mod content;
mod options;
mod partition;
mod table;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;
use ublk_target::control::protocol::{ErrorCode, Failure, Request, SnapshotName};

use self::content::Part;
use self::options::Log;
use super::snapshot::one;
use crate::Done;
use crate::cli::{MountArgs, UmountArgs};
use crate::names::{SnapshotArg, SnapshotOrDir};
use crate::output::table::{Column, Kind, Row};
use crate::session::Session;

/// Whether something is mounted on a directory.
pub(super) fn is_mount_point(dir: &Path) -> bool {
    table::at(dir).is_some()
}

/// A snapshot that was mounted.
#[derive(Debug, Serialize)]
struct Mounted {
    snapshot: String,
    device: String,
    dir: String,
    fs: String,
    options: String,
    log: Log,
    /// Mounting it mapped it: unmounting unmaps it.
    mapped: bool,
}

const fn text(field: &'static str, heading: &'static str, listed: bool) -> Column {
    Column {
        field,
        heading,
        kind: Kind::Text,
        listed,
    }
}

impl Row for Mounted {
    const NAME: &'static str = "mounted";
    const COLUMNS: &'static [Column] = &[
        text("snapshot", "SNAPSHOT", true),
        text("device", "DEVICE", true),
        text("fs", "TYPE", true),
        text("dir", "MOUNTED ON", true),
        text("options", "OPTIONS", false),
        text("log", "LOG", false),
        text("mapped", "MAPPED FOR IT", false),
    ];
}

/// Mounts a snapshot.
pub(super) fn mount(session: &mut Session, args: &MountArgs) -> Done {
    if let Some(bad) = args.options.iter().find(|option| *option == "rw") {
        let message = format!("a snapshot never changes: it cannot be mounted {bad}");
        return Err(Failure::new(ErrorCode::Usage, message));
    }
    session.check_fields::<Mounted>()?;
    let (dir, made) = directory(args)?;
    let result = map_and_mount(session, args, &dir);
    if result.is_err() && made {
        let _ = fs::remove_dir(&dir);
    }
    let mounted = result?;
    match mounted.log {
        Log::Dirty => session.say(
            "The file system was not frozen when the snapshot was taken, and its log is not \
             replayed: the last changes before the snapshot may be missing or half done.",
        ),
        Log::Unknown => session.say(
            "The file system's log is not replayed: unless it was frozen when the snapshot was \
             taken, the last changes before it may be missing or half done.",
        ),
        Log::None | Log::Clean => {}
    }
    session.print(&[mounted])
}

/// The directory as the kernel will call it, and whether it was made.
fn directory(args: &MountArgs) -> Done<(PathBuf, bool)> {
    let dir = &args.dir;
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::Error,
        };
        let failure = Failure::new(code, format!("cannot mount on {}: {error}", dir.display()));
        failure.next("name an empty directory, or add --mkdir to make one")
    };
    let made = args.mkdir && !dir.exists();
    if made {
        fs::create_dir(dir).map_err(failed)?;
    }
    let path = dir.canonicalize().map_err(failed)?;
    let mut inside = fs::read_dir(&path).map_err(failed)?;
    if inside.next().is_some() && !args.force {
        let message = format!("{} is not empty", dir.display());
        return Err(Failure::new(ErrorCode::Busy, message)
            .next("choose an empty directory; --force hides what is in it meanwhile"));
    }
    Ok((path, made))
}

fn map_and_mount(session: &mut Session, args: &MountArgs, dir: &Path) -> Done<Mounted> {
    let wanted = args.snapshot.0.clone();
    let before = one(session, Request::SnapshotShow { snapshot: wanted })?;
    // From here on it is this one, even if its name moves.
    let snapshot = SnapshotName {
        tag: Some(before.tag),
        ..args.snapshot.0.clone()
    };
    let view = if before.mapped {
        before.clone()
    } else {
        let snapshot = snapshot.clone();
        one(session, Request::SnapshotMap { snapshot })?
    };
    let mapped = !before.mapped;
    let result = match &view.device {
        Some(device) => mount_device(args, Path::new(device), dir, mapped),
        None => Err(no_device(session, &args.snapshot)),
    };
    if result.is_err() && mapped {
        let force = false;
        if let Err(failure) = one(session, Request::SnapshotUnmap { snapshot, force }) {
            session.complain(&failure);
        }
    }
    result
}

/// The daemon serves NBD only.
fn no_device(session: &Session, snapshot: &SnapshotArg) -> Failure {
    let message = format!("{snapshot} has no block device: csnapd serves NBD only");
    let socket = session.run_dir.join("nbd.sock");
    Failure::new(ErrorCode::Error, message).next(format!(
        "use a kernel with ublk (6.1 or newer, modprobe ublk_drv) and restart csnapd; or map it \
         and connect it: nbd-client -unix {socket} -N {snapshot} /dev/nbd0, or qemu-nbd \
         --connect=/dev/nbd0 --read-only 'nbd+unix:///{snapshot}?socket={socket}'; then mount \
         -o ro,norecovery,nouuid (XFS) or ro,noload (ext4) /dev/nbd0",
        socket = socket.display()
    ))
}

fn mount_device(args: &MountArgs, device: &Path, dir: &Path, mapped: bool) -> Done<Mounted> {
    let name = device.display().to_string();
    let (file, whole) = open(device)?;
    let part = match args.partition {
        Some(number) => partition::find(&file, whole, number, &name)?,
        None => whole,
    };
    let kind = match &args.fs {
        Some(kind) => kind.clone(),
        None => content::file_system(&file, part, &name)?.to_owned(),
    };
    let log = options::log(&kind, &file, part);
    if kind == "btrfs" {
        check_btrfs(&file, part, &name)?;
    }
    // Closed before mounting: an open device would count as in use.
    drop(file);
    let mut options = options::options(&kind, log, &args.options);
    if part != whole {
        options.push(format!("loop,offset={},sizelimit={}", part.start, part.len));
    }
    let shown = options.join(",");
    options.push(format!("{}={}", table::OF, args.snapshot));
    if mapped {
        options.push(table::MAPPED.to_owned());
    }
    run_mount(&kind, &options.join(","), device, dir)?;
    verify(device, dir)?;
    Ok(Mounted {
        snapshot: args.snapshot.to_string(),
        device: name,
        dir: dir.display().to_string(),
        fs: kind,
        options: shown,
        log,
        mapped,
    })
}

fn open(device: &Path) -> Done<(File, Part)> {
    let opened = File::open(device).and_then(|mut file| {
        let len = file.seek(SeekFrom::End(0))?;
        Ok((file, Part { start: 0, len }))
    });
    opened.map_err(|error| {
        let message = format!("cannot open {}: {error}", device.display());
        Failure::new(ErrorCode::Error, message).next("run csnapctl as root")
    })
}

fn check_btrfs(file: &File, part: Part, name: &str) -> Done {
    let Some(btrfs) = options::btrfs(file, part) else {
        let message = format!("{name}: the btrfs superblock cannot be read");
        return Err(Failure::new(ErrorCode::Error, message));
    };
    let mounted = Path::new("/sys/fs/btrfs").join(&btrfs.fsid).exists();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match options::btrfs_obstacle(&btrfs, mounted, release.trim()) {
        None => Ok(()),
        Some((why, next)) => {
            Err(Failure::new(ErrorCode::Error, format!("{name} is not mounted: {why}")).next(next))
        }
    }
}

fn run_mount(kind: &str, options: &str, device: &Path, dir: &Path) -> Done {
    let mut command = Command::new("mount");
    command.args(["--types", kind, "--options", options, "--"]);
    let output = command.arg(device).arg(dir).output().map_err(no_program)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("mount failed: {}", said.trim());
    let mut next =
        format!("dmesg says more; mount -t {kind} needs a kernel or a program that knows {kind}");
    if !Path::new("/dev/loop-control").exists() {
        next += "; --partition needs loop devices (modprobe loop)";
    }
    Err(Failure::new(ErrorCode::Error, message).next(next))
}

fn no_program(error: std::io::Error) -> Failure {
    Failure::new(ErrorCode::Error, format!("cannot run mount(8): {error}"))
        .next("install util-linux")
}

/// What is mounted must be this snapshot: file systems that know themselves by
/// UUID may have brought another with the same one.
fn verify(device: &Path, dir: &Path) -> Done {
    let ours = table::on_device(device);
    match table::at(dir) {
        Some(mount) if ours.contains(&mount) => Ok(()),
        other => {
            let instead = other.map_or("nothing".to_owned(), |m| m.source.display().to_string());
            let undone = run_umount(dir).is_ok();
            let message = format!(
                "{instead} is mounted on {} instead of {}{}",
                dir.display(),
                device.display(),
                if undone { "; it was unmounted" } else { "" }
            );
            Err(Failure::new(ErrorCode::Error, message)
                .next("unmount what has the same UUID, then mount the snapshot"))
        }
    }
}

/// Unmounts a snapshot, everywhere or at one place.
pub(super) fn umount(session: &mut Session, args: &UmountArgs) -> Done {
    let (snapshot, only) = match &args.what {
        SnapshotOrDir::Snapshot(snapshot) => (snapshot.clone(), None),
        SnapshotOrDir::Dir(dir) => {
            let (snapshot, dir) = snapshot_at(dir)?;
            (snapshot, Some(dir))
        }
    };
    let request = Request::SnapshotShow {
        snapshot: snapshot.0.clone(),
    };
    let view = one(session, request)?;
    let device = view.device.map(PathBuf::from).unwrap_or_default();
    let mounts = table::on_device(&device)
        .into_iter()
        .map(|mount| mount.point);
    let points: Vec<PathBuf> = match only {
        Some(dir) => mounts.filter(|point| *point == dir).take(1).collect(),
        None => mounts.collect(),
    };
    if points.is_empty() {
        let message = format!("{snapshot} is not mounted");
        return Err(Failure::new(ErrorCode::NotFound, message)
            .next("findmnt shows what is mounted; csnapctl snapshot unmap unmaps it"));
    }
    let mapped = umount_all(&points)?;
    if !mapped || !table::on_device(&device).is_empty() {
        return Ok(());
    }
    let snapshot = SnapshotName {
        tag: Some(view.tag),
        ..snapshot.0
    };
    let force = false;
    one(session, Request::SnapshotUnmap { snapshot, force }).map(drop)
}

/// Unmounts all of these, uppermost last, or none if one is in use. Whether mounting
/// one of them had mapped the snapshot.
fn umount_all(points: &[PathBuf]) -> Done<bool> {
    for point in points {
        let users = table::users(point, points);
        if !users.is_empty() {
            let mut failure = in_use(point, &users);
            if points.len() > 1 {
                failure.message += "; nothing was unmounted";
            }
            return Err(failure);
        }
    }
    let mut mapped = false;
    for (left, point) in points.iter().enumerate().rev() {
        mapped |= table::note(point).mapped;
        if let Err(failure) = run_umount(point) {
            let (still, gone) = points.split_at(left + 1);
            return Err(half_done(failure, still, gone));
        }
    }
    Ok(mapped)
}

/// What could not be seen before came in the way.
fn half_done(mut failure: Failure, still: &[PathBuf], gone: &[PathBuf]) -> Failure {
    let list = |points: &[PathBuf]| {
        let points: Vec<String> = points.iter().map(|p| p.display().to_string()).collect();
        points.join(", ")
    };
    if !gone.is_empty() {
        let (gone, still) = (list(gone), list(still));
        failure.message += &format!("; unmounted: {gone}; still mounted: {still}");
    }
    failure
}

/// Which snapshot csnapctl mounted on a directory.
fn snapshot_at(dir: &Path) -> Done<(SnapshotArg, PathBuf)> {
    let path = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    match table::note(&path).snapshot {
        Some(snapshot) => Ok((snapshot, path)),
        None => {
            let message = format!("csnapctl mounted no snapshot on {}", dir.display());
            Err(Failure::new(ErrorCode::NotFound, message)
                .next("use umount(8) for what something else mounted"))
        }
    }
}

fn run_umount(dir: &Path) -> Done {
    let mut command = Command::new("umount");
    let output = command.arg("--").arg(dir).output().map_err(no_program)?;
    if output.status.success() {
        return Ok(());
    }
    let users = table::users(dir, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") || !users.is_empty() {
        return Err(in_use(dir, &users));
    }
    Err(Failure::new(
        ErrorCode::Error,
        format!("umount failed: {}", said.trim()),
    ))
}

fn in_use(dir: &Path, users: &[String]) -> Failure {
    let by = match users {
        [] => String::new(),
        users => format!(" by {}", users.join(", ")),
    };
    let message = format!("{} is in use{by}", dir.display());
    Failure::new(ErrorCode::Busy, message).next("end that and try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_half_done_is_told_place_by_place() {
        let points = ["/a", "/b", "/c"].map(PathBuf::from);
        let failure = || Failure::new(ErrorCode::Error, "umount failed");
        let (still, gone) = points.split_at(2);
        let told = half_done(failure(), still, gone).message;
        assert_eq!(told, "umount failed; unmounted: /c; still mounted: /a, /b");
        assert_eq!(half_done(failure(), &points, &[]).message, "umount failed");
    }

    #[test]
    fn one_in_use_keeps_all_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let points = ["a", "b"].map(|name| dir.path().canonicalize().unwrap().join(name));
        points
            .iter()
            .for_each(|point| fs::create_dir(point).unwrap());
        let mut user = Command::new("sleep");
        let mut user = user.arg("60").current_dir(&points[0]).spawn().unwrap();
        let failure = umount_all(&points).unwrap_err();
        user.kill().unwrap();
        user.wait().unwrap();
        assert_eq!(failure.code, ErrorCode::Busy);
        let told = failure.message;
        assert!(told.ends_with("; nothing was unmounted"), "{told}");
        assert!(told.contains("/a is in use by sleep"), "{told}");
    }
}
