//! Logsources that bpfwatch produces, and the fields that each operating system supplies.
//!
//! All of it is data: a new source is one more [`Source`] with its table. A field has three answers:
//! supplied by an operating system; known to Sigma but supplied by none or by others; unknown. A log's
//! own fields are an open set: what a Kubernetes request or a Windows event can carry, no table lists.

use crate::logged::Log;
use crate::observation::Os;

/// What kind of event a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A process executed an image.
    ProcessCreation,
    /// A capture session changed.
    PacketCapture,
    /// Something that makes captures possible, without a session.
    CapturePosture,
    /// A PowerShell script block.
    PsScript,
    /// A record of Windows' System log.
    WindowsSystem,
    /// A record of Windows' Security log that is no process creation.
    WindowsSecurity,
    /// A request to a Kubernetes API server.
    KubernetesAudit,
    /// A record of Linux audit.
    Auditd,
    /// A command on a Cisco device.
    CiscoAaa,
    /// A command on a Juniper device.
    JuniperMgd,
    /// An open of /dev/bpf by nobody who could be found.
    BpfOpens,
}

/// Every source, in the order of its discriminant.
pub const SOURCES: [Source; 11] = [
    Source::ProcessCreation,
    Source::PacketCapture,
    Source::CapturePosture,
    Source::PsScript,
    Source::WindowsSystem,
    Source::WindowsSecurity,
    Source::KubernetesAudit,
    Source::Auditd,
    Source::CiscoAaa,
    Source::JuniperMgd,
    Source::BpfOpens,
];

/// Operating systems and other producers in the order of [`Os`]'s discriminant.
pub const SYSTEMS: [Os; 7] =
    [Os::Linux, Os::Macos, Os::Freebsd, Os::Windows, Os::Kubernetes, Os::Cisco, Os::Juniper];

/// One source as rules name it.
struct Table {
    /// Sigma's `category`; with a service, rules may leave it out.
    category: Option<&'static str>,
    /// Sigma's `service`.
    service: Option<&'static str>,
    /// Any field may come.
    open: bool,
    /// Sigma's `product`: the systems that produce it.
    products: u8,
    fields: &'static [&'static [Field]],
}

