//! Bytes on their way to one place of the image, in memory that lies as they will there:
//! a whole page of the image is a whole page of memory, so that it can be written past
//! the page cache.

/// What pages are aligned to, here and there.
pub(crate) fn page() -> usize {
    rustix::param::page_size().max(4096)
}

/// Bytes at most.
pub(crate) const CAPACITY: usize = 2 << 20;

/// Up to [`CAPACITY`] bytes that follow each other in the image.
pub(crate) struct Buffer {
    memory: Box<[u8]>,
    /// Where the image's page with the first byte begins in `memory`.
    aligned: usize,
    begin: usize,
    end: usize,
    at: u64,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        let page = page();
        let memory = vec![0; CAPACITY + page].into_boxed_slice();
        let aligned = memory.as_ptr().align_offset(page).min(page);
        Self {
            memory,
            aligned,
            begin: aligned,
            end: aligned,
            at: 0,
        }
    }

    /// Empties it; the next byte belongs at byte `at` of the image.
    pub(crate) fn start(&mut self, at: u64) {
        self.begin = self.aligned + (at % page() as u64) as usize;
        self.end = self.begin;
        self.at = at;
    }

    /// Where the bytes belong.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Where the next byte belongs.
    pub(crate) fn next(&self) -> u64 {
        self.at + self.bytes().len() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..self.end]
    }

    /// Takes as many of `bytes` as there is room for; the others.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(self.room().len()));
        self.room()[..now.len()].copy_from_slice(now);
        self.end += now.len();
        later
    }

    /// Appends up to `count` zeroes; how many there was no room for.
    pub(crate) fn push_zeroes(&mut self, count: u64) -> u64 {
        let now = count.min(self.room().len() as u64) as usize;
        self.room()[..now].fill(0);
        self.end += now;
        count - now as u64
    }

    /// Appends what `read` puts into the room there is, at most `count` bytes of it; how
    /// many it were.
    pub(crate) fn fill(
        &mut self,
        count: u64,
        read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        let most = count.min(self.room().len() as u64) as usize;
        let now = read(&mut self.room()[..most])?.min(most);
        self.end += now;
        Ok(now)
    }

    /// What is left; it ends with a page of the image.
    fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..self.aligned + CAPACITY]
    }

    pub(crate) fn is_full(&mut self) -> bool {
        self.room().is_empty()
    }
}

/// Bytes that begin with a page of memory.
#[derive(Debug, Default)]
pub(crate) struct Paged {
    memory: Vec<u8>,
    begin: usize,
    length: usize,
}

impl Paged {
    /// Gives it so many bytes; what they are does not matter.
    pub(crate) fn resize(&mut self, length: usize) {
        if self.memory.len() < length + page() {
            self.memory = vec![0; length + page()];
            self.begin = self.memory.as_ptr().align_offset(page()).min(page());
        }
        self.length = length;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let end = self.begin + self.length;
        self.memory.get(self.begin..end).unwrap_or_default()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.begin + self.length;
        self.memory.get_mut(self.begin..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paged_bytes_begin_with_a_page_whatever_their_number() {
        let mut paged = Paged::default();
        assert!(paged.bytes().is_empty());
        for length in [1, 4096, 100_000, 5] {
            paged.resize(length);
            assert_eq!(paged.bytes_mut().len(), length);
            assert_eq!(paged.bytes().as_ptr().align_offset(page()), 0);
        }
    }

    #[test]
    fn memory_lies_as_the_image_does() {
        let mut buffer = Buffer::new();
        for at in [0, 512, 4095, 4096, 1 << 40, (1 << 40) + 1024] {
            buffer.start(at);
            assert!(buffer.push(&[7; 10_000]).is_empty());
            let page = (at.next_multiple_of(4096) - at) as usize;
            let bytes = &buffer.bytes()[page..];
            assert_eq!(bytes.as_ptr().align_offset(4096), 0, "{at}");
            assert_eq!(buffer.next(), at + 10_000);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_and_the_end_is_a_page() {
        let mut buffer = Buffer::new();
        buffer.start(1024);
        let room = CAPACITY - 1024;
        assert_eq!(buffer.push(&vec![1; room - 5]).len(), 0);
        assert_eq!(buffer.push(&[2; 9]).len(), 4);
        assert!(buffer.is_full());
        assert_eq!(buffer.next() % 4096, 0);
        assert_eq!(buffer.push_zeroes(3), 3);
        assert_eq!(buffer.bytes().len(), room);
        assert!(buffer.bytes().ends_with(&[1, 2, 2, 2, 2, 2]));
    }

    #[test]
    fn old_bytes_do_not_shine_through() {
        let mut buffer = Buffer::new();
        buffer.start(0);
        assert!(buffer.push(&[9; 100]).is_empty());
        buffer.start(0);
        assert_eq!(buffer.push_zeroes(50), 0);
        let read = buffer.fill(100, |room| {
            assert_eq!(room.len(), 100);
            room[..7].fill(3);
            Ok(7)
        });
        assert_eq!(read.unwrap(), 7);
        assert_eq!(buffer.bytes(), [vec![0; 50], vec![3; 7]].concat());
    }
}
