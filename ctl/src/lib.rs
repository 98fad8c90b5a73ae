//! The control tool.
