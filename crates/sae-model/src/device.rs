//! What has to happen before the first call into libtorch, and the choice of the device.
//!
//! The only file of this crate with unsafe code: opening a library runs its initialisers, and `mallopt` is C.
#![allow(unsafe_code)]

use std::str::FromStr;
use std::sync::OnceLock;

use tch::Device;

use crate::ModelError;

/// A device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, by its number among the visible ones.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is no device: expected auto, cpu, cuda or cuda:NUMBER");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(expected)?;
                number.parse().map(Self::Cuda).map_err(|_| expected())
            }
        }
    }
}

impl DeviceChoice {
    /// Makes libtorch ready (once a process) and resolves the choice.
    pub fn resolve(self) -> Result<Device, ModelError> {
        keep_large_buffers();
        if self == Self::Cpu {
            // The CUDA library alone takes 240 MB.
            return Ok(Device::Cpu);
        }
        let cuda_library = open_cuda_library_once();
        let gpus = if cuda_library.is_ok() { tch::Cuda::device_count() as usize } else { 0 };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if gpus == 0 => Ok(Device::Cpu),
            Self::Auto => Ok(Device::Cuda(0)),
            Self::Cuda(index) if index < gpus => Ok(Device::Cuda(index)),
            Self::Cuda(index) => Err(ModelError::Device {
                name: format!("cuda:{index}"),
                message: match cuda_library {
                    Ok(()) => format!("libtorch sees {gpus} CUDA devices"),
                    Err(error) => {
                        format!(
                            "libtorch_cuda.so cannot be opened ({error}); run `cargo xtask setup --cuda`"
                        )
                    }
                },
            }),
        }
    }
}

/// Opens libtorch's CUDA library, if the loader finds it, before any other call into libtorch.
fn open_cuda_library_once() -> Result<(), String> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED
        .get_or_init(|| {
            allow_tf32();
            open_cuda_library()
        })
        .clone()
}

/// Lets a GPU take products of single precision in TF32, unless the user says otherwise. libtorch has no switch that tch
/// could turn; it reads this variable when it is first asked for a product.
fn allow_tf32() {
    const VARIABLE: &str = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the program has just begun: no other thread of it reads or writes the environment yet.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// A GPU's memory, by CUDA's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Bytes that nobody has.
    pub free: usize,
    /// Bytes in all.
    pub total: usize,
}

/// The memory of a GPU; `None` of a CPU, or where CUDA does not say.
#[cfg(target_os = "linux")]
pub fn memory(device: Device) -> Option<DeviceMemory> {
    let Device::Cuda(index) = device else { return None };
    CudaRuntime::open()?.memory(index)
}

/// The memory of a GPU.
#[cfg(not(target_os = "linux"))]
pub fn memory(_device: Device) -> Option<DeviceMemory> {
    None
}

/// The functions of CUDA's runtime that memory is asked with. They return 0 where they succeed.
#[cfg(target_os = "linux")]
struct CudaRuntime {
    get_device: unsafe extern "C" fn(*mut libc::c_int) -> libc::c_int,
    set_device: unsafe extern "C" fn(libc::c_int) -> libc::c_int,
    mem_get_info: unsafe extern "C" fn(*mut usize, *mut usize) -> libc::c_int,
}

#[cfg(target_os = "linux")]
impl CudaRuntime {
    fn open() -> Option<Self> {
        use libloading::os::unix::Library;
        let library = Library::this();
        // SAFETY: libtorch's CUDA library is open, and with it, for all to see, CUDA's runtime, whose functions these are
        // (CUDA Runtime API, "Device Management" and "Memory Management").
        unsafe {
            Some(Self {
                get_device: *library.get(b"cudaGetDevice\0").ok()?,
                set_device: *library.get(b"cudaSetDevice\0").ok()?,
                mem_get_info: *library.get(b"cudaMemGetInfo\0").ok()?,
            })
        }
    }

    /// `cudaMemGetInfo` tells of the current device, which need not be the one asked for: it is made current for the
    /// question, and the one before is made current again.
    fn memory(&self, index: usize) -> Option<DeviceMemory> {
        let index = libc::c_int::try_from(index).ok()?;
        let (mut before, mut free, mut total) = (0, 0, 0);
        // SAFETY: the functions write to the numbers that they are given, and keep no pointer.
        unsafe {
            if (self.get_device)(&raw mut before) != 0 || (self.set_device)(index) != 0 {
                return None;
            }
            let code = (self.mem_get_info)(&raw mut free, &raw mut total);
            let _ = (self.set_device)(before);
            (code == 0).then_some(DeviceMemory { free, total })
        }
    }
}

/// The binary links only libtorch's CPU part, so that it runs anywhere; the CUDA part registers itself when opened.
#[cfg(target_os = "linux")]
fn open_cuda_library() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library's initialisers register operators with libtorch, which is loaded already; this is what
    // linking the library would do. It is never closed.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    match library {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_cuda_library() -> Result<(), String> {
    Err("CUDA is supported on Linux only".to_owned())
}

/// glibc hands buffers above a threshold back to the system when they are freed, and every training step pays for
/// the page faults of getting them again: up to half its time.
fn keep_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BYTES: libc::c_int = 1 << 30;
        // SAFETY: mallopt only sets parameters of the allocator, and nothing else runs yet.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceChoice;

    /// A runtime with two devices, the first current: not run on a card.
    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_that_of_the_device_asked_for() {
        use std::sync::atomic::{AtomicI32, Ordering};

        use super::{CudaRuntime, DeviceMemory};

        static CURRENT: AtomicI32 = AtomicI32::new(0);
        unsafe extern "C" fn get_device(index: *mut libc::c_int) -> libc::c_int {
            // SAFETY: the caller gives a place to write to.
            unsafe { *index = CURRENT.load(Ordering::SeqCst) };
            0
        }
        unsafe extern "C" fn set_device(index: libc::c_int) -> libc::c_int {
            if !(0..2).contains(&index) {
                return 101;
            }
            CURRENT.store(index, Ordering::SeqCst);
            0
        }
        unsafe extern "C" fn mem_get_info(free: *mut usize, total: *mut usize) -> libc::c_int {
            let current = CURRENT.load(Ordering::SeqCst) as usize;
            // SAFETY: the caller gives places to write to.
            unsafe { (*free, *total) = (10 + current, 100 + current) };
            0
        }
        let runtime = CudaRuntime { get_device, set_device, mem_get_info };
        assert_eq!(runtime.memory(1), Some(DeviceMemory { free: 11, total: 101 }));
        assert_eq!(CURRENT.load(Ordering::SeqCst), 0, "the current device is the one before");
        assert_eq!(runtime.memory(0), Some(DeviceMemory { free: 10, total: 100 }));
        assert_eq!(runtime.memory(7), None);
        assert_eq!(super::memory(tch::Device::Cpu), None);
    }

    #[test]
    fn names_of_devices() {
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert!("gpu".parse::<DeviceChoice>().is_err());
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
        assert_eq!(DeviceChoice::Cpu.resolve().ok(), Some(tch::Device::Cpu));
    }
}
