//! Messages to lanes, and waking those that sleep.
//!
//! A lane about to sleep says so ([`Port::park`]) and then looks into its
//! mailbox once more. A sender puts its message in and then looks whether the
//! lane sleeps. The mailbox has a lock, so one of the two came first there: the
//! lane sees the message, or the sender sees that the lane sleeps and wakes it.
//! Whoever sees that takes the mark away, so a sleeper is woken once.
//!
//! A lane wakes another by a message from its own ring; it has undertaken to
//! send it when it took the mark, and every lane submits before it sleeps. Other
//! threads write to the sleeper's eventfd.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use snapstore::ids::IoId;
use snapstore::{Effects, VolumeId};

use crate::lane::StoreSlot;
use crate::ring::Order;

/// A message to a lane.
pub enum Mail {
    /// Effects for requests of this lane.
    Effects {
        /// Of this store.
        store: StoreSlot,
        /// What to carry out.
        effects: Effects,
    },
    /// Events lie in this store's inbox: enter.
    Step(StoreSlot),
    /// Pause volumes.
    Pause {
        /// Of this store.
        store: StoreSlot,
        /// The pause.
        io: IoId,
        /// Which.
        volumes: Vec<VolumeId>,
    },
    /// End a pause.
    Resume {
        /// Of this store.
        store: StoreSlot,
        /// The pause.
        io: IoId,
    },
    /// The runtime attaches, detaches, serves or stops.
    Order(Order),
}

/// A lane as other threads see it.
#[derive(Debug)]
pub struct Port {
    mail: Mutex<Vec<Mail>>,
    parked: AtomicBool,
    event: File,
    ring: AtomicI32,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Effects { .. } => "Effects",
            Self::Step(_) => "Step",
            Self::Pause { .. } => "Pause",
            Self::Resume { .. } => "Resume",
            Self::Order(_) => "Order",
        })
    }
}

impl Port {
    fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            mail: Mutex::default(),
            parked: AtomicBool::new(false),
            event: File::from(std::os::fd::OwnedFd::from(event)),
            ring: AtomicI32::new(-1),
        })
    }

    /// Takes all mail, in order, into `out`.
    pub fn take(&self, out: &mut Vec<Mail>) {
        out.append(&mut self.mail.lock());
    }

    /// The lane says that it will sleep. `false`: it must not, there is mail.
    #[must_use]
    pub fn park(&self) -> bool {
        self.parked.store(true, Ordering::Release);
        let empty = self.mail.lock().is_empty();
        if !empty {
            self.parked.store(false, Ordering::Release);
        }
        empty
    }

    /// The lane is awake, for whatever reason.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::Release);
    }

    /// What the lane reads from while it sleeps.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The lane's ring exists and takes messages.
    pub fn set_ring(&self, fd: i32) {
        self.ring.store(fd, Ordering::Release);
    }

    /// The lane's ring, if it takes messages.
    #[must_use]
    pub fn ring(&self) -> Option<i32> {
        Some(self.ring.load(Ordering::Acquire)).filter(|fd| *fd >= 0)
    }

    /// Wakes the lane by its eventfd.
    pub fn wake(&self) {
        // It can only fail when 2^64 wakes are pending: then it is awake.
        let _ = (&self.event).write(&1u64.to_ne_bytes());
    }

    /// Whether the lane slept and is now the sender's to wake.
    fn put(&self, mail: Mail) -> bool {
        self.mail.lock().push(mail);
        self.parked.swap(false, Ordering::AcqRel)
    }
}

/// All lanes.
#[derive(Debug)]
pub struct Lanes(Vec<Port>);

impl Lanes {
    /// Ports for `count` lanes.
    ///
    /// # Errors
    /// When the system has no more eventfds.
    pub fn new(count: u16) -> io::Result<Self> {
        (0..count)
            .map(|_| Port::new())
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.0.len() as u16
    }

    /// One of them.
    #[must_use]
    pub fn port(&self, lane: u16) -> Option<&Port> {
        self.0.get(usize::from(lane))
    }

    /// Sends from a thread that has no ring.
    pub fn post(&self, lane: u16, mail: Mail) {
        if let Some(port) = self.port(lane).filter(|port| port.put(mail)) {
            port.wake();
        }
    }

    /// Sends from a lane, which wakes those it adds to `wakes`.
    pub fn post_from(&self, lane: u16, mail: Mail, wakes: &mut Vec<u16>) {
        if self.port(lane).is_some_and(|port| port.put(mail)) {
            wakes.push(lane);
        }
    }
}
