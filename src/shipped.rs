//! The rules that come with the program, embedded by build.rs.

use bpfwatch_core::rules::RuleFile;

/// Path in the repository, text, ADS page.
const FILES: &[(&str, &str, Option<&str>)] = include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Every shipped rule file, by path.
pub fn files() -> Vec<RuleFile> {
    FILES
        .iter()
        .map(|(path, text, page)| RuleFile {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
            page: page.map(str::to_owned),
        })
        .collect()
}
