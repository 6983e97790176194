//! Finds libmujoco, lets tests find it at run time, and tells the program where it and the models are.

use std::path::{Path, PathBuf};

/// The file to link with; its name has the version that mujoco-rs is made for.
const LIBRARY: &str = "libmujoco.so.3.17.0";

/// Says to cargo what linking and running need; one line of error when the library is not there.
pub fn find() {
    println!("cargo::rerun-if-env-changed=MUJOCO_DYNAMIC_LINK_DIR");
    println!("cargo::rerun-if-env-changed=MUJOCO_STATIC_LINK_DIR");
    // Somebody who links statically has said where from, and needs nothing at run time.
    if std::env::var_os("MUJOCO_STATIC_LINK_DIR").is_some() {
        return;
    }
    let manifest =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo tells the package's folder"));
    let installed = manifest.join("../.mujoco");
    let named = std::env::var_os("MUJOCO_DYNAMIC_LINK_DIR").map(PathBuf::from);
    // .cargo/config.toml names envs/link, whose script for the linker stands for what `make setup-mujoco` installed.
    let lib = match named.filter(|folder| !same(folder, &manifest.join("link"))) {
        Some(folder) => folder,
        None => {
            let lib = installed.join("lib");
            // A missing file would be taken for changed each time; its folder changes when it comes.
            let watched = if lib.join(LIBRARY).exists() { lib.join(LIBRARY) } else { manifest.join("..") };
            println!("cargo::rerun-if-changed={}", watched.display());
            if !lib.join(LIBRARY).exists() {
                println!(
                    "cargo::error=the feature `mujoco` needs MuJoCo's library, and {LIBRARY} is not in .mujoco/lib; \
                     `make setup-mujoco` brings it"
                );
                return;
            }
            lib
        }
    };
    let lib = lib.canonicalize().unwrap_or(lib);
    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo::metadata=MUJOCO_LIB={}", lib.display());
    let assets = installed.join("assets");
    let assets = assets.canonicalize().unwrap_or(assets);
    println!("cargo::rustc-env=RL_ENVS_MUJOCO_ASSETS={}", assets.display());
}

fn same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
