//! Taking away what is served: block devices and NBD exports together.
//!
//! Contract: without force it is all or nothing. Whatever is in use by somebody
//! is a reason to leave everything as it was. Block devices go before NBD clients
//! are disconnected, because only they can still refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Builder};
use std::time::Duration;

use super::Daemon;
use super::devices::Devices;
use super::events::NewEvent;
use super::exports::Served;
use super::failures::busy;
use super::store::Store;
use crate::control::protocol::Failure;
use crate::control::views::Level;

/// How long NBD clients may take to finish what they have asked for.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);
/// How many devices are taken away, or handed over, at once.
const AT_ONCE: usize = 32;

/// What is done about those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Nothing is taken away from anybody.
    Asking,
    /// Users of devices get I/O errors, NBD clients are disconnected.
    Forced,
    /// The daemon stops: devices that are open wait for the next one, NBD clients
    /// are disconnected.
    HandOver,
}

impl Leaving {
    /// As a person asks for it.
    pub(super) fn forced(force: bool) -> Self {
        if force { Self::Forced } else { Self::Asking }
    }
}

type Named = (String, Served);

impl Daemon {
    /// Takes away what is served under these names. Returns those whose users did
    /// not finish in time: their last writes may still be under way.
    pub(super) fn withdraw(
        &self,
        store: &Arc<Store>,
        names: &[String],
        leaving: Leaving,
    ) -> Result<Vec<String>, Failure> {
        if leaving != Leaving::HandOver
            && let Some(devices) = &self.devices
        {
            let force = leaving == Leaving::Forced;
            devices.give_up(store.uuid, Some(names), force)?;
        }
        // Out of the table first, so that nobody connects after the count.
        let taken: Vec<Named> = names
            .iter()
            .filter_map(|name| Some((name.clone(), self.exports.remove(name)?)))
            .collect();
        let closed = match leaving {
            Leaving::Asking => self.close_idle(store, &taken),
            Leaving::Forced | Leaving::HandOver => Ok(self.close_devices(&taken, leaving)),
        };
        let mut cut_off = match closed {
            Ok(cut_off) => cut_off,
            Err((failure, still_there)) => {
                let back = taken.into_iter().skip(still_there);
                back.for_each(|(name, served)| self.exports.insert(name, served));
                return Err(failure);
            }
        };
        cut_off.extend(close_exports(&taken));
        Ok(cut_off)
    }

    /// Removes the devices of what nobody uses. If somebody does: why, and how many
    /// of `taken` are served again under new devices; the rest never stopped.
    fn close_idle(
        &self,
        store: &Arc<Store>,
        taken: &[Named],
    ) -> Result<Vec<String>, (Failure, usize)> {
        for (name, served) in taken {
            must_be_idle(name, served).map_err(|failure| (failure, 0))?;
        }
        let Some(devices) = &self.devices else {
            return Ok(Vec::new());
        };
        for (at, (_, served)) in taken.iter().enumerate() {
            let Some(device) = &served.device else {
                continue;
            };
            if let Err(failure) = devices.remove_idle(device) {
                let gone = taken.get(..at).unwrap_or(&[]);
                gone.iter().for_each(|named| self.readmit(store, named));
                return Err((failure, at));
            }
        }
        Ok(Vec::new())
    }

    /// Somebody opened one device while another one had been removed already.
    fn readmit(&self, store: &Arc<Store>, (name, served): &Named) {
        if let Err(failure) = self.admit(store, name.clone(), served.target) {
            let message = format!("{name} is not served any more: {failure}");
            let event = NewEvent::new(Level::Error, "not-served-again", message);
            self.events.add(event.store(&store.path));
        }
    }

    /// Takes every device away, or hands it over. Returns those of which the last
    /// writes may still be under way.
    fn close_devices(&self, taken: &[Named], leaving: Leaving) -> Vec<String> {
        let Some(devices) = &self.devices else {
            return Vec::new();
        };
        let close = |(name, served): &Named| self.close_device(devices, name, served, leaving);
        let closed = together(taken, close, Builder::new);
        let late = taken.iter().zip(closed).filter(|(_, closed)| !closed);
        late.map(|((name, _), _)| name.clone()).collect()
    }

