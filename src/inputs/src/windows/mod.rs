//! Windows event logs: EVTX files, and the JSON that the usual shippers and converters make of them.
//!
//! | file | duty |
//! |---|---|
//! | `evtx` | binary files, block by block |
//! | `layout` | where the records of a block stand |
//! | `json` | one event a line, in three shapes |
//! | `event` | an event, however it was written down |
//! | `decode` | an event to observations, in Sigma's names |
//! | `script` | script blocks that came in parts |

mod decode;
mod event;
mod evtx;
mod json;
mod layout;
mod script;

pub use evtx::Evtx;
pub use json::WindowsJson;
