//! Compiles the C++ shim against the libtorch that torch-sys found, and tells where that is.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=native");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let lib = PathBuf::from(
        std::env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells its libtorch's folder"),
    );
    let root = std::env::var_os("LIBTORCH_INCLUDE")
        .map(PathBuf::from)
        .unwrap_or_else(|| lib.parent().unwrap_or(Path::new("/")).to_path_buf());
    let include = root.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("native/shim.cc")
        .file("native/autograd.cc")
        .file("native/optim.cc")
        .file("native/rmsprop.cc")
        .file("native/amp.cc")
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .flag_if_supported("-Wno-unused-parameter")
        // For the kernels of our own: loops with a √ become vectors, and all processors round alike.
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-ffp-contract=off")
        .compile("rl_learn_shim");
    // The shim calls into these two; torch-sys names them too, but link order is not its promise.
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo::metadata=LIBTORCH_LIB={}", lib.display());
}
