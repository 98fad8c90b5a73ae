//! Names of other files in an image: bytes of no stated encoding.

use super::error::Result;
use super::layout::Layout;
use crate::medium::Source;

/// The backing file's name.
pub(super) fn backing<S: Source>(source: &S, end: u64, layout: &Layout) -> Result<Option<String>> {
    let Some((at, length)) = layout.backing_name else {
        return Ok(None);
    };
    let bytes = super::read(source, end, at, length.into())?;
    Ok(Some(text(&bytes)))
}

/// As text; what is no UTF-8 is shown as such and leads nowhere.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
