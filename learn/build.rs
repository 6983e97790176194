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
        .file("native/amp.cc")
        .file("native/mlp.cc")
        .file("native/td.cc")
        .file("native/calls.cc")
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .flag_if_supported("-Wno-unused-parameter")
        // GCC 12 warns of libtorch's own headers.
        .flag_if_supported("-Wno-maybe-uninitialized")
        .compile("rl_learn_shim");
    kernels();
    // The shim calls into these two; torch-sys names them too, but link order is not its promise.
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo::metadata=LIBTORCH_LIB={}", lib.display());
}

/// Compiles the arithmetic of small networks once for each instruction set; which is used is decided at run time.
fn kernels() {
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let build = |name: &str, flags: &[&str]| {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(3).flag_if_supported("-fno-math-errno");
        // GCC 12 warns of its own header of intrinsics.
        for warning in ["-Wno-maybe-uninitialized", "-Wno-uninitialized", "-Wno-unknown-pragmas"] {
            build.flag_if_supported(warning);
        }
        if x86 {
            build.define("RL_X86", None);
        }
        for flag in flags {
            build.flag(flag);
        }
        build.file(format!("native/kernels/{name}.cc")).compile(&format!("rl_learn_{name}"));
    };
    // Linkers go over archives in this order: the one that names the others comes first.
    build("baseline", &[]);
    if x86 {
        build("avx2", &["-mavx2", "-mfma"]);
        let f512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"];
        let wide = ["-mprefer-vector-width=512"];
        build("avx512", &[f512.as_slice(), &wide].concat());
    }
}
