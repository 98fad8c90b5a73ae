//! csnapctl.
fn main() {}
