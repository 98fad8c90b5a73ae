//! Compressing files that consist of pieces.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Step;
use crate::erofs::compress::SegmentError;
use crate::erofs::compress::codec::Codec;
use crate::erofs::compress::extent::Extent;
use crate::erofs::compress::segment::{Borrowed, Cut, End, Segment, Work};

/// Reads bytes of a file.
pub(in super::super) type Reader<'a> = &'a dyn Fn(Range<u64>) -> Result<Vec<u8>, SegmentError>;

/// A piece that was compressed.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Its clusters, whose places count from the piece's first byte in the image.
    extents: Vec<Extent>,
    /// Their bytes.
    data: Mutex<Data>,
}

/// Where the bytes of a piece's clusters are.
#[derive(Debug)]
enum Data {
    /// Nobody refers to them yet: kept only as long as somebody may want to.
    Idle(Vec<u8>),
    /// Nobody referred to them when they were made, which would have to be done again.
    Dropped,
    /// A file refers to them, and they wait for their place.
    Wanted(Vec<u8>),
    /// They have their place, or will never have one because that failed.
    Placed(Option<u64>),
}

/// All pieces, compressed when they are needed.
#[derive(Debug)]
pub(crate) struct Pieces {
    made: Vec<Mutex<Option<Arc<Piece>>>>,
}

impl Pieces {
    /// `count` of them.
    pub(crate) fn new(count: usize) -> Self {
        let made = (0..count).map(|_| Mutex::new(None)).collect();
        Self { made }
    }

    /// Where piece `id` lies, which [`compress`] told: `put` gives its bytes a place, if
    /// they have none.
    pub(crate) fn place<E>(
        &self,
        id: u32,
        put: impl FnOnce(&[u8]) -> Result<u64, E>,
    ) -> Result<Option<u64>, E> {
        let piece = self
            .made
            .get(id as usize)
            .and_then(|made| made.lock().clone());
        let Some(piece) = piece else { return Ok(None) };
        let mut data = piece.data.lock();
        match std::mem::replace(&mut *data, Data::Placed(None)) {
            Data::Placed(at) => {
                *data = Data::Placed(at);
                Ok(at)
            }
            Data::Wanted(bytes) => {
                let at = put(&bytes)?;
                *data = Data::Placed(Some(at));
                Ok(Some(at))
            }
            Data::Idle(_) | Data::Dropped => Ok(None), // which compress would have changed
        }
    }

    /// The piece `id`; made of the bytes of `range`, if it was not.
    fn get(
        &self,
        id: u32,
        range: Range<u64>,
        cut: &Cut,
        codec: &mut dyn Codec,
        read: Reader<'_>,
    ) -> Result<Arc<Piece>, SegmentError> {
        let Some(place) = self.made.get(id as usize) else {
            return Err(SegmentError::Lost);
        };
        // Whoever needs it as well waits here.
        let mut made = place.lock();
        if let Some(piece) = &*made {
            return Ok(Arc::clone(piece));
        }
        let Segment { extents, data, .. } = clusters(&read(range)?, cut, codec)?;
        let piece = Arc::new(Piece {
            extents,
            data: Mutex::new(Data::Idle(data)),
        });
        *made = Some(Arc::clone(&piece));
        Ok(piece)
    }
}

impl Piece {
    /// Somebody refers to it: its clusters are kept until they have a place. `make` makes
    /// them again, if they are gone.
    fn want(
        &self,
        make: impl FnOnce() -> Result<Segment, SegmentError>,
    ) -> Result<(), SegmentError> {
        let mut data = self.data.lock();
        *data = match std::mem::replace(&mut *data, Data::Dropped) {
            Data::Idle(bytes) | Data::Wanted(bytes) => Data::Wanted(bytes),
            Data::Dropped => Data::Wanted(make()?.data),
            Data::Placed(at) => Data::Placed(at),
        };
        Ok(())
    }

    /// Somebody does not refer to it who might have: nothing of it is kept but where its
    /// clusters end, unless another does. Pieces that nobody can refer to may be many.
    fn leave(&self) {
        let mut data = self.data.lock();
        if let Data::Idle(_) = *data {
            *data = Data::Dropped;
        }
    }
}

/// The clusters of a piece that consists of `bytes`: the same whoever makes them.
fn clusters(bytes: &[u8], cut: &Cut, codec: &mut dyn Codec) -> Result<Segment, SegmentError> {
    codec.forget();
    let mut work = Work::new(cut, 0);
    let done = work.run(bytes, false, codec);
    let rest = bytes.get(done.map_err(SegmentError::Compress)?..);
    let done = work.finish(rest.unwrap_or_default(), End::Blocks, codec);
    done.map_err(SegmentError::Compress)?;
    Ok(work.done)
}