/// A field's name, and the systems that supply it (none: Sigma knows it, bpfwatch does not).
struct Field(&'static str, u8);

const L: u8 = bit(Os::Linux);
const M: u8 = bit(Os::Macos);
const F: u8 = bit(Os::Freebsd);
const W: u8 = bit(Os::Windows);
const K: u8 = bit(Os::Kubernetes);
const C: u8 = bit(Os::Cisco);
const J: u8 = bit(Os::Juniper);
const LIVE: u8 = L | M | F;
const ALL: u8 = LIVE | W;

const fn bit(os: Os) -> u8 {
    1 << os as u8
}

const TABLES: [Table; SOURCES.len()] = [
    category("process_creation", ALL, &[PROCESS, PROCESS_KNOWN]),
    category("packet_capture", LIVE, &[SESSION, PROCESS]),
    category("capture_posture", LIVE, &[POSTURE, PROCESS]),
    Table { open: true, ..category("ps_script", W, &[PROCESS]) },
    service(None, "system", W),
    service(None, "security", W),
    service(Some("application"), "audit", K),
    service(None, "auditd", L),
    service(None, "aaa", C),
    service(None, "mgd", J),
    service(None, "bpf_opens", F),
];

const fn category(name: &'static str, products: u8, fields: &'static [&'static [Field]]) -> Table {
    Table { category: Some(name), service: None, open: false, products, fields }
}

const fn service(category: Option<&'static str>, name: &'static str, products: u8) -> Table {
    Table { category, service: Some(name), open: true, products, fields: &[PROCESS] }
}

/// Fields of a process: the executed one, the owner of a session, the actor.
const PROCESS: &[Field] = &[
    Field("Image", ALL),
    Field("CommandLine", ALL),
    Field("CommandLineTruncated", ALL),
    Field("ArgumentCount", ALL),
    Field("CurrentDirectory", ALL),
    Field("User", ALL),
    Field("UserId", LIVE),
    Field("ProcessId", ALL),
    Field("ParentProcessId", ALL),
    Field("ParentImage", ALL),
    Field("ParentCommandLine", ALL),
    Field("AncestorImages", ALL),
    Field("ResponsibleImage", M),
    Field("ProcessName", LIVE),
    Field("Terminal", LIVE),
    Field("ImageOwner", LIVE),
    Field("ImageDeleted", LIVE),
    Field("ImageWritableDir", LIVE),
    Field("Unit", LIVE),
    Field("SigningId", M),
    Field("TeamId", M),
    Field("CdHash", M),
    Field("PlatformBinary", M),
    Field("ScopeKind", LIVE),
    Field("JailId", F),
    Field("JailName", F),
    Field("JailVnet", F),
    Field("ContainerId", L),
    Field("ContainerRuntime", L),
    Field("ContainerImage", L),
    Field("Pod", L),
    Field("NetNs", L),
    Field("LineageId", ALL),
];

/// What the Sigma taxonomy has beyond that for process_creation (Sysmon event 1 and Security 4688).
const PROCESS_KNOWN: &[Field] = &[
    Field("Channel", W),
    Field("Company", W),
    Field("Computer", W),
    Field("Description", W),
    Field("EventID", W),
    Field("FileVersion", W),
    Field("GrandParentImage", 0),
    Field("Hashes", W),
    Field("Imphash", W),
    Field("IntegrityLevel", W),
    Field("LogonGuid", W),
    Field("LogonId", W),
    Field("OriginalFileName", W),
    Field("ParentCompany", 0),
    Field("ParentDescription", 0),
    Field("ParentHashes", 0),
    Field("ParentIntegrityLevel", 0),
    Field("ParentOriginalFileName", 0),
    Field("ParentProcessGuid", W),
    Field("ParentProduct", 0),
    Field("ParentUser", W),
    Field("ProcessGuid", W),
    Field("Product", W),
    Field("Provider_Name", W),
    Field("RuleName", W),
    Field("TerminalSessionId", W),
    Field("UtcTime", W),
    Field("imphash", W),
    Field("md5", W),
    Field("sha1", W),
    Field("sha256", W),
];

/// Fields of a process that only a log tells: what a decoder puts into the process's `details`.
pub fn details() -> impl Iterator<Item = &'static str> {
    PROCESS_KNOWN.iter().filter(|field| field.1 != 0).map(|field| field.0)
}

/// Fields of a capture session.
const SESSION: &[Field] = &[
    Field("Change", LIVE),
    Field("Stage", LIVE),
    Field("CurrentStage", LIVE),
    Field("HandleKind", LIVE),
    Field("Device", LIVE),
    Field("Interface", LIVE),
    Field("PeerInterface", L),
    Field("Protocol", LIVE),
    Field("SocketType", LIVE),
    Field("IpVersion", LIVE),
    Field("FilterAttached", LIVE),
    Field("Ring", L),
    Field("RawGrade", LIVE),
    Field("ProgramName", L),
    Field("ProgramTag", L),
    Field("ProgramType", L),
    Field("ProgramUserId", L),
    Field("ProgramAttached", L),
    Field("ProgramCgroup", L),
    Field("ProgramMaps", L),
    Field("ProgramCarriesOut", L),
    Field("ProgramPinned", L),
    Field("Promiscuous", LIVE),
    Field("Packets", LIVE),
    Field("HolderCount", LIVE),
    Field("InFlight", LIVE),
    Field("PreExisting", LIVE),
    Field("Enumeration", LIVE),
    Field("SessionId", LIVE),
];

/// Fields of what is no session.
const POSTURE: &[Field] = &[
    Field("EventType", LIVE),
    Field("Interface", LIVE),
    Field("InterfaceRole", L | M),
    Field("PromiscuityCount", L),
    Field("Path", LIVE),
    Field("Mode", LIVE),
    Field("Member", M),
];

impl Source {
    fn table(self) -> &'static Table {
        // A Source's discriminant is its place in the table.
        &TABLES[self as usize]
    }

    /// The source of a log's records.
    pub fn of_log(log: Log) -> Self {
        match log {
            Log::PsScript => Source::PsScript,
            Log::WindowsSystem => Source::WindowsSystem,
            Log::WindowsSecurity => Source::WindowsSecurity,
            Log::KubernetesAudit => Source::KubernetesAudit,
            Log::Auditd => Source::Auditd,
            Log::CiscoAaa => Source::CiscoAaa,
            Log::JuniperMgd => Source::JuniperMgd,
            Log::BpfOpens => Source::BpfOpens,
        }
    }

    /// Sigma's `service`, or its `category` where there is none.
    pub fn name(self) -> &'static str {
        let table = self.table();
        table.service.or(table.category).unwrap_or_default()
    }

    /// Whether the system produces events of this source.
    pub fn has_product(self, os: Os) -> bool {
        self.table().products & bit(os) != 0
    }

    /// Whether a rule's logsource names this source, its product aside.
    fn is_named(self, category: Option<&str>, service: Option<&str>) -> bool {
        let same = |mine: Option<&str>, theirs: Option<&str>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => mine.eq_ignore_ascii_case(theirs),
            (mine, theirs) => mine == theirs,
        };
        let table = self.table();
        same(table.service, service)
            && (same(table.category, category) || (category.is_none() && service.is_some()))
    }

    fn fields(self) -> impl Iterator<Item = &'static Field> {
        self.table().fields.iter().copied().flatten()
    }

    /// Names of the fields that an event of this source can have; of a log, those of its process.
    pub fn supplied(self) -> impl Iterator<Item = &'static str> {
        self.fields().filter(|field| field.1 != 0).map(|field| field.0)
    }

    /// Whether Sigma or bpfwatch knows a field of this name here.
    pub fn knows(self, name: &str) -> bool {
        self.table().open || self.fields().any(|field| field.0 == name)
    }

    /// Whether the system supplies the field.
    pub fn supplies(self, name: &str, os: Os) -> bool {
        if self.table().open {
            return self.has_product(os);
        }
        self.fields().any(|field| field.0 == name && field.1 & bit(os) != 0)
    }

    /// The known name that is most like `name`, for messages.
    pub fn nearest(self, name: &str) -> Option<&'static str> {
        let lower = name.to_lowercase();
        self.fields()
            .map(|field| (distance(&lower, &field.0.to_lowercase()), field.0))
            .min()
            .filter(|(distance, _)| *distance <= 2.max(name.len() / 3))
            .map(|(_, name)| name)
    }
}

