//! What a format is: one line of output in, the bytes of one record out.

use bpfwatch_core::finding::Line;

/// Turns lines into records. It has no state: a record does not depend on those before it.
pub trait Format: Send {
    /// Appends one record to `out`, its end included. A line that cannot be rendered appends nothing;
    /// transports report that as an error.
    fn render(&self, line: &Line, out: &mut Vec<u8>);

    /// What its records look like, so that a transport can refuse what it cannot carry.
    fn shape(&self) -> Shape;
}

impl Format for Box<dyn Format> {
    fn render(&self, line: &Line, out: &mut Vec<u8>) {
        (**self).render(line, out);
    }

    fn shape(&self) -> Shape {
        (**self).shape()
    }
}

/// What the records of a format look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One line that ends with a newline and holds no other.
    Line,
    /// As `Line`, and it begins with a syslog header of its own.
    Syslog,
    /// Several lines, for people.
    Block,
    /// No text: a message of the one transport that knows it.
    Message,
}
