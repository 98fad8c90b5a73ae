//! The same as lines of text.

use super::{Dumped, Super};
use crate::erofs::list::{mode, time};
use crate::medium::Source;
use crate::tree::Time;
use std::fmt::Display;
use std::io::{self, Write};

fn line(out: &mut dyn Write, what: &str, value: impl Display) -> io::Result<()> {
    writeln!(out, "{what:<24} {value}")
}

pub(super) fn superblock(dumped: &Super, out: &mut dyn Write) -> io::Result<()> {
    let at = |seconds| {
        time(Time {
            seconds,
            nanoseconds: dumped.nanoseconds,
        })
    };
    line(out, "uuid", dumped.uuid)?;
    line(out, "label", &dumped.label)?;
    line(out, "block size", dumped.block_size)?;
    line(out, "blocks", dumped.blocks)?;
    line(out, "inodes", dumped.inodes)?;
    line(out, "root", &dumped.root)?;
    if let Some(nid) = &dumped.packed {
        line(out, "packed inode", nid)?;
    }
    if let Some(nid) = &dumped.metabox {
        line(out, "metabox", nid)?;
    }
    line(out, "epoch", at(dumped.epoch))?;
    line(out, "built", at(dumped.built))?;
    line(out, "metadata block", dumped.metadata_block)?;
    line(
        out,
        "shared attributes block",
        dumped.shared_attributes_block,
    )?;
    if let Some(checksum) = &dumped.checksum {
        let holds = match dumped.checksum_holds {
            Some(true) => "holds",
            _ => "does not hold",
        };
        line(out, "checksum", format!("{checksum}, {holds}"))?;
    }
    line(out, "features", dumped.features.join(" "))?;
    line(out, "incompatible features", dumped.incompatible.join(" "))?;
    line(out, "algorithms", dumped.algorithms.join(" "))?;
    for (number, slot) in dumped.devices.iter().enumerate() {
        let what = format!("device {}", number + 1);
        let (blocks, address, tag) = (slot.blocks, slot.address, &slot.tag);
        line(
            out,
            &what,
            format!("{blocks} blocks from {address} on, \"{tag}\""),
        )?;
    }
    for (number, prefix) in dumped.prefixes.iter().enumerate() {
        let what = format!("attribute prefix {number}");
        line(out, &what, format!("{} \"{}\"", prefix.base, prefix.infix))?;
    }
    Ok(())
}

pub(super) fn inode<S: Source>(dumped: &Dumped<'_, S>, out: &mut dyn Write) -> io::Result<()> {
    let row = &dumped.row;
    line(out, "path", &row.path)?;
    let nid = format!("{}, byte {} of the {}", row.nid, dumped.at, dumped.area);
    line(out, "inode", nid)?;
    line(
        out,
        "form",
        format!("{:?}, {:?}", dumped.form, dumped.layout),
    )?;
    line(out, "kind", row.kind)?;
    line(out, "mode", format!("{:04o} {}", row.mode, mode(row.mode)))?;
    line(out, "owner", format!("{}:{}", row.uid, row.gid))?;
    line(out, "links", row.links)?;
    line(out, "size", row.size)?;
    let mtime = Time {
        seconds: row.mtime,
        nanoseconds: row.mtime_nanoseconds,
    };
    line(out, "mtime", time(mtime))?;
    line(out, "data", format!("{:#x}", dumped.data))?;
    if let Some((major, minor)) = row.device {
        line(out, "device", format!("{major}, {minor}"))?;
    }
    if let Some(target) = &row.target {
        line(out, "target", target)?;
    }
    if let Some(filter) = dumped.name_filter {
        let bytes = dumped.attributes_size;
        line(
            out,
            "attributes",
            format!("{bytes} bytes, filter {filter:#010x}"),
        )?;
    }
    for attribute in &dumped.attributes {
        let shared = match attribute.shared {
            Some(number) => format!(" (shared, {number})"),
            None => String::new(),
        };
        let name = attribute.name.as_deref().unwrap_or("?");
        writeln!(out, "  {name}{shared} = {}", attribute.value)?;
    }
    for block in dumped.directory.iter() {
        writeln!(out, "directory block at {}", block.offset)?;
        for entry in &block.entries {
            writeln!(out, "  {:>12} {} {}", entry.nid, entry.kind, entry.name)?;
        }
    }
    extents(dumped, out)?;
    for flaw in dumped.damaged.list().iter() {
        writeln!(out, "damaged: {flaw}")?;
    }
    Ok(())
}

fn extents<S: Source>(dumped: &Dumped<'_, S>, out: &mut dyn Write) -> io::Result<()> {
    let mut extents = dumped.extents.iter().peekable();
    if extents.peek().is_none() {
        return Ok(());
    }
    writeln!(
        out,
        "{:>14} {:>12}  {:<8} {:>16} {:>10}  CODING",
        "OFFSET", "LENGTH", "PLACE", "AT", "STORED"
    )?;
    for extent in extents {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let place = match extent.device {
            Some(device) if device > 0 => format!("device{device}"),
            _ => extent.place.to_owned(),
        };
        writeln!(
            out,
            "{:>14} {:>12}  {place:<8} {:>16} {:>10}  {:?}{}",
            extent.offset,
            extent.length,
            number(extent.at).unwrap_or_default(),
            number(extent.stored).unwrap_or_default(),
            extent.coding,
            if extent.partial { ", in part" } else { "" }
        )?;
    }
    Ok(())
}