/// What a rule's logsource means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The source.
    pub source: Source,
    /// The one system that the rule is for; every one where `None`.
    pub product: Option<Os>,
}

impl Binding {
    /// Finds the source of a rule's logsource; `None` where bpfwatch produces no such events.
    pub fn of(logsource: &rsigma_parser::LogSource) -> Option<Self> {
        let (category, service) = (logsource.category.as_deref(), logsource.service.as_deref());
        let source = SOURCES.into_iter().find(|source| {
            // `audit` alone says little: a service belongs to its product.
            let product = logsource.product.as_deref();
            source.is_named(category, service) && (service.is_none() || product.is_some())
        })?;
        let product =
            match logsource.product.as_deref() {
                None => None,
                Some(product) => Some(SYSTEMS.into_iter().find(|os| {
                    os.as_str().eq_ignore_ascii_case(product) && source.has_product(*os)
                })?),
            };
        Some(Self { source, product })
    }

    /// Whether events of `source` on `os` are what it is about.
    pub fn covers(self, source: Source, os: Os) -> bool {
        self.source == source
            && self.product.map_or_else(|| source.has_product(os), |mine| mine == os)
    }

    /// Whether some event can be of both.
    pub fn meets(self, other: Self) -> bool {
        self.source == other.source
            && match (self.product, other.product) {
                (Some(mine), Some(theirs)) => mine == theirs,
                _ => true,
            }
    }
}

