//! Which I/O thread serves which tags of a block device.

use crate::ublk::uapi::{DevInfo, feature};

/// How tags are spread over the I/O threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// [`Self::Tags`] with four I/O threads or more, else [`Self::Queues`]: on a
    /// small machine waking one more thread costs more than it helps.
    #[default]
    Auto,
    /// Neighbouring tags of a queue to different threads, where the driver allows
    /// it (per-I/O daemons): one submitter uses one queue and still all threads.
    Tags,
    /// Every queue to one thread.
    Queues,
}

/// Fewest I/O threads over which [`Spread::Auto`] spreads tags.
const MANY: u16 = 4;

/// Queues and tags.
pub(crate) type Tags = Vec<(u16, u16)>;

impl Spread {
    /// Which lane serves which tags; only lanes that have some.
    pub(crate) fn shares(self, info: &DevInfo, lanes: u16) -> Vec<(u16, Tags)> {
        let tags = self.is_by_tag(info, lanes);
        let mut shares: Vec<(u16, Tags)> = (0..lanes).map(|lane| (lane, Vec::new())).collect();
        for queue in 0..info.nr_hw_queues {
            for tag in 0..info.queue_depth {
                let turn = u32::from(queue) + if tags { u32::from(tag) } else { 0 };
                let lane = turn % u32::from(lanes);
                if let Some((_, tags)) = shares.get_mut(lane as usize) {
                    tags.push((queue, tag));
                }
            }
        }
        shares.retain(|(_, tags)| !tags.is_empty());
        shares
    }

    /// Whether the tags of one queue go to several of `lanes`.
    pub(super) fn is_by_tag(self, info: &DevInfo, lanes: u16) -> bool {
        let may = info.flags & feature::PER_IO_DAEMON != 0;
        may && match self {
            Self::Auto => lanes >= MANY,
            Self::Tags => lanes > 1,
            Self::Queues => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn info(flags: u64) -> DevInfo {
        DevInfo {
            nr_hw_queues: 3,
            queue_depth: 8,
            flags,
            ..DevInfo::default()
        }
    }

    #[test]
    fn every_tag_has_one_lane_and_queues_stay_whole_without_per_io_daemons() {
        for spread in [Spread::Auto, Spread::Tags, Spread::Queues] {
            for lanes in [1, 2, 3, 4, 7] {
                for flags in [0, feature::PER_IO_DAEMON] {
                    let shares = spread.shares(&info(flags), lanes);
                    let all: Vec<_> = shares.iter().flat_map(|(_, tags)| tags.clone()).collect();
                    assert_eq!(all.len(), 24);
                    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 24);
                    let lanes_of_queue = shares
                        .iter()
                        .filter(|(_, tags)| tags.iter().any(|(queue, _)| *queue == 0))
                        .count();
                    let split = spread.is_by_tag(&info(flags), lanes);
                    assert_eq!(lanes_of_queue > 1, split, "{spread:?} {lanes} {flags}");
                    assert!(flags != 0 || !split);
                }
            }
        }
    }
}
