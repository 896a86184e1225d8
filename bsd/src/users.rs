//! Names of users, from passwd(5) alone: NSS would load code and ask networks.

use std::collections::HashMap;

use bpfwatch_core::text::Text;

/// Where they are. FreeBSD makes it from master.passwd, without the passwords.
pub const PASSWD: &str = "/etc/passwd";
/// Users that are kept.
const MAX_USERS: usize = 65_536;

/// Names by id; of several with one id the first, as getpwuid(3) has it.
pub fn users(text: &[u8]) -> HashMap<u32, Text> {
    let mut out = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().unwrap_or_default();
        let uid = fields.nth(1).and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok());
        if let Some(uid) = uid
            && !name.is_empty()
            && !name.starts_with(b"#")
            && out.len() < MAX_USERS
        {
            out.entry(uid).or_insert_with(|| Text::from_bytes_limited(name, 256));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_one_id_counts() {
        let text = b"# $FreeBSD$\nroot:*:0:0:Charlie &:/root:/bin/csh\ntoor:*:0:0::/root:\n\
                     broken\n:*:5:\nnobody:*:65534:65534::/nonexistent:/usr/sbin/nologin";
        let users = users(text);
        assert_eq!(users.len(), 2);
        assert_eq!(users[&0].as_str(), "root");
        assert_eq!(users[&65534].as_str(), "nobody");
    }
}
