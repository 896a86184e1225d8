//! One record: its tokens, and what of them matters.

use bpfwatch_core::time::Timestamp;

use crate::bsm::token::{self, Attributes, Cursor, Header, Subject, Token, TokenError};

/// What of a record matters. Of what comes twice the first counts, but for paths: the kernel writes a
/// relative one before the resolved one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record<'a> {
    /// What it began with.
    pub header: Option<Header>,
    /// Who did it.
    pub subject: Option<Subject>,
    /// Jail.
    pub zone: Option<&'a [u8]>,
    /// Path as the kernel resolved it.
    pub path: Option<&'a [u8]>,
    /// The file.
    pub attributes: Option<Attributes>,
    /// Arguments of a program.
    pub exec_arguments: Option<&'a [u8]>,
    /// How it went: error and value.
    pub returned: Option<(u8, u64)>,
    arguments: Vec<(&'a [u8], u64)>,
}

/// Arguments of a call that are kept; no event has so many.
const MAX_ARGUMENTS: usize = 16;

/// The tokens of a record, one after the other.
#[derive(Debug, Clone)]
pub struct Tokens<'a>(Cursor<'a>);

impl<'a> Tokens<'a> {
    /// Of a whole record.
    pub fn new(record: &'a [u8]) -> Self {
        Self(Cursor::new(record))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Token<'a>, TokenError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = token::next(&mut self.0).transpose();
        if matches!(next, Some(Err(_))) {
            // Nobody knows where the next one would begin.
            self.0 = Cursor::new(&[]);
        }
        next
    }
}

impl<'a> Record<'a> {
    /// Reads the tokens.
    ///
    /// # Errors
    /// When one is cut short or not known.
    pub fn read(record: &'a [u8]) -> Result<Self, TokenError> {
        let mut out = Self::default();
        for token in Tokens::new(record) {
            out.take(token?);
        }
        Ok(out)
    }

    fn take(&mut self, token: Token<'a>) {
        match token {
            Token::Header(header) => _ = self.header.get_or_insert(header),
            Token::Subject(subject) => _ = self.subject.get_or_insert(subject),
            Token::Zone(zone) => _ = self.zone.get_or_insert(zone),
            Token::Path(path) => self.path = Some(path),
            Token::Attributes(attributes) => _ = self.attributes.get_or_insert(attributes),
            Token::ExecArguments(list) => _ = self.exec_arguments.get_or_insert(list),
            Token::Return { error, value } => _ = self.returned.get_or_insert((error, value)),
            Token::Argument { value, text, .. } if self.arguments.len() < MAX_ARGUMENTS => {
                self.arguments.push((text, value));
            }
            _ => {}
        }
    }

    /// Value of the argument of that name.
    pub fn argument(&self, name: &str) -> Option<u64> {
        let found = self.arguments.iter().find(|(text, _)| *text == name.as_bytes());
        found.map(|(_, value)| *value)
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        let Some(header) = self.header else { return Timestamp::default() };
        let millis = header.seconds.saturating_mul(1000).saturating_add(header.millis.min(999));
        let nanos = millis.saturating_mul(1_000_000);
        Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        matches!(self.returned, Some((0, _)))
    }
}
