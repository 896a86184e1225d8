//! Which format a file is in: by its first line that is not blank, or as the user says.

use std::sync::Arc;

use bpfwatch_core::decoder::LineDecoder;

use crate::error::ReadError;

/// The format of a file that begins with `head`; the first of `formats` that recognises it. `None` for
/// a file that has nothing but blanks.
///
/// # Errors
/// When no format recognises it.
pub fn detect<'a>(
    head: &[u8],
    source_name: &Arc<str>,
    formats: &[&'a dyn LineDecoder],
) -> Result<Option<&'a dyn LineDecoder>, ReadError> {
    let Some(line) = first_line(head) else { return Ok(None) };
    match formats.iter().find(|format| format.sniff(line)) {
        Some(format) => Ok(Some(*format)),
        None => Err(ReadError::UnknownFormat {
            source_name: Arc::clone(source_name),
            known: names(formats),
        }),
    }
}

/// The format that `--input` names.
///
/// # Errors
/// When there is none of that name.
pub fn by_name<'a>(
    name: &str,
    formats: &[&'a dyn LineDecoder],
) -> Result<&'a dyn LineDecoder, ReadError> {
    formats
        .iter()
        .find(|format| format.name() == name)
        .copied()
        .ok_or_else(|| ReadError::UnknownInput { name: name.to_owned(), known: names(formats) })
}

/// The first line that is not blank, or what there is of it.
pub(crate) fn first_line(head: &[u8]) -> Option<&[u8]> {
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let rest = &head[start..];
    Some(memchr::memchr(b'\n', rest).map_or(rest, |end| &rest[..end]))
}

fn names(formats: &[&dyn LineDecoder]) -> Vec<&'static str> {
    formats.iter().map(|format| format.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Recording;

    #[test]
    fn content_decides() {
        let formats: [&dyn LineDecoder; 1] = [&Recording];
        let name = Arc::from("x.jsonl");
        let of = |head: &[u8]| detect(head, &name, &formats).map(|f| f.map(|f| f.name()));
        assert_eq!(of(b"\n \r\n{\"type\":\"meta\"}\n").unwrap(), Some("recording"));
        assert_eq!(of(b"{\"type\":\"observation\",\"at").unwrap(), Some("recording"));
        assert_eq!(of(b"").unwrap(), None);
        assert_eq!(of(b" \n\n").unwrap(), None);
        let error = of(b"Nov 24 02:45:17 web-1 kernel: hello\n{\"type\":\"meta\"}").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("x.jsonl") && text.contains("recording") && text.contains("--input"));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let formats: [&dyn LineDecoder; 1] = [&Recording];
        assert_eq!(by_name("recording", &formats).unwrap().name(), "recording");
        let Err(error) = by_name("evtx", &formats) else { panic!("accepted") };
        assert_eq!(error.to_string(), "there is no input format `evtx`; the formats are recording");
    }
}
