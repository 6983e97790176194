//! Lets this crate's tests find libtorch at run time, without LD_LIBRARY_PATH.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Said by learn/build.rs, which hears it from torch-sys.
    if let Ok(lib) = std::env::var("DEP_RL_LEARN_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
