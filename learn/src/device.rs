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

/// Multiplications in a network's forward pass from which a second intra-op thread is worth having; each further thread wants as many more.
const MULTIPLICATIONS_A_THREAD: u64 = 32_000_000;

/// How many intra-op threads an update may use: one for each 32 million multiplications in one forward pass of the batch, at
/// least 1, and no more than there are cores. `widths` are the columns of a network's input and of each layer after it.
///
/// Below that, threads cost more than they gain: waking them takes some 10 µs an operation, and a small update has dozens. So with 17 inputs
/// and 6 outputs, 64-64 stays on one thread up to batches of 11,500 rows, 256-256 up to 900 and 400-300 up to 500.
pub fn threads_for(widths: &[i64], batch: usize) -> u32 {
    let row: u64 = widths
        .windows(2)
        .map(|pair| pair[0].unsigned_abs().saturating_mul(pair[1].unsigned_abs()))
        .fold(0, u64::saturating_add);
    let wanted = row.saturating_mul(batch as u64) / MULTIPLICATIONS_A_THREAD;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    wanted.clamp(1, cores.max(1)) as u32
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
    fn small_updates_stay_on_one_thread() {
        assert_eq!(threads_for(&[17, 64, 64, 6], 64), 1);
        assert_eq!(threads_for(&[17, 256, 256, 6], 256), 1);
        assert_eq!(threads_for(&[], 1 << 20), 1);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        assert_eq!(threads_for(&[17, 256, 256, 6], 4096), cores.min(9));
        assert_eq!(threads_for(&[i64::MAX, 2], usize::MAX), cores);
    }

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
