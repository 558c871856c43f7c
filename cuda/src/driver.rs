//! The driver's calls that the library makes, each checked, through cudarc's bindings, which open the driver when it is first
//! called. Loader and runner threads; a context is current on the thread that asked for it last.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys;
use sys::CUresult;

use crate::error::{CudaError, OLDEST_DRIVER};

pub type Outcome<T> = Result<T, CudaError>;

/// Turns a driver's answer into an outcome that names the call.
fn checked(call: &'static str, result: CUresult) -> Outcome<()> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        other => {
            let mut name: *const c_char = ptr::null();
            // SAFETY: the driver writes a pointer to a text of its own that lives as long as the process, or leaves ours.
            let named = unsafe { sys::cuGetErrorName(other, &mut name) } == CUresult::CUDA_SUCCESS && !name.is_null();
            // SAFETY: as just said; the text ends with a 0.
            let name =
                if named { unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned() } else { String::new() };
            Err(CudaError::Lost { call, name })
        }
    }
}

/// Calls a function of the driver by name and checks its answer.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {
        checked(stringify!($name), sys::$name($($argument),*))
    };
}

/// The driver, started.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// As it counts: 13000 is 13.0.
    pub version: u32,
    pub devices: u32,
}

impl Driver {
    /// Opens it, unless it is older than what the library carries.
    pub fn open() -> Outcome<Self> {
        // SAFETY: it only tries to open the library, under the names that the system's driver has.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let (mut version, mut devices) = (0, 0);
        // SAFETY: the driver writes one number.
        unsafe { call!(cuDriverGetVersion(&mut version)) }?;
        let version = version as u32;
        if version < OLDEST_DRIVER {
            return Err(CudaError::OldDriver { found: version });
        }
        // SAFETY: no arguments to speak of; calling it again does nothing.
        match unsafe { sys::cuInit(0) } {
            CUresult::CUDA_SUCCESS => {}
            CUresult::CUDA_ERROR_NO_DEVICE => return Err(CudaError::NoDevice { asked: 0, found: 0 }),
            other => checked("cuInit", other)?,
        }
        // SAFETY: the driver writes one number.
        unsafe { call!(cuDeviceGetCount(&mut devices)) }?;
        Ok(Self { version, devices: devices as u32 })
    }
}

/// A card's primary context, which everything in the process shares, torch included.
pub struct Context {
    context: sys::CUcontext,
    device: sys::CUdevice,
    pub name: String,
    pub major: u32,
    pub minor: u32,
    pub multiprocessors: u32,
}

