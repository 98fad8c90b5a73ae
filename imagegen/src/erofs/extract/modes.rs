//! Modes that would lock us out.
//!
//! A directory that its owner may not search gets that right for the time being, because
//! further names of what is in it may come later. Once all is made, these modes are put
//! right, on a second walk: their paths are not kept, for they may be long and many.

use super::dress::Handle;
use super::object::{Done, Maker};
use super::place::identity;
use crate::erofs::read::{Inode, Step};
use crate::medium::Source;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use rustix::fs::{Mode, fchmod};
use std::os::fd::{AsFd, OwnedFd};

/// What its owner needs of a directory.
const OWNER: u32 = 0o700;
const SEARCH: u16 = 0o100;

/// By inode's number, the directories whose modes are held back: device and inode, mode.
pub(super) type Held = HashMap<u64, ((u64, u64), u32), FxBuildHasher>;

impl<S: Source> Maker<'_, S> {
    /// Gives a directory that is full all that is not contents.
    pub(super) fn close(&mut self, inode: &Inode, child: OwnedFd) -> Done {
        let locked = inode.mode & SEARCH == 0 && !rustix::process::geteuid().is_root();
        let extra = if locked { OWNER } else { 0 };
        let made = identity(child.as_fd());
        let made = made.map_err(|error| self.failed("look at it", error))?;
        let mode = self.dress(inode, &Handle::Open(child), extra)?;
        if locked {
            self.held.insert(inode.nid, (made, mode));
        }
        Ok(())
    }

    /// Puts the modes right that were held back below `root`.
    pub(super) fn restore_modes(&mut self, root: Inode) -> Done {
        let mut walk = self.image.walk(root);
        let mut open: Vec<Inode> = Vec::new();
        let mut below = 0u64;
        while !self.held.is_empty() {
            match walk.next() {
                Some(Step::Enter(_)) if below > 0 => below += 1,
                Some(Step::Leave) if below > 0 => below -= 1,
                Some(Step::Enter(inode)) => {
                    self.path.clear();
                    self.path.extend_from_slice(walk.path());
                    let name = self.name().to_vec();
                    // What was not made needs no mode.
                    match open.is_empty() || self.place.again(&name).is_ok() {
                        true => open.push(inode),
                        false => below = 1,
                    }
                }
                Some(Step::Leave) => {
                    if let Some(inode) = open.pop() {
                        self.restore_mode(&inode)?;
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        // The walk may end before it is back, where the image is damaged.
        while let Some(inode) = open.pop() {
            self.restore_mode(&inode)?;
        }
        Ok(())
    }

    fn restore_mode(&mut self, inode: &Inode) -> Done {
        let left = self.place.leave();
        let child = left.map_err(|error| self.failed("go back", error))?;
        let Some((made, mode)) = self.held.remove(&inode.nid) else {
            return Ok(());
        };
        if identity(child.as_fd()).is_ok_and(|found| found == made) {
            self.allowed(fchmod(&child, Mode::from_raw_mode(mode)), "mode")?;
        }
        Ok(())
    }
}
