//! From what is listed and what the kernel has to what is to be done.
//!
//! | listed | in the kernel, with our identity | then |
//! |---|---|---|
//! | no | any | not ours to touch: a copy of the store may be served elsewhere |
//! | yes | none (with that number) | it is gone: make a new one |
//! | yes | quiesced, or failing I/O | it waits for us: recover it |
//! | yes | live | its server is ending, or still there: wait |
//! | yes | dead | it never started, or stopped: delete it unless somebody has its server's end, make a new one |
//!
//! A listing without a number was written before the device was made; csnapd was
//! killed before it knew the number, or the making was given up. Then the identity
//! alone decides.

use super::identity::Key;
use crate::daemon::state::ListedDevice;
use crate::ublk::uapi::{DevInfo, state};

/// What the kernel has of a device that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Gone,
    /// A device without a server; its I/O waits.
    Waiting(u32),
    /// A device that somebody serves.
    Served {
        /// Which.
        id: u32,
        /// By which process.
        pid: i32,
    },
    /// A device that never started, or stopped.
    Dead(u32),
}

impl Found {
    /// Whether a device waits for process `me`, which does not serve it, or another has
    /// it. One that `me` serves is just being made, or taken away.
    #[must_use]
    pub fn waits_for(self, me: i32) -> bool {
        match self {
            Self::Gone | Self::Dead(_) => false,
            Self::Waiting(_) => true,
            Self::Served { pid, .. } => pid != me,
        }
    }
}

/// What the kernel has of the device of `key`.
#[must_use]
pub fn find(key: Key, listed: &[ListedDevice], devices: &[DevInfo]) -> Found {
    let mut found = Found::Gone;
    for entry in listed.iter().filter(|entry| entry.key() == key) {
        for device in devices.iter().filter(|device| is_of(entry, device)) {
            found = better(found, judge(device));
        }
    }
    found
}

/// Whether a device of the kernel was made for `key` and never started, or stopped.
#[must_use]
pub fn is_dead(key: Key, device: &DevInfo) -> bool {
    device.state == state::DEAD && device.ublksrv_flags == key.identity()
}

/// Whether a device of the kernel is the one that is listed.
fn is_of(entry: &ListedDevice, device: &DevInfo) -> bool {
    device.ublksrv_flags == entry.key().identity() && entry.id.is_none_or(|id| id == device.dev_id)
}

fn judge(device: &DevInfo) -> Found {
    let id = device.dev_id;
    match device.state {
        state::DEAD => Found::Dead(id),
        state::LIVE => Found::Served {
            id,
            pid: device.ublksrv_pid,
        },
        _ => Found::Waiting(id),
    }
}

/// Of two devices the one that somebody may be using.
fn better(a: Found, b: Found) -> Found {
    let rank = |found: &Found| match found {
        Found::Gone => 0,
        Found::Dead(_) => 1,
        Found::Waiting(_) => 2,
        Found::Served { .. } => 3,
    };
    if rank(&b) > rank(&a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(tag: Option<u64>) -> Key {
        let store = Uuid::from_u128(9);
        Key {
            store,
            volume: 1,
            tag,
        }
    }

    fn listed(id: Option<u32>, key: Key) -> ListedDevice {
        ListedDevice::new(key, "web", id)
    }

    fn device(id: u32, key: Key, state: u16) -> DevInfo {
        DevInfo {
            dev_id: id,
            state,
            ublksrv_pid: 77,
            ublksrv_flags: key.identity(),
            ..DevInfo::default()
        }
    }

    #[test]
    fn the_table() {
        let (web, snapshot) = (key(None), key(Some(1)));
        let list = [listed(Some(3), web), listed(Some(4), snapshot)];
        let find_web = |devices: &[DevInfo]| find(web, &list, devices);
        assert_eq!(find_web(&[]), Found::Gone);
        for (kernel, expected) in [
            (state::QUIESCED, Found::Waiting(3)),
            (state::FAIL_IO, Found::Waiting(3)),
            (state::LIVE, Found::Served { id: 3, pid: 77 }),
            (state::DEAD, Found::Dead(3)),
        ] {
            assert_eq!(find_web(&[device(3, web, kernel)]), expected);
        }
        let other = device(4, snapshot, state::QUIESCED);
        assert_eq!(find_web(&[other]), Found::Gone, "it serves another thing");
        assert_eq!(find(snapshot, &list, &[other]), Found::Waiting(4));
    }

    #[test]
    fn a_device_that_is_being_made_does_not_wait() {
        let served = Found::Served { id: 3, pid: 77 };
        assert!(!served.waits_for(77));
        assert!(served.waits_for(78), "another csnapd has it");
        assert!(Found::Waiting(3).waits_for(77));
        assert!(!Found::Dead(3).waits_for(77) && !Found::Gone.waits_for(77));
    }

    #[test]
    fn a_number_that_went_to_another_device_is_not_dead() {
        let (web, snapshot) = (key(None), key(Some(1)));
        assert!(is_dead(web, &device(3, web, state::DEAD)));
        assert!(!is_dead(web, &device(3, snapshot, state::DEAD)));
        for kernel in [state::LIVE, state::QUIESCED, state::FAIL_IO] {
            assert!(!is_dead(web, &device(3, web, kernel)));
        }
    }

    #[test]
    fn what_is_not_ours_is_not_found() {
        let web = key(None);
        let waiting = device(3, web, state::QUIESCED);
        assert_eq!(find(web, &[], &[waiting]), Found::Gone, "not listed");
        let elsewhere = [listed(Some(5), web)];
        assert_eq!(find(web, &elsewhere, &[waiting]), Found::Gone);
        // The number was given to somebody else's device.
        let foreign = DevInfo {
            ublksrv_flags: 0,
            ..waiting
        };
        assert_eq!(find(web, &[listed(Some(3), web)], &[foreign]), Found::Gone);
    }

    #[test]
    fn a_device_made_just_before_the_kill_is_found_without_its_number() {
        let web = key(None);
        let list = [listed(None, web)];
        let devices = [
            device(2, web, state::DEAD),
            device(7, web, state::QUIESCED),
            device(8, key(Some(1)), state::QUIESCED),
        ];
        assert_eq!(find(web, &list, &devices), Found::Waiting(7));
        // The making was given up, and the driver has not come to it yet.
        assert_eq!(find(web, &list, &devices[2..]), Found::Gone);
    }
}
