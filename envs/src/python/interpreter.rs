//! Starts Python in this process, with the packages of a virtual environment. The only unsafe code of this crate: a
//! configuration of Python's own can be given through its C interface alone.

use crate::EnvError;
use pyo3::prelude::*;
use pyo3::types::PyModule;
use pyo3::{Python, ffi};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The Python half, once it is there, or why it is not.
static BRIDGE: OnceLock<Result<Py<PyModule>, String>> = OnceLock::new();

/// What this was built for, such as 3.11.
const VERSION: &str = env!("RL_ENVS_PYTHON_VERSION");

/// Attaches this thread to Python and gives the module `bridge.py`. The first call starts the interpreter.
///
/// Nobody else runs Python code meanwhile, so `work` should not wait for other threads.
pub(super) fn attach<T>(
    id: &str,
    work: impl for<'py> FnOnce(&Bound<'py, PyModule>) -> Result<T, EnvError>,
) -> Result<T, EnvError> {
    match BRIDGE.get_or_init(start) {
        Ok(bridge) => Python::attach(|py| work(bridge.bind(py))),
        Err(why) => Err(EnvError::Python { env: id.to_string(), message: why.clone() }),
    }
}

/// `error` as one line about the environment `id`.
#[cold]
pub(super) fn failed(py: Python<'_>, id: &str, error: &PyErr) -> EnvError {
    let bridge = BRIDGE.get().and_then(|bridge| bridge.as_ref().ok());
    let said = bridge.and_then(|bridge| {
        let said = bridge.bind(py).call_method1("said", (error.value(py), error.traceback(py))).ok()?;
        said.extract::<String>().ok()
    });
    EnvError::Python { env: id.to_string(), message: said.unwrap_or_else(|| error.to_string()) }
}

fn start() -> Result<Py<PyModule>, String> {
    let program = choose()?;
    initialize(&program)?;
    Python::attach(|py| {
        let code = c_text(include_str!("bridge.py"));
        PyModule::from_code(py, &code, c"rl_envs/bridge.py", c"rl_envs_bridge").map(Bound::unbind).map_err(
            |error| {
                let program = program.display();
                match error.is_instance_of::<pyo3::exceptions::PyModuleNotFoundError>(py) {
                    true => format!(
                        "{program} lacks a package ({}); run `make setup-python`, or: {program} -m pip install gymnasium, or set RL_PYTHON to a Python that has it",
                        error.value(py)
                    ),
                    false => format!("{program} cannot import gymnasium: {error}"),
                }
            },
        )
    })
}

fn c_text(text: &str) -> CString {
    CString::new(text).expect("a program has no NUL")
}

/// The Python whose packages are to be used: `RL_PYTHON`, that of `VIRTUAL_ENV`, that of `make setup-python`, or the one this
/// was built with.
fn choose() -> Result<PathBuf, String> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let built_in = Path::new(env!("RL_ENVS_VENV_PYTHON"));
    let (program, whose) = if let Some(program) = var("RL_PYTHON") {
        (program, "RL_PYTHON")
    } else if let Some(venv) = var("VIRTUAL_ENV") {
        (venv.join("bin/python"), "VIRTUAL_ENV")
    } else if built_in.exists() {
        (built_in.to_path_buf(), "make setup-python")
    } else {
        (PathBuf::from(env!("RL_ENVS_BUILD_PYTHON")), "the Python this was built with")
    };
    let shown = program.display();
    let answer = Command::new(&program)
        .args(["-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"])
        .output()
        .map_err(|e| format!("there is no Python at '{shown}' ({whose}): {e}; set RL_PYTHON to one"))?;
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    let mut lines = answer.lines();
    let (Some(version), Some(program)) = (lines.next(), lines.next()) else {
        return Err(format!("'{shown}' ({whose}) does not answer as a Python; set RL_PYTHON to one"));
    };
    if version != VERSION {
        return Err(format!(
            "'{shown}' ({whose}) is Python {version}, and this program was built for {VERSION}; set RL_PYTHON to a Python {VERSION}, or build with PYO3_PYTHON='{shown}'"
        ));
    }
    Ok(PathBuf::from(program))
}

/// Starts the interpreter as `program` would be started, but for signals, which stay the program's own, and for arguments.
/// Afterwards this thread is not attached to it.
fn initialize(program: &Path) -> Result<(), String> {
    let name = CString::new(program.as_os_str().as_bytes()).map_err(|_| "its path has a NUL".to_string())?;
    // SAFETY: no Python runs yet, and this is called once, under the lock of `BRIDGE`. The configuration is initialized by
    // its own function before a field is read, is alive in each call, and is cleared once. The name is copied. The thread
    // state that starting leaves attached is let go of, as `Python::attach` expects.
    let status = unsafe {
        if ffi::Py_IsInitialized() != 0 {
            return Ok(());
        }
        let mut config = MaybeUninit::<ffi::PyConfig>::zeroed();
        let config = config.as_mut_ptr();
        ffi::PyConfig_InitPythonConfig(config);
        (*config).install_signal_handlers = 0;
        (*config).parse_argv = 0;
        (*config).configure_c_stdio = 0;
        let mut status = ffi::PyConfig_SetBytesString(config, &raw mut (*config).program_name, name.as_ptr());
        if ffi::PyStatus_Exception(status) == 0 {
            status = ffi::Py_InitializeFromConfig(config);
        }
        ffi::PyConfig_Clear(config);
        if ffi::PyStatus_Exception(status) == 0 {
            ffi::PyEval_SaveThread();
            return Ok(());
        }
        status
    };
    let why = if status.err_msg.is_null() {
        "it does not say why".into()
    } else {
        // SAFETY: a message of Python's is a C string that lives as long as the program.
        unsafe { CStr::from_ptr(status.err_msg) }.to_string_lossy()
    };
    Err(format!("Python does not start with '{}': {why}; set RL_PYTHON to another", program.display()))
}