// SAFETY: a context is a handle that the driver lets any thread make current.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the context of card `ordinal` and makes it current.
    pub fn open(driver: Driver, ordinal: u32) -> Outcome<Arc<Self>> {
        if ordinal >= driver.devices {
            return Err(CudaError::NoDevice { asked: ordinal, found: driver.devices });
        }
        let mut device = 0;
        // SAFETY: the driver writes one number.
        unsafe { call!(cuDeviceGet(&mut device, ordinal as i32)) }?;
        let mut text = [0 as c_char; 128];
        // SAFETY: the driver writes at most the length that it is told, a 0 included.
        unsafe { call!(cuDeviceGetName(text.as_mut_ptr(), text.len() as i32, device)) }?;
        // SAFETY: ended by a 0, see above.
        let name = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
        let attribute = |which| -> Outcome<u32> {
            let mut value = 0;
            // SAFETY: the driver writes one number.
            unsafe { call!(cuDeviceGetAttribute(&mut value, which, device)) }?;
            Ok(value as u32)
        };
        use sys::CUdevice_attribute as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let mut context = ptr::null_mut();
        // SAFETY: the driver writes one handle; released when this is dropped.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut context, device)) }?;
        let context = Self { context, device, name, major, minor, multiprocessors };
        context.enter()?;
        Ok(Arc::new(context))
    }

    /// Makes it current on this thread.
    pub fn enter(&self) -> Outcome<()> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { call!(cuCtxSetCurrent(self.context)) }
    }

    /// Bytes that are free, and all.
    pub fn memory(&self) -> Outcome<(u64, u64)> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two numbers.
        unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`. A driver that is gone may refuse, which changes nothing.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// A stream of its own.
pub struct Stream {
    pub context: Arc<Context>,
    stream: sys::CUstream,
}

// SAFETY: a stream is a handle that any one thread may use; its owner is used by one at a time.
unsafe impl Send for Stream {}

impl Stream {
    /// One whose work can wait for others'.
    pub fn new(context: &Arc<Context>) -> Outcome<Self> {
        Self::of_priority(context, false)
    }

    /// One whose thread blocks come first where others' wait beside them.
    pub fn urgent(context: &Arc<Context>) -> Outcome<Self> {
        Self::of_priority(context, true)
    }

    fn of_priority(context: &Arc<Context>, urgent: bool) -> Outcome<Self> {
        context.enter()?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: the driver writes two numbers.
        unsafe { call!(cuCtxGetStreamPriorityRange(&mut least, &mut greatest)) }?;
        let mut stream = ptr::null_mut();
        // 1: it does not wait for the default stream, nor that one for it.
        // SAFETY: the driver writes one handle; destroyed when this is dropped.
        unsafe { call!(cuStreamCreateWithPriority(&mut stream, 1, if urgent { greatest } else { least })) }?;
        Ok(Self { context: context.clone(), stream })
    }

    /// Waits for everything that was submitted.
    pub fn wait(&self) -> Outcome<()> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { call!(cuStreamSynchronize(self.stream)) }
    }

    /// Copies `bytes` from host memory.
    ///
    /// # Safety
    /// `to` is device memory of that size, and `from` stays as it is until the stream has come by, or, in a capture, until
    /// the graph is gone.
    pub unsafe fn upload(&self, to: u64, from: *const c_void, bytes: usize) -> Outcome<()> {
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemcpyHtoDAsync_v2(to, from, bytes, self.stream)) }
    }

    /// Copies `bytes` to host memory.
    ///
    /// # Safety
    /// As [`Stream::upload`], the other way round.
    pub unsafe fn download(&self, to: *mut c_void, from: u64, bytes: usize) -> Outcome<()> {
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemcpyDtoHAsync_v2(to, from, bytes, self.stream)) }
    }

    /// Copies `bytes` from wherever `from` lies, host or device.
    ///
    /// # Safety
    /// Both are memory of that size.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Outcome<()> {
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemcpyAsync(to, from, bytes, self.stream)) }
    }

    /// Fills `bytes` with zeros.
    ///
    /// # Safety
    /// `to` is device memory of that size.
    pub unsafe fn clear(&self, to: u64, bytes: usize) -> Outcome<()> {
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemsetD8Async(to, 0, bytes, self.stream)) }
    }

    /// Launches a kernel whose one argument is `argument`.
    ///
    /// # Safety
    /// The kernel takes exactly this structure, and what it points to is as large as the kernel believes.
    pub unsafe fn launch<A>(&self, kernel: Kernel, shape: Launch, argument: &A) -> Outcome<()> {
        let mut attribute = sys::CUlaunchAttribute_st {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue_union { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig_st {
            gridDimX: shape.grid[0],
            gridDimY: shape.grid[1],
            gridDimZ: shape.grid[2],
            blockDimX: shape.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared,
            hStream: self.stream,
            attrs: &mut attribute,
            numAttrs: u32::from(shape.overlap),
        };
        let mut arguments = [ptr::from_ref(argument).cast_mut().cast::<c_void>()];
        // SAFETY: the driver copies the argument before it returns; the rest is the caller's promise.
        unsafe { call!(cuLaunchKernelEx(&config, kernel.0, arguments.as_mut_ptr(), ptr::null_mut())) }
    }

    /// What `submit` submits, as a graph.
    pub fn capture(&self, submit: impl FnOnce() -> Outcome<()>) -> Outcome<Graph> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours and not in a capture.
        unsafe { call!(cuStreamBeginCapture_v2(self.stream, mode)) }?;
        let submitted = submit();
        let mut graph = ptr::null_mut();
        // SAFETY: the driver writes one handle. It ends the capture also when something went wrong in it.
        let ended = unsafe { call!(cuStreamEndCapture(self.stream, &mut graph)) };
        submitted.and(ended)?;
        let mut executable = ptr::null_mut();
        // SAFETY: the graph is the one just made; the driver writes one handle.
        let made = unsafe { call!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)) };
        // SAFETY: an executable graph does not need the one that it was made of.
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        made.map(|()| Graph(executable))
    }

    /// Runs a graph.
    pub fn run(&self, graph: &Graph) -> Outcome<()> {
        // SAFETY: the graph lives as long as it is borrowed, and its owner waits for the stream before it drops it.
        unsafe { call!(cuGraphLaunch(graph.0, self.stream)) }
    }

    /// Marks a moment.
    pub fn mark(&self, event: &Event) -> Outcome<()> {
        // SAFETY: both are ours.
        unsafe { call!(cuEventRecord(event.0, self.stream)) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.context.enter();
        // SAFETY: nobody else has the stream; work under way is finished first.
        let _ = unsafe { sys::cuStreamSynchronize(self.stream) };
        // SAFETY: as above.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.stream) };
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub grid: [u32; 3],
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// It may begin while the launch before it ends.
    pub overlap: bool,
}

/// A captured step.
pub struct Graph(sys::CUgraphExec);

// SAFETY: a handle; its owner is used by one thread at a time.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}

/// A moment on a stream.
pub struct Event(sys::CUevent);

impl Event {
    pub fn new() -> Outcome<Self> {
        let mut event = ptr::null_mut();
        // SAFETY: the driver writes one handle; destroyed when this is dropped.
        unsafe { call!(cuEventCreate(&mut event, 0)) }?;
        Ok(Self(event))
    }

    /// Milliseconds from `self` to `later`; both are over.
    pub fn until(&self, later: &Self) -> Outcome<f32> {
        let mut milliseconds = 0.0;
        // SAFETY: both are ours; the driver writes one number.
        unsafe { call!(cuEventElapsedTime_v2(&mut milliseconds, self.0, later.0)) }?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        let _ = unsafe { sys::cuEventDestroy_v2(self.0) };
    }
}

/// As much of a processor's own memory as can be is shared memory, in percent; the rest is its first cache, which the kernels hardly use.
const MOST_SHARED: i32 = 100;

/// A loaded module. Never unloaded: it goes with the context.
pub struct Module(sys::CUmodule);

/// A kernel of a module.
#[derive(Clone, Copy)]
pub struct Kernel(sys::CUfunction);

// SAFETY: handles that any thread may use while their context lives, and whoever has one keeps the context.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Module {
    /// Loads an image: machine code, or PTX that the driver compiles, ended by a 0.
    pub fn load(image: &[u8]) -> Outcome<Self> {
        let mut module = ptr::null_mut();
        // SAFETY: the image is one that nvcc made, ended by a 0 where it is text; the driver copies it.
        unsafe { call!(cuModuleLoadData(&mut module, image.as_ptr().cast())) }?;
        Ok(Self(module))
    }

    /// The kernel of that name, allowed so much dynamic shared memory.
    pub fn kernel(&self, name: &str, shared: u32) -> Outcome<Kernel> {
        let mut kernel = ptr::null_mut();
        let name = CString::new(name).map_err(|_| CudaError::Argument { what: name.to_owned() })?;
        // SAFETY: the name ends with a 0; the driver writes one handle.
        unsafe { call!(cuModuleGetFunction(&mut kernel, self.0, name.as_ptr())) }?;
        let set = |attribute, value| {
            // SAFETY: the kernel is the one just found.
            unsafe { call!(cuFuncSetAttribute(kernel, attribute, value)) }
        };
        if shared > 0 {
            set(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared as i32)?;
        }
        // The same for all: a processor must be idle before it may divide its memory anew, and two thread blocks shall fit.
        set(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, MOST_SHARED)?;
        Ok(Kernel(kernel))
    }
}

/// Allocates device memory: `None` when there is not enough.
pub(crate) fn allocate(bytes: usize) -> Outcome<Option<u64>> {
    let mut address = 0;
    // SAFETY: the driver writes one address; `memory::Buffer` frees it.
    match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
        result => checked("cuMemAlloc_v2", result).map(|()| Some(address)),
    }
}

/// Frees what [`allocate`] gave.
///
/// # Safety
/// Nothing uses it any more.
pub(crate) unsafe fn free(address: u64) {
    // SAFETY: the caller's promise. A driver that is gone may refuse, which changes nothing.
    let _ = unsafe { sys::cuMemFree_v2(address) };
}

/// Allocates host memory that a card reads and writes by itself.
pub(crate) fn allocate_host(bytes: usize) -> Outcome<*mut c_void> {
    let mut address = ptr::null_mut();
    // SAFETY: the driver writes one address; `memory::Pinned` frees it.
    unsafe { call!(cuMemHostAlloc(&mut address, bytes, 0)) }?;
    Ok(address)
}

/// Frees what [`allocate_host`] gave.
///
/// # Safety
/// Nothing uses it any more.
pub(crate) unsafe fn free_host(address: *mut c_void) {
    // SAFETY: the caller's promise.
    let _ = unsafe { sys::cuMemFreeHost(address) };
}
