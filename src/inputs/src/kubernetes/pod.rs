//! What a pod may do that lets it capture: in a pod itself, in the template of what makes pods, and in a
//! patch that adds a container.

use bpfwatch_core::logged::{Logged, Value as FieldValue};
use serde_json::{Map, Value};

use super::value;

/// Containers looked at in one request.
const MAX_CONTAINERS: usize = 64;

/// What a request asks for, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Found {
    capabilities: Vec<String>,
    privileged: bool,
    /// `hostNetwork` and the like, with what they are.
    shares: Vec<(&'static str, bool)>,
    images: Vec<String>,
    names: Vec<String>,
    commands: Vec<String>,
    host_paths: Vec<String>,
    added_to_running: bool,
}

impl Found {
    /// Looks a request's object through and adds what it finds to the record: once under a short name
    /// that is the same for pods and for what makes them, once under the path where it stands.
    pub(super) fn in_request(request: Option<&Value>, record: &mut Logged) -> Self {
        let mut found = Self::default();
        let Some((path, spec)) = request.and_then(pod_spec) else { return found };
        let mut raw = Raw { record, path };
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            if let Some(flag) = spec.get(name).and_then(Value::as_bool) {
                found.shares.push((name, flag));
                raw.push(name, FieldValue::Bool(flag));
            }
        }
        for name in ["serviceAccountName", "nodeName", "shareProcessNamespace"] {
            if let Some(value) = spec.get(name).and_then(value) {
                raw.push(name, value);
            }
        }
        for kind in ["containers", "initContainers", "ephemeralContainers"] {
            let Some(Value::Array(list)) = spec.get(kind) else { continue };
            found.added_to_running |= kind == "ephemeralContainers";
            found.containers(kind, list, &mut raw);
        }
        let paths = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
        let paths = paths.filter_map(|volume| volume.get("hostPath")?.get("path")?.as_str());
        found.host_paths = paths.take(MAX_CONTAINERS).map(str::to_owned).collect();
        if !found.host_paths.is_empty() {
            raw.push("volumes.hostPath.path", FieldValue::texts(&found.host_paths));
        }
        found.short_names(spec, raw.record);
        found
    }

    fn containers(&mut self, kind: &str, list: &[Value], raw: &mut Raw<'_>) {
        let list = &list[..list.len().min(MAX_CONTAINERS)];
        let each = |path: &[&str]| -> Vec<FieldValue> {
            let values = list.iter().filter_map(|container| {
                path.iter().try_fold(container, |inner, name| inner.get(name))
            });
            // A list of lists is one list: any of them can match.
            let flat = values.filter_map(value).flat_map(|found| match found {
                FieldValue::List(inner) => inner,
                other => vec![other],
            });
            flat.collect()
        };
        let texts = |values: &[FieldValue]| -> Vec<String> {
            values.iter().filter_map(|v| Some(v.as_text()?.to_string())).collect()
        };
        for path in [
            &["name"][..],
            &["image"],
            &["command"],
            &["args"],
            &["securityContext", "privileged"],
            &["securityContext", "allowPrivilegeEscalation"],
            &["securityContext", "runAsUser"],
            &["securityContext", "capabilities", "add"],
        ] {
            let values = each(path);
            match path {
                ["name"] => self.names.extend(texts(&values)),
                ["image"] => self.images.extend(texts(&values)),
                ["command" | "args"] => self.commands.extend(texts(&values)),
                ["securityContext", "privileged"] => {
                    self.privileged |= values.contains(&FieldValue::Bool(true));
                }
                ["securityContext", "capabilities", "add"] => {
                    self.capabilities.extend(texts(&values));
                }
                _ => {}
            }
            if !values.is_empty() {
                raw.push(&format!("{kind}.{}", path.join(".")), FieldValue::List(values));
            }
        }
    }

    fn short_names(&self, spec: &Map<String, Value>, record: &mut Logged) {
        let lists = [
            ("capabilities", &self.capabilities),
            ("images", &self.images),
            ("containers", &self.names),
            ("containerCommand", &self.commands),
            ("hostPath", &self.host_paths),
        ];
        for (name, list) in lists {
            if !list.is_empty() {
                record.fields.push(name, FieldValue::texts(list));
            }
        }
        if self.privileged {
            record.fields.push("privileged", FieldValue::Bool(true));
        }
        for (name, flag) in &self.shares {
            record.fields.push(*name, FieldValue::Bool(*flag));
        }
        if let Some(account) = spec.get("serviceAccountName").and_then(value) {
            record.fields.push("serviceAccountName", account);
        }
    }

    /// ` (image x), privileged, hostNetwork, NET_RAW`.
    pub(super) fn words(&self) -> String {
        let mut words = match self.images.last() {
            // Those of a patch stand behind the ones that were there.
            Some(image) if self.added_to_running => format!(", image {image}"),
            _ => match self.images.first() {
                Some(image) => format!(", image {image}"),
                None => String::new(),
            },
        };
        if self.privileged {
            words += ", privileged";
        }
        let shares = self.shares.iter().filter(|(_, flag)| *flag).map(|(name, _)| *name);
        for word in shares.chain(self.capabilities.iter().take(8).map(String::as_str)) {
            words += ", ";
            words += word;
        }
        words
    }
}

/// The record, and where in the request the pod's specification stands.
struct Raw<'a> {
    record: &'a mut Logged,
    path: &'static str,
}

impl Raw<'_> {
    fn push(&mut self, name: &str, value: FieldValue) {
        self.record.fields.push(format!("{}.{name}", self.path), value);
    }
}

/// Where the specification of a pod stands: in a pod, in a Deployment, DaemonSet, Job and the like, in a
/// CronJob.
fn pod_spec(request: &Value) -> Option<(&'static str, &Map<String, Value>)> {
    fn template(spec: &Value) -> Option<&Value> {
        spec.get("template")?.get("spec")
    }
    let spec = request.get("spec")?;
    if let Some(job) = spec.get("jobTemplate") {
        let inner = template(job.get("spec")?)?;
        return Some(("requestObject.spec.jobTemplate.spec.template.spec", inner.as_object()?));
    }
    match template(spec) {
        Some(inner) => Some(("requestObject.spec.template.spec", inner.as_object()?)),
        None => Some(("requestObject.spec", spec.as_object()?)),
    }
}
