//! BSM audit records (audit.log(5), OpenBSM): trails in files, and what an audit pipe gives. FreeBSD's and
//! macOS's.
//!
//! | module | duty |
//! |---|---|
//! | [`frame`] | where a record ends, and where the next one may begin after damage |
//! | [`token`] | the parts of a record |
//! | [`record`] | one record: its tokens, and what of them matters |
//! | [`event`] | numbers of the events that matter |
//! | [`observe`] | a record to observations |
//! | [`descriptors`] | opens, ioctls, closes and forks joined by process and descriptor |
//! | [`format`] | the recorded format `bsm` |
//!
//! It is the one source on FreeBSD that has every open with its process, and the dearest.

pub mod descriptors;
pub mod event;
pub mod format;
pub mod frame;
pub mod observe;
pub mod record;
pub mod token;
