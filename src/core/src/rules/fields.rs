//! Logsources that bpfwatch produces, and the fields that each operating system supplies.
//!
//! All of it is data: a new source is one more [`Source`] with its table. A field has three answers:
//! supplied by an operating system; known to Sigma but supplied by none or by others; unknown.

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
}

/// Every source, in the order of its discriminant.
pub const SOURCES: [Source; 3] =
    [Source::ProcessCreation, Source::PacketCapture, Source::CapturePosture];

/// Operating systems in the order of [`Os`]'s discriminant.
pub const SYSTEMS: [Os; 5] = [Os::Linux, Os::Macos, Os::Freebsd, Os::Windows, Os::Kubernetes];

/// One source as rules name it.
struct Table {
    /// Sigma's `category`.
    category: &'static str,
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
const LIVE: u8 = L | M | F;
const ALL: u8 = LIVE | W;

const fn bit(os: Os) -> u8 {
    1 << os as u8
}

const TABLES: [Table; 3] = [
    Table { category: "process_creation", products: ALL, fields: &[PROCESS, PROCESS_KNOWN] },
    Table { category: "packet_capture", products: LIVE, fields: &[SESSION, PROCESS] },
    Table { category: "capture_posture", products: LIVE, fields: &[POSTURE, PROCESS] },
];

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
    Field("Channel", 0),
    Field("Company", 0),
    Field("Computer", 0),
    Field("Description", 0),
    Field("EventID", 0),
    Field("FileVersion", 0),
    Field("GrandParentImage", 0),
    Field("Hashes", 0),
    Field("Imphash", 0),
    Field("IntegrityLevel", 0),
    Field("LogonGuid", 0),
    Field("LogonId", 0),
    Field("OriginalFileName", 0),
    Field("ParentCompany", 0),
    Field("ParentDescription", 0),
    Field("ParentHashes", 0),
    Field("ParentIntegrityLevel", 0),
    Field("ParentOriginalFileName", 0),
    Field("ParentProcessGuid", 0),
    Field("ParentProduct", 0),
    Field("ParentUser", 0),
    Field("ProcessGuid", 0),
    Field("Product", 0),
    Field("Provider_Name", 0),
    Field("RuleName", 0),
    Field("TerminalSessionId", 0),
    Field("UtcTime", 0),
    Field("imphash", 0),
    Field("md5", 0),
    Field("sha1", 0),
    Field("sha256", 0),
];

/// Fields of a capture session.
const SESSION: &[Field] = &[
    Field("Change", LIVE),
    Field("Stage", LIVE),
    Field("CurrentStage", LIVE),
    Field("HandleKind", LIVE),
    Field("Device", M | F),
    Field("Interface", LIVE),
    Field("Protocol", LIVE),
    Field("SocketType", LIVE),
    Field("IpVersion", LIVE),
    Field("FilterAttached", LIVE),
    Field("Ring", L),
    Field("RawGrade", LIVE),
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
    Field("InterfaceRole", L),
    Field("PromiscuityCount", L),
    Field("Path", LIVE),
    Field("Mode", LIVE),
];

impl Source {
    fn table(self) -> &'static Table {
        // A Source's discriminant is its place in the table.
        &TABLES[self as usize]
    }

    /// Sigma's `category`.
    pub fn category(self) -> &'static str {
        self.table().category
    }

    /// Whether the system produces events of this source.
    pub fn has_product(self, os: Os) -> bool {
        self.table().products & bit(os) != 0
    }

    fn fields(self) -> impl Iterator<Item = &'static Field> {
        self.table().fields.iter().copied().flatten()
    }

    /// Names of the fields that an event of this source can have.
    pub fn supplied(self) -> impl Iterator<Item = &'static str> {
        self.fields().filter(|field| field.1 != 0).map(|field| field.0)
    }

    /// Whether Sigma or bpfwatch knows a field of this name here.
    pub fn knows(self, name: &str) -> bool {
        self.fields().any(|field| field.0 == name)
    }

    /// Whether the system supplies the field.
    pub fn supplies(self, name: &str, os: Os) -> bool {
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
        // Events of one service of a category cannot be told apart here.
        if logsource.service.is_some() {
            return None;
        }
        let category = logsource.category.as_deref()?;
        let source =
            SOURCES.into_iter().find(|source| source.category().eq_ignore_ascii_case(category))?;
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
            assert_eq!(names.len(), count, "{}", source.category());
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
        assert!(source(None, Some("linux"), Some("auditd")).is_none());
        assert!(source(Some("registry_set"), Some("windows"), None).is_none());
        assert!(source(Some("process_creation"), Some("plan9"), None).is_none());
    }

    #[test]
    fn a_field_has_three_answers() {
        let source = Source::ProcessCreation;
        assert!(source.knows("JailName") && source.supplies("JailName", Os::Freebsd));
        assert!(!source.supplies("JailName", Os::Linux));
        assert!(source.knows("OriginalFileName"));
        assert!(SYSTEMS.iter().all(|os| !source.supplies("OriginalFileName", *os)));
        assert!(!source.knows("Imgae"));
    }
}