    fn close_device(
        &self,
        devices: &Devices,
        name: &str,
        served: &Served,
        leaving: Leaving,
    ) -> bool {
        let Some(device) = &served.device else {
            return true;
        };
        let closed = if leaving == Leaving::HandOver {
            devices.leave(device).map(drop)
        } else {
            devices.remove(device, true)
        };
        if let Err(error) = &closed {
            let path = device.path();
            let message = format!("{} of {name} did not go in order: {error}", path.display());
            self.events
                .add(NewEvent::new(Level::Error, "device-stuck", message));
        }
        closed.is_ok()
    }
}

/// Disconnects NBD clients, and returns the names of what somebody may still be writing to.
fn close_exports(taken: &[Named]) -> Vec<String> {
    let close = |(name, served): &Named| {
        let closed = served.nbd.as_ref().map(|export| export.close(FAREWELL));
        let Some(Err(cut)) = closed else {
            return true;
        };
        tracing::warn!(export = %name, "{cut}");
        cut.unfinished == 0
    };
    let closed = together(taken, close, Builder::new);
    let cut_off = taken.iter().zip(closed).filter(|(_, closed)| !closed);
    cut_off.map(|((name, _), _)| name.clone()).collect()
}

/// What `act` says of each, in order. Several are under way at once: one that hangs holds
/// up few others.
fn together<T: Sync>(
    all: &[T],
    act: impl Fn(&T) -> bool + Sync,
    builder: fn() -> Builder,
) -> Vec<bool> {
    let next = AtomicUsize::new(0);
    let one_after_another = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(at) else {
                return done;
            };
            done.push((at, act(one)));
        }
    };
    let mut said = vec![false; all.len()];
    thread::scope(|scope| {
        // This thread is one of them: if no other can be made, it does all.
        let others = 1..all.len().min(AT_ONCE);
        let threads: Vec<_> = others
            .map_while(|_| builder().spawn_scoped(scope, one_after_another).ok())
            .collect();
        let own = one_after_another();
        // One that panicked has said nothing: not in order.
        let done = threads.into_iter().filter_map(|thread| thread.join().ok());
        for (at, well) in done.flatten().chain(own) {
            if let Some(place) = said.get_mut(at) {
                *place = well;
            }
        }
    });
    said
}

fn must_be_idle(name: &str, served: &Served) -> Result<(), Failure> {
    if served.clients() > 0 {
        let message = format!("{} NBD clients are connected to {name}", served.clients());
        return Err(busy(message, "disconnect them first, or use --force"));
    }
    match &served.device {
        Some(device) => device.must_be_idle(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn devices_that_hang_hang_together_and_each_is_told_of() {
        // Nobody goes on before all have come.
        let all = Barrier::new(AT_ONCE);
        let numbers: Vec<usize> = (0..AT_ONCE).collect();
        let act = |number: &usize| {
            all.wait();
            number.is_multiple_of(3)
        };
        let said = together(&numbers, act, Builder::new);
        let wanted: Vec<bool> = numbers.iter().map(|number| number % 3 == 0).collect();
        assert_eq!(said, wanted);
        let many: Vec<usize> = (0..1000).collect();
        let said = together(&many, |number| number % 2 == 0, Builder::new);
        assert!(
            said.iter()
                .zip(&many)
                .all(|(said, n)| *said == (n % 2 == 0))
        );
        assert!(together::<usize>(&[], |_| true, Builder::new).is_empty());
    }

    #[test]
    fn where_no_thread_can_be_made_each_is_told_of_all_the_same() {
        let greedy = || Builder::new().stack_size(1 << 50);
        assert!(greedy().spawn(|| ()).is_err());
        let numbers: Vec<usize> = (0..100).collect();
        let said = together(&numbers, |number| number % 3 == 0, greedy);
        let wanted: Vec<bool> = numbers.iter().map(|number| number % 3 == 0).collect();
        assert_eq!(said, wanted);
    }
}
