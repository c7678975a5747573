//! Lists every schema file, so that all versions are compiled in: a new file needs no entry anywhere.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root =
        Path::new(&env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?).join("../../schemas");
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    for topic in fs::read_dir(&root)? {
        let topic = topic?;
        if !topic.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(topic.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "avsc") {
                let name = path.file_name().ok_or("no file name")?.to_string_lossy().into_owned();
                files.push((format!("{}/{name}", topic.file_name().to_string_lossy()), path));
            }
        }
    }
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in files {
        writeln!(
            code,
            "    SchemaFile {{ path: {name:?}, json: include_str!({:?}) }},",
            path.display().to_string()
        )?;
    }
    code.push(']');
    fs::write(Path::new(&env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("schemas.rs"), code)?;
    Ok(())
}
