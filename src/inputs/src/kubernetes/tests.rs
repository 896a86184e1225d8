//! Audit events as a kube-apiserver writes them (made from the types of audit.k8s.io/v1 and core/v1, not
//! recorded), and what comes of them.

use super::*;

fn event(json: Value) -> Logged {
    let mut out = Vec::new();
    let line = serde_json::to_vec(&json).unwrap();
    assert!(KubernetesAudit::default().sniff(&line));
    assert_eq!(KubernetesAudit::default().decode(&line, &mut out), Ok(Decoded::Observed));
    let Kind::Logged { record } = &out[0].kind else { panic!("{out:?}") };
    Logged::clone(record)
}

fn request(
    verb: &str,
    resource: &str,
    subresource: Option<&str>,
    uri: &str,
    object: Value,
) -> Value {
    serde_json::json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "a-1",
        "stage": "ResponseComplete", "requestURI": uri, "verb": verb,
        "user": {"username": "alice", "groups": ["dev", "system:authenticated"]},
        "sourceIPs": ["10.0.0.9"], "userAgent": "kubectl/v1.31.0",
        "objectRef": {"resource": resource, "namespace": "prod", "name": "web-0", "subresource": subresource, "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201}, "requestObject": object,
        "requestReceivedTimestamp": "2026-11-24T02:45:17.000000Z",
        "stageTimestamp": "2026-11-24T02:45:17.100000Z",
        "annotations": {"authorization.k8s.io/decision": "allow"}
    })
}

fn json(record: &Logged, name: &str) -> Value {
    serde_json::to_value(record.fields.get(name)).unwrap()
}

#[test]
fn an_exec_is_told_by_its_address() {
    let uri = "/api/v1/namespaces/prod/pods/web-0/exec?command=tcpdump&command=-w&command=%2Ftmp%2Fa+b&container=app&stdin=true&tty=true";
    let record = event(request("get", "pods", Some("exec"), uri, Value::Null));
    assert_eq!(
        record.message.as_str(),
        "exec into pod prod/web-0, container app: tcpdump -w /tmp/a b"
    );
    assert_eq!(record.subject.as_ref().unwrap().as_str(), "alice");
    assert_eq!(json(&record, "command"), serde_json::json!(["tcpdump", "-w", "/tmp/a b"]));
    assert_eq!(json(&record, "tty"), true);
    assert_eq!(json(&record, "responseStatus.code"), 201);
    assert_eq!(json(&record, "annotations.authorization.k8s.io/decision"), "allow");
    let hidden = event(request("get", "pods", Some("exec"), "/x?comm%61nd=tcpdump", Value::Null));
    assert_eq!(json(&hidden, "command"), serde_json::json!(["tcpdump"]));
    let mut refused = request("create", "pods", Some("attach"), "/x", Value::Null);
    refused["responseStatus"]["code"] = 403.into();
    refused["impersonatedUser"] = serde_json::json!({"username": "admin"});
    let record = event(refused);
    assert_eq!(record.message.as_str(), "attach to pod prod/web-0, refused (403)");
    assert_eq!(record.subject.as_ref().unwrap().as_str(), "alice as admin");
}

fn pod_spec() -> Value {
    serde_json::json!({
        "hostNetwork": true, "hostPID": false,
        "containers": [
            {"name": "app", "image": "nginx", "securityContext": {"privileged": false}},
            {"name": "sniff", "image": "nicolaka/netshoot", "command": ["tcpdump"], "args": ["-i", "any"],
             "securityContext": {"privileged": true, "capabilities": {"add": ["NET_RAW", "NET_ADMIN"], "drop": ["ALL"]}}}
        ],
        "volumes": [{"name": "r", "hostPath": {"path": "/"}}, {"name": "e", "emptyDir": {}}]
    })
}

