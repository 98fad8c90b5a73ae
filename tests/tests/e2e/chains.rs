//! Images that lie over each other: what is wrong about them is refused, by whoever exports
//! the next one and by whoever restores them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::ctl::exit::{BUSY, USAGE};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, tools};
use csnap_tests::{ensure, need_tools};

use crate::restore::{SIZE, backup, bed, contents, settled};

fn write(bed: &Bed, offset: u64, data: Vec<u8>) -> Outcome {
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(offset, data)
}

fn path(bed: &Bed, name: &str) -> String {
    bed.path(name).display().to_string()
}

/// Snapshots a, b and c, images of them over each other, and raw.img of a with over.qcow2,
/// which is b, over that. What b holds.
fn images(bed: &Bed) -> Outcome<Vec<u8>> {
    backup(bed, "a", None)?;
    write(bed, MIB, vec![1; 8192])?;
    let truth = backup(bed, "b", Some("a"))?;
    write(bed, 2 * MIB, vec![2; 8192])?;
    backup(bed, "c", Some("b"))?;
    let (raw, over) = (path(bed, "raw.img"), path(bed, "over.qcow2"));
    bed.ctl
        .ok(&format!("snapshot export vol@a --to raw -o {raw}"))?;
    bed.ctl.ok(&format!(
        "snapshot export vol@b --from vol@a -b raw.img -F raw -o {over}"
    ))?;
    Ok(truth)
}

#[test]
fn a_format_that_is_not_the_images_is_refused() -> Outcome {
    let bed = bed("chains-format")?;
    let truth = images(&bed)?;
    let [a, b, raw, over, new] =
        ["a.qcow2", "b.qcow2", "raw.img", "over.qcow2", "new.qcow2"].map(|name| path(&bed, name));
    let export = format!("snapshot export vol@b --from vol@a -b a.qcow2 -F raw -o {new}");
    bed.ctl.refuses(&export, USAGE, "QCOW2, not raw")?;
    ensure!(!Path::new(&new).exists(), "an image is left");
    // Nor does that take what lies below out of sight.
    let export = "snapshot export vol@c --from vol@b -b over.qcow2 -F raw --force";
    bed.ctl
        .refuses(&format!("{export} -o {raw}"), USAGE, "QCOW2, not raw")?;
    bed.ctl
        .refuses(&format!("{export} -o {raw} --trust"), USAGE, "raw.img lies")?;
    let other = bed.path("other");
    fs::create_dir(&other).trying(|| "make a directory".into())?;
    let other = other.join("raw.img").display().to_string();
    fs::copy(&a, &other).trying(|| "copy an image".into())?;
    let magic = path(&bed, "magic.img");
    fs::write(&magic, [&b"QFI\xfb"[..], &[7; 4092]].concat()).trying(|| "make one".into())?;
    for (images, why) in [
        (format!("{a} {b} -f raw"), "QCOW2, not raw"),
        (format!("{a} -f raw"), "QCOW2, not raw"),
        (format!("{magic} -f raw"), "QCOW2, not raw"),
        (format!("{other} {over}"), "is laid over \"raw\""),
    ] {
        let line = format!("volume restore vol --yes --from {images}");
        bed.ctl.refuses(&line, USAGE, why)?;
    }
    settled(
        &bed,
        &format!("volume restore vol --yes -f raw --from {raw} {over}"),
    )?;
    ensure!(contents(&bed, VOLUME)? == truth, "not what vol@b holds");
    settled(
        &bed,
        &format!("volume restore vol --yes -f raw --trust --from {magic}"),
    )?;
    ensure!(
        contents(&bed, VOLUME)?.starts_with(b"QFI\xfb\x07"),
        "not restored"
    );
    bed.finish()
}

#[test]
fn an_image_is_where_its_name_leads() -> Outcome {
    let bed = bed("chains-links")?;
    images(&bed)?;
    let link = |to: &str, name: &str| symlink(to, bed.path(name)).trying(|| "make a link".into());
    let store = bed.path("store-of-images");
    fs::create_dir(&store).trying(|| "make a directory".into())?;
    let real = store.join("a.qcow2").display().to_string();
    fs::rename(bed.path("a.qcow2"), &real).trying(|| "move an image".into())?;
    link("store-of-images/a.qcow2", "latest.qcow2")?;
    link("nowhere.qcow2", "gone.qcow2")?;
    let before = fs::read(&real).trying(|| "read an image".into())?;
    let latest = path(&bed, "latest.qcow2");
    let export = "snapshot export vol@b --from vol@a --force";
    for (base, why) in [
        ("a.qcow2", "is not the file"),
        ("store-of-images/a.qcow2", "is not the file"),
        (&real, "the image itself"),
        (&latest, "the image itself"),
    ] {
        let line = format!("{export} -b {base} -o {latest}");
        bed.ctl.refuses(&line, USAGE, why)?;
    }
    let after = fs::read(&real).trying(|| "read an image".into())?;
    ensure!(before == after, "the full image is another");
    let new = path(&bed, "new.qcow2");
    let dangling = format!("{export} -b gone.qcow2 -o {new}");
    bed.ctl.refuses(&dangling, USAGE, "gone.qcow2")?;
    link("self.qcow2", "to-self.qcow2")?;
    let itself = format!(
        "{export} -b to-self.qcow2 --trust -o {}",
        path(&bed, "self.qcow2")
    );
    bed.ctl
        .refuses(&itself, USAGE, "leads to what is not there")?;
    let unseen = bed.ctl.any(&format!("{export} -b none.qcow2 -o {new}"))?;
    let is_told = unseen.stderr.contains("none.qcow2 is not there");
    ensure!(unseen.code == 0 && is_told, "{unseen:?}");
    bed.finish()
}

