//! Places for clients from a network: so many in all, and not all of them for one.
//!
//! Contract: a place that was taken is given back when it is dropped; whoever is refused
//! leaves nothing behind. An address of IPv6 stands for its network of 64 bits, all of which
//! one client may have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The places there are.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    /// `most`, of which one address may have `most_of_one`.
    pub(super) fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_one,
            taken: Mutex::default(),
        })
    }

    /// One of them, if there is one for this address.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = neighbourhood(address);
        let mut taken = self.taken.lock();
        let all: usize = taken.values().sum();
        let own = taken.get(&address).copied().unwrap_or(0);
        if all >= self.most || own >= self.most_of_one {
            return None;
        }
        taken.insert(address, own + 1);
        Some(Place(self.clone(), address))
    }
}

/// One that was taken.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>, IpAddr);

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock();
        if let Some(own) = taken.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.1);
            }
        }
    }
}

/// Who has one address of IPv6 has all of its network.
pub(super) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_all_places_and_who_is_refused_leaves_nothing() {
        let places = Places::new(4, 2);
        let take = |address: &str| places.take(address.parse().unwrap());
        let first = [take("2001:db8::1"), take("2001:db8::ffff:2")];
        assert!(first.iter().all(Option::is_some));
        assert!(take("2001:db8:0:0:9::").is_none(), "a third of one network");
        let second = take("192.0.2.1");
        let mapped = take("::ffff:192.0.2.1");
        assert!(second.is_some() && mapped.is_some());
        for number in 0..100 {
            assert!(take(&format!("198.51.100.{number}")).is_none(), "a fifth");
        }
        assert_eq!(places.taken.lock().len(), 2, "who was refused is noted");
        drop(first);
        let third = take("198.51.100.1");
        assert!(third.is_some());
        drop((second, mapped, third));
        assert!(places.taken.lock().is_empty());
    }
}
