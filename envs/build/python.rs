//! Looks for the Python that pyo3 will link to, says in one line what is missing, and tells
//! binaries where libpython is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds Python as pyo3 does, checks it, and passes on where its library is.
pub fn find() -> Result<(), String> {
    for name in ["PYO3_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let venv = root.canonicalize().unwrap_or(root).join(".venv-python");
    let built_in = venv.join("bin/python");
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = var("PYO3_PYTHON")
        .or_else(|| var("VIRTUAL_ENV").map(|venv| venv.join("bin/python")))
        .or_else(|| var("CONDA_PREFIX").map(|prefix| prefix.join("bin/python")));
    let (python, found) = match named {
        Some(python) => (python.clone(), ask(&python)),
        None => ["python", "python3"]
            .map(|name| (PathBuf::from(name), ask(Path::new(name))))
            .into_iter()
            .find(|(_, found)| found.is_some())
            .unwrap_or((PathBuf::from("python3"), None)),
    };
    let Some(Found { version, shared, lib, file }) = found else {
        return Err(format!(
            "there is no Python 3.10 or newer at '{}'; run `make setup-python`, or set PYO3_PYTHON to a Python",
            python.display()
        ));
    };
    if !shared || !lib.join(&file).exists() {
        return Err(format!(
            "Python {version} at '{}' has no shared library ({} in {}); Debian: sudo apt-get install python3-dev; pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared; or set PYO3_PYTHON to a Python with one",
            python.display(),
            file,
            lib.display()
        ));
    }
    // Where the project's own environment is, for a program that is given no other. That it does not exist yet is no error:
    // packages are looked for when an environment is made.
    if let Some(other) = ask(&built_in).filter(|other| other.version != version) {
        return Err(format!(
            "'{}' is Python {version}, but .venv-python has {}; build with PYO3_PYTHON={}",
            python.display(),
            other.version,
            built_in.display()
        ));
    }
    println!("cargo::rustc-env=RL_ENVS_VENV_PYTHON={}", built_in.display());
    println!("cargo::rustc-env=RL_ENVS_BUILD_PYTHON={}", python.display());
    println!("cargo::rustc-env=RL_ENVS_PYTHON_VERSION={version}");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo::metadata=PYTHON_LIB={}", lib.display());
    Ok(())
}

struct Found {
    /// Major and minor, such as 3.11.
    version: String,
    shared: bool,
    /// Folder and file name of libpython.
    lib: PathBuf,
    file: String,
}

fn ask(python: &Path) -> Option<Found> {
    const QUESTION: &str = "import sys, sysconfig as c; assert sys.version_info >= (3, 10); \
        print('%d.%d' % sys.version_info[:2], c.get_config_var('Py_ENABLE_SHARED') or 0, c.get_config_var('LDLIBRARY'), \
        c.get_config_var('LIBDIR'), sep='\\n')";
    let output = Command::new(python).args(["-I", "-c", QUESTION]).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let mut lines = said.lines().map(str::to_string);
    let (version, shared, file, lib) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    // Apple's frameworks and static builds name no file that a linker takes; pyo3 links to libpythonX.Y there.
    Some(Found { version, shared: shared != "0", lib: PathBuf::from(lib), file })
}
