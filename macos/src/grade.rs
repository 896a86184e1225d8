//! How much can be seen live: with Endpoint Security or without it, and why without.

use std::fmt;

/// Why Endpoint Security gave no client (`es_new_client_result_t`, ESTypes.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// ES_NEW_CLIENT_RESULT_ERR_NOT_ENTITLED.
    NotEntitled,
    /// ES_NEW_CLIENT_RESULT_ERR_NOT_PERMITTED.
    NotPermitted,
    /// ES_NEW_CLIENT_RESULT_ERR_NOT_PRIVILEGED.
    NotPrivileged,
    /// ES_NEW_CLIENT_RESULT_ERR_TOO_MANY_CLIENTS.
    TooManyClients,
    /// ES_NEW_CLIENT_RESULT_ERR_INTERNAL.
    Internal,
    /// A call that this version of macOS does not have.
    TooOld,
    /// Anything else, in words.
    Other(String),
}

impl Refusal {
    /// Whether it may be otherwise in a while, without another program or system.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Refusal::NotEntitled | Refusal::TooOld)
    }

    /// What the user can do about it.
    pub fn mend(&self) -> &'static str {
        match self {
            Refusal::NotEntitled => {
                "use a bpfwatch.app that is signed with com.apple.developer.endpoint-security.client and has \
                 its provisioning profile; without one, `eslogger exec fork exit open close setmode setowner \
                 | bpfwatch replay -` works with Apple's own tool"
            }
            Refusal::NotPermitted => {
                "allow it in System Settings, Privacy & Security, Full Disk Access, or install the profile of \
                 `bpfwatch mdm-profile`; it is tried again each minute"
            }
            Refusal::NotPrivileged => "run it as root, as the launchd daemon does",
            Refusal::TooManyClients => {
                "another security product has all clients: see `sudo launchctl list`, end one; it is tried \
                 again each minute"
            }
            Refusal::Internal => {
                "endpointsecurityd did not answer; it is tried again each minute, else restart the machine"
            }
            Refusal::TooOld => "macOS 13 or later is needed for it",
            Refusal::Other(_) => "please report it with the version of macOS",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotEntitled => "the program has not the entitlement (NOT_ENTITLED)",
            Refusal::NotPermitted => "the program has not Full Disk Access (NOT_PERMITTED)",
            Refusal::NotPrivileged => "the program does not run as root (NOT_PRIVILEGED)",
            Refusal::TooManyClients => "there are too many clients (TOO_MANY_CLIENTS)",
            Refusal::Internal => "the subsystem failed (INTERNAL)",
            Refusal::TooOld => "this macOS is too old for it",
            Refusal::Other(what) => what,
        })
    }
}

/// How the sensor watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grade {
    /// Endpoint Security tells of every open and execution; the tables of the rest.
    Full,
    /// The tables alone: what is shorter than the time between two looks is not seen, nor who executes what.
    WithoutEndpointSecurity(Refusal),
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grade::Full => f.write_str("full: Endpoint Security, debug.bpf_stats and libproc"),
            Grade::WithoutEndpointSecurity(why) => {
                write!(f, "without Endpoint Security ({why}): debug.bpf_stats and libproc")
            }
        }
    }
}

/// The numbers of a version such as `14.5` or `13.6.1` (sysctl kern.osproductversion). What is missing is 0.
pub fn version(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.trim().splitn(3, '.').map(str::parse);
    let major = parts.next()?.ok()?;
    let mut next = || parts.next().unwrap_or(Ok(0)).ok();
    Some((major, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_words() {
        let all = [
            Refusal::NotEntitled,
            Refusal::NotPermitted,
            Refusal::NotPrivileged,
            Refusal::TooManyClients,
            Refusal::Internal,
            Refusal::TooOld,
            Refusal::Other("x".to_owned()),
        ];
        let mut words: Vec<_> =
            all.iter().flat_map(|one| [one.to_string(), one.mend().to_owned()]).collect();
        // What is said to be tried again is.
        assert!(all.iter().all(|one| one.may_pass() || !one.mend().contains("tried again")));
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 2 * all.len());
        let grade = Grade::WithoutEndpointSecurity(Refusal::NotPermitted).to_string();
        assert!(grade.contains("Full Disk Access") && grade.contains("without"), "{grade}");
    }

    #[test]
    fn reads_versions() {
        assert_eq!(version("14.5"), Some((14, 5, 0)));
        assert_eq!(version("13.6.1\n"), Some((13, 6, 1)));
        assert_eq!(version("26"), Some((26, 0, 0)));
        assert_eq!((version(""), version("x.1"), version("1.x")), (None, None, None));
    }
}
