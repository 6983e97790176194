//! Choosing where tensors live.

use crate::shim;
use std::sync::OnceLock;
use tch::Device;

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name is not one of the known ones.
    #[error("unknown device '{name}'; use auto, cpu, cuda or cuda:N")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// libtorch has no usable CUDA half here.
    #[error(
        "device '{name}' cannot be had: {why}; use --device cpu, or on a machine with an NVIDIA driver run `make setup LIBTORCH_KIND=full`"
    )]
    NoCuda {
        /// What was asked for.
        name: String,
        /// What is missing.
        why: String,
    },
    /// There are fewer GPUs.
    #[error("device '{name}' cannot be had: this machine has {count} CUDA device(s), numbered from 0")]
    NoSuchGpu {
        /// What was asked for.
        name: String,
        /// GPUs found.
        count: i64,
    },
}

/// The device called `name`: `cpu`, `cuda` (the first GPU), `cuda:N`, or `auto` (the first GPU if there is one).
///
/// libtorch's CUDA half is opened at the first call that asks for a GPU; `cpu` never touches it.
///
/// # Errors
/// [`DeviceError`], each saying what to do.
pub fn choose(name: &str) -> Result<Device, DeviceError> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(match cuda() {
            Ok(_) => Device::Cuda(0),
            Err(_) => Device::Cpu,
        }),
        _ => {
            let unknown = || DeviceError::Unknown { name: name.to_string() };
            let index = match name.strip_prefix("cuda").ok_or_else(unknown)? {
                "" => 0,
                rest => rest.strip_prefix(':').and_then(|n| n.parse::<usize>().ok()).ok_or_else(unknown)?,
            };
            let count = cuda().map_err(|why| DeviceError::NoCuda { name: name.to_string(), why })?;
            if index as i64 >= count {
                return Err(DeviceError::NoSuchGpu { name: name.to_string(), count });
            }
            Ok(Device::Cuda(index))
        }
    }
}

/// `cpu` or `cuda:N`.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_string(),
    }
}

/// The number of GPUs, or why there is none. Asked once a process.
fn cuda() -> Result<i64, String> {
    static FOUND: OnceLock<Result<i64, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            shim::open_cuda().map_err(|e| match e.0.contains("libtorch_cuda.so: cannot open") {
                true => "this libtorch has no CUDA half".to_string(),
                false => format!("libtorch's CUDA half does not load ({e})"),
            })?;
            if !tch::Cuda::is_available() || tch::Cuda::device_count() == 0 {
                return Err("no usable NVIDIA driver or GPU was found".to_string());
            }
            Ok(tch::Cuda::device_count())
        })
        .clone()
}

/// Sets how many threads libtorch may use inside one operation.
///
/// # Panics
/// When `threads` is 0 or more than `i32::MAX`.
pub fn set_threads(threads: u32) {
    tch::set_num_threads(threads as i32);
}

/// Waits until `device` has done all that it was told to; the CPU always has. For measuring: nothing on the way of an update
/// needs it.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_and_refused_clearly() {
        assert_eq!(choose("cpu"), Ok(Device::Cpu));
        assert!(choose("auto").is_ok());
        for bad in ["gpu", "cuda:", "cuda:x", "cuda0", ""] {
            assert_eq!(choose(bad), Err(DeviceError::Unknown { name: bad.to_string() }));
        }
        match choose("cuda:99") {
            Err(DeviceError::NoCuda { .. } | DeviceError::NoSuchGpu { .. }) => {}
            other => panic!("99 GPUs? {other:?}"),
        }
    }
}
