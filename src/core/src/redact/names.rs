//! Which names say that what follows is a secret.

/// Bytes of a name that are looked at; what makes it a secret stands at its end.
pub const NAME_LIMIT: usize = 64;

/// Whether the byte can be part of a name.
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whether a value of this name is a secret: `--db-password`, `AWS_SECRET_ACCESS_KEY`, `apiToken`.
pub fn is_secret(name: &str) -> bool {
    const ENDS: [&str; 11] = [
        "password",
        "passwd",
        "passphrase",
        "passcode",
        "secret",
        "token",
        "apikey",
        "accesskey",
        "secretkey",
        "authkey",
        "credentials",
    ];
    let tail = name.as_bytes();
    let tail = &tail[tail.len().saturating_sub(NAME_LIMIT)..];
    // A name is one run of name bytes: `x; token` is none.
    if !tail.iter().all(|byte| is_name_byte(*byte)) {
        return false;
    }
    let mut compact = [0u8; NAME_LIMIT];
    let letters = tail.iter().filter(|byte| !matches!(byte, b'-' | b'_' | b'.'));
    let mut length = 0;
    for (slot, byte) in std::iter::zip(&mut compact, letters) {
        *slot = byte.to_ascii_lowercase();
        length += 1;
    }
    if ENDS.iter().any(|end| compact[..length].ends_with(end.as_bytes())) {
        return true;
    }
    // These are secrets only as a word: not `--bypass`, nor the shell's own PWD.
    let last = tail.rsplit(|byte| matches!(byte, b'-' | b'_' | b'.')).next().unwrap_or_default();
    last.eq_ignore_ascii_case(b"pass")
        || (last.eq_ignore_ascii_case(b"pwd") && length > 3 + usize::from(!tail.contains(&b'-')))
}

/// Whether a header of this name carries a credential.
pub fn is_header(name: &str) -> bool {
    const HEADERS: [&str; 7] = [
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "x-auth-token",
        "private-token",
        "cookie",
        "x-amz-security-token",
    ];
    HEADERS.iter().any(|header| header.eq_ignore_ascii_case(name))
}

/// Whether the argument after this one is a script: `sh -c`, `bash -lc`.
pub fn is_script_option(argument: &str) -> bool {
    argument.len() <= 5 && argument.starts_with('-') && argument.ends_with('c')
}

/// Whether it is an authentication scheme (RFC 9110, 11.1), which stands before the credential.
pub fn is_scheme(word: &str) -> bool {
    ["basic", "bearer", "digest", "negotiate", "token"]
        .iter()
        .any(|scheme| scheme.eq_ignore_ascii_case(word))
}
