//! Which device computes, and in what.

use super::stream::Compute;
use crate::manifest::{DeviceChoice, DtypeChoice};
use anyhow::{Result, bail};
use tch::{Cuda, Device, Kind};

/// Makes CUDA available where the libraries are there. Linked as needed, a binary depends on `libtorch_cpu` alone, and libtorch
/// reports no GPU until `libtorch_cuda` has registered itself.
///
/// # Errors
/// The dynamic loader's reason why it cannot be loaded.
pub fn load_cuda() -> Result<()> {
    // SAFETY: the initialisers of libtorch_cuda register its kernels and have no other precondition.
    match unsafe { libloading::Library::new("libtorch_cuda.so") } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => bail!("libtorch_cuda.so cannot be loaded ({error})"),
    }
}

/// Number of CUDA devices that libtorch finds; none where its libraries for them are not there.
pub fn cuda_devices() -> usize {
    if load_cuda().is_ok() && Cuda::is_available() { Cuda::device_count() as usize } else { 0 }
}

/// The device that the manifest asks for.
///
/// # Errors
/// A CUDA device was asked for by name and is not there.
pub fn resolve(choice: DeviceChoice) -> Result<Device> {
    if choice == DeviceChoice::Cpu {
        return Ok(Device::Cpu);
    }
    let loaded = load_cuda();
    let devices = if Cuda::is_available() { Cuda::device_count() as usize } else { 0 };
    match choice {
        DeviceChoice::Cuda(index) if index < devices => Ok(Device::Cuda(index)),
        DeviceChoice::Cuda(index) => {
            let reason = loaded.err().map_or_else(String::new, |error| format!(": {error}"));
            bail!("device cuda:{index} was asked for, {devices} CUDA devices were found{reason}; use device = \"auto\" or \"cpu\"")
        }
        _ if devices > 0 => Ok(Device::Cuda(0)),
        _ => Ok(Device::Cpu),
    }
}

/// Device and dtype for one checkpoint: `auto` is f32 on the CPU and the checkpoint's own dtype on CUDA.
/// `own` is the checkpoint's ([`crate::checkpoint::weights::Weights::kind`]).
pub fn compute(device: Device, dtype: DtypeChoice, own: Kind) -> Compute {
    let kind = match dtype {
        DtypeChoice::F32 => Kind::Float,
        DtypeChoice::F16 => Kind::Half,
        DtypeChoice::Bf16 => Kind::BFloat16,
        DtypeChoice::Auto if device == Device::Cpu => Kind::Float,
        DtypeChoice::Auto => own,
    };
    Compute { device, kind }
}

/// So many of libtorch's threads while it lives, whichever way that ends; then as many as before. Their number is the process's.
pub struct Threads(i32);

impl Threads {
    /// From now on `n`.
    pub fn set(n: i32) -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(n);
        Self(before)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        tch::set_num_threads(self.0);
    }
}

/// Runs `work` with as many of libtorch's threads as suit a model of this width.
pub fn with_threads<T>(d_model: i64, work: impl FnOnce() -> T) -> T {
    let _threads = Threads::set(threads(d_model, tch::get_num_threads()));
    work()
}

/// Width below which a model is computed by one thread: its products are too small to share out, and threads that wait for each other
/// on a busy machine cost more than they bring.
const NARROW: i64 = 256;

/// Number of threads for a model of this width, out of `available`.
pub fn threads(d_model: i64, available: i32) -> i32 {
    if d_model < NARROW { 1 } else { available }
}

/// Name of a device as manifests spell it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// The device that [`name`] names; a CPU where it is none.
pub fn named(name: &str) -> Device {
    name.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map_or(Device::Cpu, Device::Cuda)
}

/// Name of a dtype as manifests spell it.
pub fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        _ => "f32",
    }
}
