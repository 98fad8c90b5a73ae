//! csnapd.
fn main() {}
