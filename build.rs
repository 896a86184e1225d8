//! Embeds the shipped rules and their ADS pages, so that the binary works with no file beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let root = variable("CARGO_MANIFEST_DIR")?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=rules");
    let mut rules = Vec::new();
    find(&root.join("rules"), &mut rules)?;
    rules.sort();
    // Not the absolute path: a checkout that is moved with its build folder goes on building.
    let embed = |path: &Path| {
        let shown = path.strip_prefix(&root).unwrap_or(path);
        format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/\", {shown:?}))")
    };
    let mut code = String::from("&[\n");
    for rule in rules {
        let shown = rule.strip_prefix(&root).unwrap_or(&rule);
        let page = rule.with_extension("md");
        let page =
            if page.is_file() { format!("Some({})", embed(&page)) } else { "None".to_owned() };
        // Writing to a String cannot fail.
        let _ = writeln!(code, "    ({shown:?}, {}, {page}),", embed(&rule));
    }
    code.push_str("]\n");
    fs::write(variable("OUT_DIR")?.join("shipped.rs"), code)
}

fn find(folder: &Path, rules: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, rules)?;
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            rules.push(path);
        }
    }
    Ok(())
}