#[test]
fn pods_and_what_makes_them_read_the_same() {
    let templates = [
        ("pods", "requestObject.spec", serde_json::json!({"spec": pod_spec()})),
        (
            "daemonsets",
            "requestObject.spec.template.spec",
            serde_json::json!({"spec": {"template": {"spec": pod_spec()}}}),
        ),
        (
            "cronjobs",
            "requestObject.spec.jobTemplate.spec.template.spec",
            serde_json::json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod_spec()}}}}}),
        ),
    ];
    for (resource, path, object) in templates {
        let record = event(request("create", resource, None, "/x", object));
        assert_eq!(json(&record, "capabilities"), serde_json::json!(["NET_RAW", "NET_ADMIN"]));
        assert_eq!(json(&record, "privileged"), true);
        assert_eq!(json(&record, "hostNetwork"), true);
        assert_eq!(json(&record, "hostPID"), false);
        assert_eq!(json(&record, "hostIPC"), Value::Null);
        assert_eq!(json(&record, "hostPath"), serde_json::json!(["/"]));
        assert_eq!(json(&record, "images"), serde_json::json!(["nginx", "nicolaka/netshoot"]));
        assert_eq!(json(&record, "containerCommand"), serde_json::json!(["tcpdump", "-i", "any"]));
        let privileged = format!("{path}.containers.securityContext.privileged");
        assert_eq!(json(&record, &privileged), serde_json::json!([false, true]));
        let message = record.message.as_str();
        assert!(
            message.starts_with(&format!("create {}", &resource[..resource.len() - 1])),
            "{message}"
        );
        assert!(message.ends_with("privileged, hostNetwork, NET_RAW, NET_ADMIN"), "{message}");
    }
}

#[test]
fn a_debug_container_is_a_patch() {
    let patch = serde_json::json!({"spec": {"ephemeralContainers": [{"name": "debugger-x", "image": "busybox",
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE", "NET_RAW"]}}}]}});
    let record = event(request("patch", "pods", Some("ephemeralcontainers"), "/x", patch));
    assert_eq!(
        record.message.as_str(),
        "debug container in pod prod/web-0, image busybox, SYS_PTRACE, NET_RAW"
    );
    assert_eq!(json(&record, "capabilities"), serde_json::json!(["SYS_PTRACE", "NET_RAW"]));
}

#[test]
fn what_a_controller_makes_has_one_name() {
    let object = serde_json::json!({"metadata": {"generateName": "web-7c9f-"}, "spec": pod_spec()});
    let record = event(request("create", "pods", None, "/x", object));
    assert!(record.message.as_str().starts_with("create pod prod/web-7c9f-*, image nginx"));
}

#[test]
fn each_request_counts_once() {
    let mut once = Once::default();
    let mut out = Vec::new();
    let mut see = |id: &str, stage: &str| {
        let mut json = request("get", "pods", Some("exec"), "/x", Value::Null);
        json["auditID"] = id.into();
        json["stage"] = stage.into();
        let mut decoded = Vec::new();
        KubernetesAudit::default()
            .decode(&serde_json::to_vec(&json).unwrap(), &mut decoded)
            .unwrap();
        decoded.into_iter().for_each(|observation| once.pass(observation, &mut out));
        out.len()
    };
    assert_eq!(see("1", "RequestReceived"), 0);
    // An exec that goes on: told when it begins, and not again when it ends.
    assert_eq!(see("1", "ResponseStarted"), 1);
    assert_eq!(see("1", "ResponseComplete"), 1);
    assert_eq!(see("2", "ResponseComplete"), 2);
    assert_eq!(see("3", "Panic"), 3);
    for n in 0..10_000 {
        see(&format!("open-{n}"), "ResponseStarted");
    }
    assert!(once.open.len() <= MAX_OPEN && once.order.len() == once.open.len());
}

#[test]
fn what_is_no_event_is_told() {
    let decode = |text: &str| KubernetesAudit::default().decode(text.as_bytes(), &mut Vec::new());
    for text in [
        "{}",
        "[]",
        "7",
        r#"{"auditID":"x","verb":"get","stage":"ResponseComplete"}"#,
        r#"{"auditID":"x","verb":"get","stageTimestamp":"2026-11-24T02:45:17.1"#,
    ] {
        assert!(decode(text).is_err(), "{text}");
    }
    // Wrong types are not there.
    let odd = r#"{"auditID":"x","verb":"get","stageTimestamp":"2026-11-24T02:45:17Z","user":7,"objectRef":[],
        "requestObject":{"spec":{"containers":{},"volumes":7,"hostNetwork":"yes"}},"requestURI":"?%&=%zz&command=%e9"}"#;
    assert_eq!(decode(odd), Ok(Decoded::Observed));
}
