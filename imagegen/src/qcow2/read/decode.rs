//! Compressed clusters back to what they were. What follows the stream is not part of it;
//! never more than a cluster and a window is allocated.

use flate2::{Decompress, FlushDecompress};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

/// Raw deflate.
pub(super) fn deflate(stored: &[u8], cluster: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; cluster];
    let mut stream = Decompress::new(false);
    let done = stream.decompress(stored, &mut bytes, FlushDecompress::Finish);
    done.map_err(|error| format!("no deflate stream: {error}"))?;
    whole(bytes, stream.total_out() as usize)
}

/// log2 of the largest window: a cluster has at most 2 MiB, but a frame may ask for more
/// than it needs.
const WINDOW_LOG_MOST: u32 = 23;

/// A zstd frame.
pub(super) fn zstd(stored: &[u8], cluster: usize) -> Result<Vec<u8>, String> {
    let failed = |code| format!("no zstd frame: {}", zstd_safe::get_error_name(code));
    let mut context = DCtx::try_create().ok_or("no memory to decode it")?;
    let most = DParameter::WindowLogMax(WINDOW_LOG_MOST);
    context.set_parameter(most).map_err(failed)?;
    let mut bytes = vec![0; cluster];
    let mut input = InBuffer::around(stored);
    let mut output = OutBuffer::around(&mut bytes[..]);
    loop {
        let before = (input.pos(), output.pos());
        let left = context.decompress_stream(&mut output, &mut input);
        let is_stuck = (input.pos(), output.pos()) == before;
        if left.map_err(failed)? == 0 || is_stuck || output.pos() == cluster {
            break;
        }
    }
    let got = output.pos();
    whole(bytes, got)
}

fn whole(bytes: Vec<u8>, got: usize) -> Result<Vec<u8>, String> {
    match got == bytes.len() {
        true => Ok(bytes),
        false => Err(format!("it gives {got} bytes of {}", bytes.len())),
    }
}
