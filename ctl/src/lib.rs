//! csnapctl.