/// A logsource in words, such as `linux/process_creation` or `windows/security`.
pub fn in_words(logsource: &rsigma_parser::LogSource) -> String {
    let parts = [&logsource.product, &logsource.category, &logsource.service];
    let words: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    if words.is_empty() { "(empty)".to_owned() } else { words.join("/") }
}

/// Edit distance (Levenshtein), of names short enough for the plain method.
fn distance(a: &str, b: &str) -> usize {
    // A hostile name is no help to anybody.
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let swap = corner + usize::from(left != right);
            corner = row[j + 1];
            row[j + 1] = swap.min(corner + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_in_order_and_name_each_field_once() {
        for (place, source) in SOURCES.into_iter().enumerate() {
            assert_eq!(source as usize, place);
            let mut names: Vec<&str> = source.fields().map(|field| field.0).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", source.name());
        }
        for (place, os) in SYSTEMS.into_iter().enumerate() {
            assert_eq!(os as usize, place);
        }
    }

    #[test]
    fn suggests_the_name_that_was_meant() {
        assert_eq!(Source::PacketCapture.nearest("promiscous"), Some("Promiscuous"));
        assert_eq!(Source::PacketCapture.nearest("image"), Some("Image"));
        assert_eq!(Source::PacketCapture.nearest("zzzzzzzzzz"), None);
        assert_eq!(Source::PacketCapture.nearest(&"x".repeat(1 << 20)), None);
    }

    #[test]
    fn binds_what_it_produces() {
        let source = |category: Option<&str>, product: Option<&str>, service: Option<&str>| {
            Binding::of(&rsigma_parser::LogSource {
                category: category.map(str::to_owned),
                product: product.map(str::to_owned),
                service: service.map(str::to_owned),
                ..Default::default()
            })
        };
        let here = source(Some("process_creation"), Some("windows"), None).unwrap();
        assert!(here.covers(Source::ProcessCreation, Os::Windows));
        assert!(!here.covers(Source::ProcessCreation, Os::Linux));
        let any = source(Some("packet_capture"), None, None).unwrap();
        assert!(any.covers(Source::PacketCapture, Os::Macos));
        assert!(!any.covers(Source::PacketCapture, Os::Windows));
        assert!(source(Some("packet_capture"), Some("windows"), None).is_none());
        let auditd = source(None, Some("linux"), Some("auditd")).unwrap();
        assert!(auditd.covers(Source::Auditd, Os::Linux));
        for category in [None, Some("application")] {
            let audit = source(category, Some("kubernetes"), Some("audit")).unwrap();
            assert!(audit.covers(Source::KubernetesAudit, Os::Kubernetes));
        }
        assert!(source(Some("application"), Some("kubernetes"), None).is_none());
        assert!(source(None, None, Some("audit")).is_none());
        assert!(source(None, Some("linux"), Some("security")).is_none());
        assert!(source(Some("process_creation"), Some("windows"), Some("security")).is_none());
        assert!(source(Some("registry_set"), Some("windows"), None).is_none());
        assert!(source(Some("process_creation"), Some("plan9"), None).is_none());
    }

    #[test]
    fn a_field_has_three_answers() {
        let source = Source::ProcessCreation;
        assert!(source.knows("JailName") && source.supplies("JailName", Os::Freebsd));
        assert!(!source.supplies("JailName", Os::Linux));
        assert!(source.supplies("OriginalFileName", Os::Windows));
        assert!(!source.supplies("OriginalFileName", Os::Linux));
        assert!(source.knows("GrandParentImage"));
        assert!(SYSTEMS.iter().all(|os| !source.supplies("GrandParentImage", *os)));
        assert!(!source.knows("Imgae"));
        // What a log can carry, no table lists.
        assert!(Source::KubernetesAudit.supplies("requestObject.spec.hostNetwork", Os::Kubernetes));
        assert!(!Source::KubernetesAudit.supplies("verb", Os::Linux));
    }
}
