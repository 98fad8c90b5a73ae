//! Reference counts (specification: "Host cluster management"): numbers of 1 to 64 bits
//! that fill a cluster; those of less than a byte begin at its lowest bit.

/// How wide a count is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefcountWidth {
    order: u32,
}

impl RefcountWidth {
    /// 16 bits: all that version 2 has.
    pub const V2: Self = Self { order: 4 };

    /// `1 << order` bits; none if that is more than 64.
    #[must_use]
    pub const fn from_order(order: u32) -> Option<Self> {
        match order {
            0..=6 => Some(Self { order }),
            _ => None,
        }
    }

    /// log2 of its bits.
    #[must_use]
    pub const fn order(self) -> u32 {
        self.order
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        1 << self.order
    }

    /// The largest count.
    #[must_use]
    pub const fn most(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// log2 of how many counts a cluster of `1 << cluster_bits` bytes holds.
    #[must_use]
    pub const fn per_cluster_bits(self, cluster_bits: u32) -> u32 {
        cluster_bits + 3 - self.order
    }

    /// Count `index` of a block; none beyond its end.
    #[must_use]
    pub fn get(self, block: &[u8], index: usize) -> Option<u64> {
        if self.order < 3 {
            let per_byte = 8 >> self.order;
            let byte = block.get(index / per_byte)?;
            let shift = (index % per_byte) << self.order;
            return Some(u64::from(*byte) >> shift & self.most());
        }
        let bytes = 1usize << (self.order - 3);
        let begin = index.checked_mul(bytes)?;
        let stored = block.get(begin..begin.checked_add(bytes)?)?;
        Some(
            stored
                .iter()
                .fold(0, |count, byte| count << 8 | u64::from(*byte)),
        )
    }

    /// Sets count `index` of a block, if it has it; what `count` has above
    /// [`most`](Self::most) is lost.
    pub fn set(self, block: &mut [u8], index: usize, count: u64) {
        if self.order < 3 {
            let per_byte = 8 >> self.order;
            let shift = (index % per_byte) << self.order;
            if let Some(byte) = block.get_mut(index / per_byte) {
                let mask = (self.most() as u8) << shift;
                *byte = *byte & !mask | ((count as u8) << shift) & mask;
            }
            return;
        }
        let bytes = 1usize << (self.order - 3);
        let begin = index.saturating_mul(bytes);
        if let Some(stored) = block.get_mut(begin..begin.saturating_add(bytes)) {
            let all = count.to_be_bytes();
            stored.copy_from_slice(all.get(8 - bytes..).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_come_back_and_leave_their_neighbours() {
        for order in 0..=6 {
            let width = RefcountWidth::from_order(order).unwrap();
            let mut block = [0; 64];
            let all = 512 >> order;
            for index in 0..all {
                width.set(&mut block, index, index as u64 * 7 + 1);
            }
            for index in 0..all {
                let expected = (index as u64 * 7 + 1) & width.most();
                assert_eq!(width.get(&block, index), Some(expected), "{order} {index}");
            }
            assert_eq!(width.get(&block, all), None);
        }
        assert_eq!(RefcountWidth::from_order(7), None);
    }

    /// The specification's own order: "refcount block entry: ... least significant bit".
    #[test]
    fn small_counts_begin_at_the_lowest_bit_and_large_ones_with_the_highest_byte() {
        let mut block = [0; 2];
        RefcountWidth::from_order(0).unwrap().set(&mut block, 1, 1);
        assert_eq!(block, [2, 0]);
        RefcountWidth::V2.set(&mut block, 0, 0x0102);
        assert_eq!(block, [1, 2]);
    }
}
