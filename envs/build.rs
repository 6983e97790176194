//! What the features `mujoco` and `python` need of the machine is looked for, and what is missing said in one line. Without
//! features it does nothing.

#[path = "build/mujoco.rs"]
mod mujoco;
#[path = "build/python.rs"]
mod python;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    if has("MUJOCO") {
        mujoco::find();
    }
    if has("PYTHON")
        && let Err(why) = python::find()
    {
        println!("cargo::error=feature python: {why}");
        std::process::exit(1);
    }
}
