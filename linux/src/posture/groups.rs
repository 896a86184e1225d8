//! Names and members of groups, from the text of /etc/group (group(5)). Directories on the network are
//! not asked: `doctor` must not hang on one.

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id.
    pub gid: u32,
    /// Users who have it beside their own group.
    pub members: Vec<&'a str>,
}

/// All groups in the text; lines that are none are left out.
pub fn parse(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid, members) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let members = members.split(',').filter(|member| !member.is_empty()).collect();
        Some(Group { name, gid: gid.parse().ok()?, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_groups() {
        let groups: Vec<_> = parse("root:x:0:\nwireshark:x:118:ann,bob\n+\nbad:x:y:\n").collect();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[1], Group { name: "wireshark", gid: 118, members: vec!["ann", "bob"] });
        assert!(groups[0].members.is_empty());
    }
}
