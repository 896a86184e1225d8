//! What asks a running macOS: nothing here can be run elsewhere, so as little as possible is decided here.

mod convert;
mod coverage;
mod es;
mod events;
mod ffi;
mod followed;
mod kernel;
mod oslog;
mod platform;
mod sensor;
mod snapshot;

pub use platform::MacosPlatform;
