//! Lets the binary, tests, benchmarks and examples find libtorch, and libmujoco where it is used, at run time, from any folder and without
//! LD_LIBRARY_PATH; and tells the program which commit it was built from.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Said by learn/build.rs, which hears it from torch-sys; absent when only documentation is built.
    if let Ok(lib) = std::env::var("DEP_RL_LEARN_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
    // Said by envs/build.rs, with the features `mujoco` and `python`.
    for library in ["DEP_RL_ENVS_MUJOCO_LIB", "DEP_RL_ENVS_PYTHON_LIB"] {
        if let Ok(lib) = std::env::var(library) {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
        }
    }
    // Read with `option_env!("RL_TRAIN_GIT")`: unset where this is no git checkout, as in a packaged source archive.
    if let Some(commit) = commit() {
        println!("cargo::rustc-env=RL_TRAIN_GIT={commit}");
    }
}

/// The commit checked out here, and a request to run again when it changes.
fn commit() -> Option<String> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    // A copy of the sources inside somebody else's repository must not take that one's commit for its own.
    let top = PathBuf::from(git(&root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }

    // HEAD names a branch; the branch's commit is in a file of its own, or, once git has packed it, in packed-refs. The
    // next commit then makes that file again, which changes the folder. (Only what exists is watched: cargo takes a
    // missing file for changed, and would run this each time.)
    let internal = |name: &str| git(&root, &["rev-parse", "--git-path", name]).map(|path| root.join(path));
    let mut watched = vec![internal("HEAD")?, internal("packed-refs")?];
    if let Some(branch) = git(&root, &["symbolic-ref", "--quiet", "HEAD"]) {
        let file = internal(&branch)?;
        watched.extend(file.ancestors().find(|path| path.exists()).map(Path::to_path_buf));
    }
    for path in watched.iter().filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }

    git(&root, &["rev-parse", "HEAD"])
}

/// What a git command prints, or `None` when it fails.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    // A git hook sets these for its own repository, which need not be this one.
    let output = Command::new("git")
        .current_dir(root)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_string())
}