/// Compresses a part of a file that begins at byte `begin` of it and consists of `steps`;
/// it ends at a block, or with the file.
pub(crate) fn compress(
    steps: &[Step],
    begin: u64,
    pieces: &Pieces,
    cut: &Cut,
    codec: &mut dyn Codec,
    read: Reader<'_>,
) -> Result<Segment, SegmentError> {
    let phase = (begin % cut.block as u64) as usize;
    let mut work = Work::new(cut, phase);
    // Bytes before `at` that are not compressed yet.
    let mut own: Vec<u8> = Vec::new();
    let mut at = begin;
    for (number, step) in steps.iter().enumerate() {
        let range = at..at + step.length;
        at = range.end;
        let Some(id) = step.piece else {
            own.extend(read(range)?);
            continue;
        };
        let piece = pieces.get(id, range.clone(), cut, codec, read)?;
        let ends_file = cut.ends_file && number + 1 == steps.len();
        let (mut from, mut extents) = (range.start, &piece.extents[..]);
        codec.forget();
        while !work.all(&mut own, codec)?
            && let Some((first, later)) = extents.split_first()
        {
            let next = from + u64::from(first.length);
            own.extend(read(from..next)?);
            (from, extents) = (next, later);
        }
        let used = match own.is_empty() {
            true => work.borrow(id, extents, ends_file),
            false => 0,
        };
        match used {
            0 => piece.leave(),
            _ => piece.want(|| clusters(&read(range.clone())?, cut, codec))?,
        }
        from += used;
        own.extend(read(from..range.end)?);
    }
    codec.forget();
    let done = work.finish(&own, cut.end, codec);
    done.map_err(SegmentError::Compress)?;
    Ok(work.done)
}

impl Work<'_> {
    /// Compresses `own`, of which only what could not stand before other extents stays;
    /// whether nothing does.
    fn all(&mut self, own: &mut Vec<u8>, codec: &mut dyn Codec) -> Result<bool, SegmentError> {
        let done = self.run(own, true, codec);
        own.drain(..done.map_err(SegmentError::Compress)?);
        Ok(own.is_empty())
    }

    /// Refers to the extents of piece `id`, but a last one after which another could not
    /// begin; bytes of the file that they are.
    fn borrow(&mut self, id: u32, extents: &[Extent], ends_file: bool) -> u64 {
        let first = self.done.extents.len();
        let mut used = 0;
        for extent in extents {
            let length = extent.length as usize;
            if self.at % self.cut.block + length < self.cut.block && !ends_file {
                break;
            }
            self.at += length;
            used += u64::from(extent.length);
            self.done.extents.push(*extent);
        }
        if used > 0 {
            self.done.borrowed.push(Borrowed {
                extents: first..self.done.extents.len(),
                piece: id,
            });
        }
        used
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::erofs::compress::codec::codec;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const CUT: Cut = Cut {
        block: 4096,
        cluster: 4096,
        interlaced: false,
        end: End::Blocks,
        ends_file: true,
    };

    /// What is compressed of the piece, after `before` bytes that nobody shares.
    fn after(pieces: &Pieces, before: usize, piece: &[u8]) -> Segment {
        let file = [&vec![1; before], piece].concat();
        let steps = [(before, None), (piece.len(), Some(0))].map(|(length, piece)| Step {
            length: length as u64,
            piece,
        });
        let steps = if before > 0 { &steps[..] } else { &steps[1..] };
        let mut codec = codec("zstd".parse().unwrap(), 4096).unwrap();
        let read = |range: Range<u64>| Ok(file[range.start as usize..range.end as usize].to_vec());
        compress(steps, 0, pieces, &CUT, codec.as_mut(), &read).unwrap()
    }

    #[test]
    fn what_nobody_refers_to_is_not_kept() {
        let mut noise = vec![0; 100_000];
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
        let pieces = Pieces::new(1);
        let state = || {
            let piece = pieces.made[0].lock().clone().unwrap();
            let data = piece.data.lock();
            format!("{data:?}").chars().take(6).collect::<String>()
        };
        // Noise that begins within a block cannot be used from elsewhere.
        assert!(after(&pieces, 100, &noise).borrowed.is_empty());
        assert_eq!(state(), "Droppe");
        assert_eq!(after(&pieces, 0, &noise).borrowed.len(), 1);
        assert_eq!(state(), "Wanted");
        assert!(after(&pieces, 100, &noise).borrowed.is_empty());
        assert_eq!(state(), "Wanted");
        let put = |data: &[u8]| {
            assert!(data.starts_with(&noise));
            Ok::<_, ()>(77)
        };
        assert_eq!(pieces.place(0, put), Ok(Some(77)));
        assert_eq!(pieces.place(0, |_| Err(())), Ok(Some(77)));
        assert_eq!(after(&pieces, 0, &noise).borrowed.len(), 1);
        assert_eq!(state(), "Placed");
    }
}
