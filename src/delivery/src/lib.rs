//! How lines leave bpfwatch: formats and transports, independent of each other.
//!
//! A [`Format`] turns one [`Line`](bpfwatch_core::finding::Line) into the bytes of one record; a
//! transport takes any format and puts its records somewhere. To add one of either is one file.
//!
//! | module | duty |
//! |---|---|
//! | [`format`] | what a format is |
//! | [`json`] | native JSON, one object a line |
//! | [`human`] | blocks to be read on a terminal |
//! | [`style`], [`visible`] | colours, and text that cannot steer a terminal |
//!
//! Names in a line were chosen by whoever is watched. No format lets one of them start a second
//! record, move a cursor or turn the reading direction.

pub mod format;
pub mod human;
pub mod json;
pub mod style;
pub mod visible;

pub use format::{Format, Shape};
pub use human::Human;
pub use json::Json;
pub use style::Style;
