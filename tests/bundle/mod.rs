//! A container of runc whose root is a folder with the host's programs in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// A bundle in `dir` that runs `command`, with the host's `dirs` bound read-only into its root.
pub fn bundle(dir: &Path, dirs: &[&str], command: &[&str], host_network: bool) -> PathBuf {
    let bundle = dir.join("bundle");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let path = bundle.join("config.json");
    let _ = std::fs::remove_file(&path);
    assert!(Command::new("runc").arg("spec").current_dir(&bundle).status().unwrap().success());
    let mut spec: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(command);
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] =
            json!(["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SETUID", "CAP_SETGID"]);
    }
    let mounts = spec["mounts"].as_array_mut().unwrap();
    for dir in dirs.iter().filter(|dir| Path::new(dir).exists()) {
        std::fs::create_dir_all(bundle.join("rootfs").join(&dir[1..])).unwrap();
        mounts.push(json!({"destination": dir, "type": "bind", "source": dir,
            "options": ["rbind", "ro"]}));
    }
    if host_network {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
    }
    std::fs::write(&path, spec.to_string()).unwrap();
    bundle
}
