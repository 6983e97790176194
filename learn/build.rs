//! Compiles the C++ shim against the libtorch that torch-sys found, and tells where that is.

use std::path::{Path, PathBuf};
use std::process::Command;

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
        .file("native/cuda_half.cc")
        .file("native/mlp.cc")
        .file("native/td.cc")
        .file("native/calls.cc")
        .include(include.join("torch/csrc/api/include"))
        .include(&include)
        .flag_if_supported("-Wno-unused-parameter")
        // For the kernels of our own: loops with a √ become vectors, and all processors round alike.
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-ffp-contract=off")
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
    // The CUDA half of the shim is a library of its own, which the program carries and opens when a GPU is used. It is no part of the
    // program proper, which has to run where libtorch has no CUDA half.
    println!("cargo::rustc-check-cfg=cfg(rl_cuda_half)");
    match cuda_half(&include, &lib) {
        Ok(()) => println!("cargo::rustc-cfg=rl_cuda_half"),
        Err(why) => {
            println!("cargo::rustc-env=RL_CUDA_HALF_WHY={}", why.lines().collect::<Vec<_>>().join(" "))
        }
    }
}

/// Compiles `native/cuda` into OUT_DIR/librl_learn_cuda.so, or says why it cannot be.
fn cuda_half(include: &Path, lib: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=RL_CUDA_HEADERS");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return Err("there is no CUDA on this system".to_string());
    }
    if !lib.join("libtorch_cuda.so").exists() {
        return Err("the libtorch that this was built with has no CUDA half".to_string());
    }
    let manifest =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo tells the package's folder"));
    let downloaded = manifest.join("../.cuda-headers");
    if downloaded.exists() {
        // One that is missing would be taken for changed each time.
        println!("cargo::rerun-if-changed={}", downloaded.display());
    }
    // CUDA's headers: the user's, those that scripts/setup fetches, those that come with a full libtorch, a toolkit's.
    let wheel = |root: &Path| root.join("nvidia/cu13/include");
    let folders = [
        std::env::var_os("RL_CUDA_HEADERS").map(PathBuf::from),
        Some(wheel(&downloaded)),
        include.ancestors().nth(2).map(wheel),
        Some(PathBuf::from("/usr/local/cuda/include")),
    ];
    let needed = ["cuda_runtime_api.h", "crt/host_defines.h"];
    let headers =
        folders.into_iter().flatten().find(|folder| needed.iter().all(|file| folder.join(file).exists()));
    let headers =
        headers.ok_or("CUDA's headers were not there when this was built; `make setup` fetches them")?;

    let out =
        PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo gives a folder")).join("librl_learn_cuda.so");
    let compiler =
        cc::Build::new().cpp(true).std("c++17").pic(true).debug(false).opt_level(2).try_get_compiler();
    let mut command: Command = compiler.map_err(|e| e.to_string())?.to_command();
    command.args(["-shared", "-w", "native/cuda/functions.cc", "-o"]).arg(&out);
    for folder in [include.to_path_buf(), include.join("torch/csrc/api/include"), headers] {
        command.arg("-isystem").arg(folder);
    }
    command.arg("-L").arg(lib);
    // What libtorch_cuda itself needs (cuBLAS and so on) need not be on the machine that builds.
    command.args([
        "-Wl,--no-as-needed",
        "-Wl,--allow-shlib-undefined",
        "-ltorch_cuda",
        "-lc10_cuda",
        "-ltorch_cpu",
        "-lc10",
    ]);
    // With CUDA's runtime at hand every name is resolved here and now; else it is found in the one that libtorch has opened.
    let runtime = include.ancestors().nth(2).map(|root| root.join("nvidia/cu13/lib")).unwrap_or_default();
    if runtime.join("libcudart.so.13").exists() {
        command.arg("-L").arg(runtime).args(["-l:libcudart.so.13", "-Wl,-z,defs"]);
    }
    let output = command.output().map_err(|e| format!("the C++ compiler does not start: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let first =
        text.lines().find(|line| line.contains("error") || line.contains("undefined")).unwrap_or_default();
    println!("cargo::warning=the CUDA half of the shim does not compile: {first}");
    Err(format!("it did not compile when this was built ({first})"))
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
