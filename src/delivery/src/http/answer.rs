//! What the answer of a receiver over HTTP means for the records that were sent (RFC 9110, section 15).

use std::time::Duration;

use crate::remote::Refused;
use crate::visible;

/// Characters of an answer's body that are shown.
const SHOWN: usize = 200;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// `Retry-After`, where it is a number of seconds. (A date, which the field may also hold, needs
    /// two clocks that agree; the courier's own delay stands in for it.)
    pub retry_after: Option<Duration>,
    /// `Location`.
    pub location: Option<String>,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Errors
    /// What any other answer means. `said` is what the protocol makes of its body, if anything.
    pub fn success(self, said: impl Fn(&[u8]) -> Option<String>) -> Result<Vec<u8>, Refused> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let said = said(&self.body).or_else(|| text(&self.body)).unwrap_or_default();
        let quote = if said.is_empty() { said } else { format!(": {}", shown(&said)) };
        let why = |advice: &str| format!("HTTP {}{}{quote}", self.status, advice);
        let later = |why| Refused::Later { taken: 0, after: self.retry_after, why };
        Err(match self.status {
            300..400 => {
                let to = self.location.as_deref().unwrap_or("somewhere else");
                // A token is for the address that was configured, and for no other.
                later(why(&format!(
                    " redirects to {}, which is not followed: put the final address into `url`",
                    shown(to)
                )))
            }
            // What a correct request with these records would get again.
            400 | 409 | 415 | 422 => Refused::Poison { why: why("") },
            413 => Refused::TooLarge { why: why("") },
            // Wrong for every record alike: an operator has to mend it, and nothing is thrown away.
            401 | 403 => {
                later(why(" (the receiver does not accept who we are: is the token right?)"))
            }
            404 | 405 | 410 => later(why(" (is the path in `url` right?)")),
            407 => later(why(" (the proxy wants a user and a password)")),
            500 => Refused::Faulty { why: why("") },
            _ => later(why("")),
        })
    }
}

/// A body that is text, its first line.
fn text(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    text.lines().next().map(str::to_owned)
}

/// What a stranger said, safe and short.
fn shown(text: &str) -> String {
    visible::cut_end(&visible::escaped(text), SHOWN).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer { status, retry_after: None, location: None, body: b"no\x1b[2J\nmore".to_vec() }
    }

    #[test]
    fn each_status_has_its_meaning() {
        for status in [200, 202, 204] {
            assert!(answer(status).success(|_| None).is_ok());
        }
        for status in [301, 302, 307, 401, 403, 404, 407, 408, 418, 429, 502, 503, 504] {
            let refused = answer(status).success(|_| None).unwrap_err();
            assert!(matches!(refused, Refused::Later { taken: 0, .. }), "{status}: {refused:?}");
        }
        for status in [400, 422] {
            let refused = answer(status).success(|_| None).unwrap_err();
            assert!(matches!(refused, Refused::Poison { .. }), "{status}: {refused:?}");
        }
        let refused = answer(413).success(|_| None).unwrap_err();
        assert!(matches!(refused, Refused::TooLarge { .. }));
        let refused = answer(500).success(|_| None).unwrap_err();
        assert!(matches!(refused, Refused::Faulty { .. }));
    }

    #[test]
    fn says_what_the_receiver_said_without_its_controls() {
        let refused = answer(400).success(|_| None).unwrap_err();
        assert_eq!(refused.why(), "HTTP 400: no\\x1b[2J");
        let refused = answer(400).success(|_| Some("in its own words".to_owned())).unwrap_err();
        assert_eq!(refused.why(), "HTTP 400: in its own words");
        let mut moved = answer(308);
        moved.location = Some("https://elsewhere/".to_owned());
        let refused = moved.success(|_| None).unwrap_err();
        assert!(refused.why().contains("https://elsewhere/"), "{refused:?}");
    }
}