#[test]
fn all_that_lies_below_is_looked_at() -> Outcome {
    let bed = bed("chains-below")?;
    images(&bed)?;
    bed.ctl.ok("snapshot take vol@d")?;
    let [a, c, new, raw, over] =
        ["a.qcow2", "c.qcow2", "new.qcow2", "raw.img", "over.qcow2"].map(|name| path(&bed, name));
    let export = format!("snapshot export vol@d --from vol@c -b {c} --force -o {new}");
    bed.ctl.ok(&export)?;
    // The full image of a later snapshot, called as the one that is needed.
    bed.ctl
        .ok(&format!("snapshot export vol@c --force -o {a}"))?;
    bed.ctl.refuses(&export, USAGE, "later version")?;
    // By what a volume grew is in the increment.
    let grown = fs::File::options().write(true).open(&bed.origin);
    let grown = grown.and_then(|file| file.set_len(SIZE + 3 * 4096));
    grown.trying(|| "extend the origin".into())?;
    bed.ctl.ok("volume resize vol")?;
    bed.ctl.ok("snapshot take vol@e")?;
    let large = path(&bed, "large.qcow2");
    let larger = format!("snapshot export vol@e --from vol@a -b raw.img -F raw --force -o {large}");
    bed.ctl.ok(&larger)?;
    settled(&bed, &format!("volume restore vol --yes --from {large}"))?;
    // An image that was cut off.
    let short = fs::File::options().write(true).open(&raw);
    let short = short.and_then(|file| file.set_len(SIZE - MIB));
    short.trying(|| "cut off an image".into())?;
    bed.ctl.refuses(&larger, USAGE, "and the snapshot has")?;
    for images in [large, over.clone(), format!("{raw} {over} -f raw")] {
        let line = format!("volume restore vol --yes --from {images}");
        bed.ctl.refuses(&line, USAGE, "is shorter than")?;
    }
    settled(
        &bed,
        &format!("volume restore vol --yes --trust --from {over}"),
    )?;
    bed.finish()
}

/// `qemu-io` that has an image open, until it is killed.
fn held(image: &str, how: &[&str]) -> Outcome<Child> {
    let mut command = tools::program("qemu-io");
    command.args(how).args(["-f", "qcow2", image]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().trying(|| "start qemu-io".into())?;
    // It asks for commands once the image is open.
    let mut asked = [0; 8];
    if let Some(told) = &mut child.stdout {
        told.read_exact(&mut asked)
            .trying(|| "wait for qemu-io".into())?;
    }
    Ok(child)
}

#[test]
fn an_image_that_a_machine_writes_to_is_refused() -> Outcome {
    need_tools!("an_image_that_a_machine_writes_to_is_refused", "qemu-io");
    let bed = bed("chains-running")?;
    images(&bed)?;
    let [a, b, new] = ["a.qcow2", "b.qcow2", "new.qcow2"].map(|name| path(&bed, name));
    let restore = format!("volume restore vol --yes --from {b}");
    let export = format!("snapshot export vol@c --from vol@b -b {b} --force -o {new}");
    let told = |child: std::io::Result<std::process::ExitStatus>| {
        child.trying(|| "wait for qemu-io".into()).map(drop)
    };
    for (how, is_refused) in [(&[][..], true), (&["-r"], false)] {
        let mut machine = held(&a, how)?;
        let both = [&export, &restore].map(|line| match is_refused {
            true => bed.ctl.refuses(line, BUSY, "a.qcow2: a machine is writing"),
            false => settled(&bed, line).map(drop),
        });
        let trusted = settled(&bed, &format!("{restore} --trust"));
        drop(machine.stdin.take());
        told(machine.wait())?;
        both.into_iter().collect::<Outcome>()?;
        trusted?;
    }
    bed.finish()
}
