//! CUDA's driver, opened where there is one: modules of kernels, and their launches.
//!
//! Unsafe code stands here, because the driver is C; in this crate's other files, where memory is lent; in `sae-nn`'s
//! `kernels`, which lend it; in `sae-model::device`, which opens libtorch's CUDA library; and in `sae-kernels`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

use crate::CudaError;

/// `CUresult`.
type Code = c_int;
type Handle = *mut c_void;

/// The compute capability that the kernels are compiled for, its first number: Ampere.
const OLDEST: c_int = 8;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`.
const CAPABILITY: c_int = 75;

/// The functions of the driver that are used (CUDA Driver API). They return 0 where they succeed.
struct Driver {
    device_count: unsafe extern "C" fn(*mut c_int) -> Code,
    device_get: unsafe extern "C" fn(*mut c_int, c_int) -> Code,
    device_get_attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Code,
    primary_context_retain: unsafe extern "C" fn(*mut Handle, c_int) -> Code,
    context_push: unsafe extern "C" fn(Handle) -> Code,
    context_pop: unsafe extern "C" fn(*mut Handle) -> Code,
    module_load_data: unsafe extern "C" fn(*mut Handle, *const c_void) -> Code,
    module_get_function: unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> Code,
    launch: Launch,
    error_string: unsafe extern "C" fn(Code, *mut *const c_char) -> Code,
}

type Launch = unsafe extern "C" fn(
    Handle,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    Handle,
    *mut *mut c_void,
    *mut *mut c_void,
) -> Code;

/// A GPU with the kernels on it.
#[derive(Debug)]
pub(crate) struct Module {
    context: Handle,
    module: Handle,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: likewise, from several at once.
unsafe impl Sync for Module {}

/// A kernel of a module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function(Handle);

// SAFETY: as for `Module`.
unsafe impl Send for Function {}
// SAFETY: as for `Module`.
unsafe impl Sync for Function {}

/// How many threads a kernel runs on, and the bytes of shared memory of a block beside those that it declares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub blocks: usize,
    pub threads: usize,
    pub shared_bytes: usize,
}

impl Driver {
    /// The driver, opened once a process; `None` where there is none.
    fn get() -> Option<&'static Self> {
        static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref()
    }

    fn open() -> Option<Self> {
        // SAFETY: opening the driver's library runs its initialisers, as libtorch's CUDA library does, too; these are its
        // functions with their types (CUDA Driver API; `_v2` is what its header makes of the names).
        unsafe {
            let library = Library::new("libcuda.so.1").ok()?;
            let init: unsafe extern "C" fn(c_uint) -> Code = *library.get(b"cuInit\0").ok()?;
            // Fails where there is a driver and no device.
            if init(0) != 0 {
                return None;
            }
            let driver = Self {
                device_count: *library.get(b"cuDeviceGetCount\0").ok()?,
                device_get: *library.get(b"cuDeviceGet\0").ok()?,
                device_get_attribute: *library.get(b"cuDeviceGetAttribute\0").ok()?,
                primary_context_retain: *library.get(b"cuDevicePrimaryCtxRetain\0").ok()?,
                context_push: *library.get(b"cuCtxPushCurrent_v2\0").ok()?,
                context_pop: *library.get(b"cuCtxPopCurrent_v2\0").ok()?,
                module_load_data: *library.get(b"cuModuleLoadData\0").ok()?,
                module_get_function: *library.get(b"cuModuleGetFunction\0").ok()?,
                launch: *library.get(b"cuLaunchKernel\0").ok()?,
                error_string: *library.get(b"cuGetErrorString\0").ok()?,
            };
            // Its functions stay.
            std::mem::forget(library);
            Some(driver)
        }
    }

    fn check(&self, doing: &'static str, code: Code) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the function gives a text of the driver's own, which stays, or none.
        let message = unsafe {
            let _ = (self.error_string)(code, &raw mut text);
            if text.is_null() {
                String::new()
            } else {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            }
        };
        Err(CudaError { doing, code, message })
    }
}

impl Module {
    /// Loads PTX onto a GPU by its number among the visible ones; `None` where there is no driver, or the GPU is too old.
    /// It shares the context of CUDA's runtime, and so libtorch's memory.
    pub fn load(index: usize, ptx: &str) -> Result<Option<Self>, CudaError> {
        let Some(driver) = Driver::get() else { return Ok(None) };
        let (mut device, mut major) = (0, 0);
        let (mut context, mut module) = (std::ptr::null_mut(), std::ptr::null_mut());
        let ptx = CString::new(ptx).map_err(|_| CudaError::of("reading the kernels"))?;
        let index = c_int::try_from(index).map_err(|_| CudaError::of("finding a device"))?;
        // SAFETY: every function writes to the place that it is given, and keeps no pointer.
        unsafe {
            let mut count = 0;
            driver.check("counting devices", (driver.device_count)(&raw mut count))?;
            if index >= count {
                return Ok(None);
            }
            driver.check("finding a device", (driver.device_get)(&raw mut device, index))?;
            let code = (driver.device_get_attribute)(&raw mut major, CAPABILITY, device);
            driver.check("asking for a device's compute capability", code)?;
            if major < OLDEST {
                tracing::warn!(
                    "the kernels for GPUs need compute capability {OLDEST}.0 or newer, and GPU {index} has {major}.x: \
                     libtorch's slower operations are used"
                );
                return Ok(None);
            }
            let code = (driver.primary_context_retain)(&raw mut context, device);
            driver.check("taking a device's context", code)?;
        }
        let this = Self { context, module: std::ptr::null_mut() };
        this.within(driver, || {
            // SAFETY: as above; the text ends with a zero.
            let code = unsafe { (driver.module_load_data)(&raw mut module, ptx.as_ptr().cast()) };
            driver.check("compiling the kernels for a device", code)
        })?;
        Ok(Some(Self { context, module }))
    }

    /// A kernel by its name.
    pub fn function(&self, name: &str) -> Result<Function, CudaError> {
        let doing = "finding a kernel";
        let driver = Driver::get().ok_or(CudaError::of(doing))?;
        let name = CString::new(name).map_err(|_| CudaError::of(doing))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded; the name ends with a zero.
        let code =
            unsafe { (driver.module_get_function)(&raw mut function, self.module, name.as_ptr()) };
        driver.check(doing, code)?;
        Ok(Function(function))
    }

    /// Starts a kernel behind the work that the device's default stream, which libtorch uses, has already.
    ///
    /// # Safety
    /// The arguments are those of the kernel: pointers to values of its parameters' types, in order. What they point to on
    /// the device is as large as the kernel takes it to be.
    pub unsafe fn launch(
        &self,
        function: Function,
        grid: Grid,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        const DOING: &str = "starting a kernel";
        let driver = Driver::get().ok_or(CudaError::of(DOING))?;
        let number =
            |number: usize| c_uint::try_from(number).map_err(|_| CudaError::of("sizing a kernel"));
        let (blocks, threads) = (number(grid.blocks)?, number(grid.threads)?);
        let shared = number(grid.shared_bytes)?;
        if blocks == 0 {
            return Ok(());
        }
        let (stream, none) = (std::ptr::null_mut(), std::ptr::null_mut());
        self.within(driver, || {
            // SAFETY: the caller's promise.
            let code = unsafe {
                (driver.launch)(
                    function.0,
                    blocks,
                    1,
                    1,
                    threads,
                    1,
                    1,
                    shared,
                    stream,
                    arguments.as_mut_ptr(),
                    none,
                )
            };
            driver.check(DOING, code)
        })
    }

    /// Makes the device's context current for some work, and the one before it again.
    fn within<T>(
        &self,
        driver: &Driver,
        work: impl FnOnce() -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let mut popped = std::ptr::null_mut();
        // SAFETY: the context was retained and is never released.
        driver.check("entering a context", unsafe { (driver.context_push)(self.context) })?;
        let done = work();
        // SAFETY: the context was pushed above.
        driver.check("leaving a context", unsafe { (driver.context_pop)(&raw mut popped) })?;
        done
    }
}
