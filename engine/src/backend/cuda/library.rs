//! Finds and opens the CUDA library, once in a process, and never closes it: a driver that has been opened keeps threads.
//! Any thread that may wait.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use super::abi::{DeviceFacts, Drawn, Message, Object, Operation, Settings, Shape, Step, VERSION, status};
use crate::backend::BackendError;

/// Names the library's file, for tests and for installations of another layout.
const VARIABLE: &str = "TILLER_CUDA_LIBRARY";

/// Most cards that are listed.
const MOST_CARDS: usize = 16;

/// A call's answer: a [`status`], and unless that is OK the message that the last argument points to.
type Answer = i32;

/// The library's functions, by the names that it exports them under.
#[derive(Clone, Copy)]
struct Functions {
    devices: unsafe extern "C" fn(*mut DeviceFacts, u32, *mut u32, *mut Message) -> Answer,
    model_open: unsafe extern "C" fn(u32, *const Shape, *mut Object, *mut Message) -> Answer,
    model_tensor: unsafe extern "C" fn(Object, u32, u32, *const c_void, u64, u32, *mut Message) -> Answer,
    model_close: unsafe extern "C" fn(Object),
    player_open: unsafe extern "C" fn(Object, *const Settings, *mut Object, *mut Message) -> Answer,
    player_close: unsafe extern "C" fn(Object),
    prompt_open: unsafe extern "C" fn(Object, *const f32, u32, *mut u32, *mut Message) -> Answer,
    prompt_close: unsafe extern "C" fn(Object, u32, *mut Message) -> Answer,
    held_open: unsafe extern "C" fn(Object, *const f32, *const f32, *const f32, *mut u32, *mut Message) -> Answer,
    inject: unsafe extern "C" fn(Object, u32, *const f32, u64, *mut Message) -> Answer,
    step: unsafe extern "C" fn(Object, *const Step, *mut Drawn, *mut Message) -> Answer,
    read: unsafe extern "C" fn(Object, u32, u32, *mut f32, u64, *mut Message) -> Answer,
    codec_open: unsafe extern "C" fn(u32, *mut Object, *mut Message) -> Answer,
    codec_operation:
        unsafe extern "C" fn(Object, *const Operation, *const f32, u64, *const f32, u64, *mut Message) -> Answer,
    codec_close: unsafe extern "C" fn(Object),
    stream_open: unsafe extern "C" fn(Object, *mut Object, *mut u64, *mut Message) -> Answer,
    stream_close: unsafe extern "C" fn(Object),
    stream_push: unsafe extern "C" fn(Object, *const u32, u32, *mut Message) -> Answer,
    stream_take: unsafe extern "C" fn(Object, *mut f32, u64, *mut u64, *mut Message) -> Answer,
    stream_reset: unsafe extern "C" fn(Object, *mut Message) -> Answer,
    bandwidth: unsafe extern "C" fn(u32, u64, *mut [f64; 2], *mut Message) -> Answer,
}

/// One card, for people and for the choice between several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// As the driver counts.
    pub number: u32,
    pub name: String,
    /// Bytes of memory that are free, and all.
    pub free: u64,
    pub total: u64,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    pub multiprocessors: u32,
    /// As the driver counts: 13000 is 13.0.
    pub driver: u32,
}

impl std::fmt::Display for Card {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let (number, name) = (self.number, &self.name);
        write!(formatter, "gpu {number}: {name}, {:.1} of {:.1} GB free", gigabytes(self.free), gigabytes(self.total))
    }
}

/// The opened library.
pub struct Library {
    functions: Functions,
    path: PathBuf,
}

impl Library {
    /// Opens it, beside the program or plugin that this is part of.
    ///
    /// # Errors
    /// It is not there, or of another version. The answer stays the same as long as the process lives.
    pub fn open() -> Result<&'static Self, BackendError> {
        static OPENED: OnceLock<Result<Library, BackendError>> = OnceLock::new();
        OPENED.get_or_init(|| Self::load(&place())).as_ref().map_err(Clone::clone)
    }

    fn load(path: &Path) -> Result<Self, BackendError> {
        let refused = |reason: String| BackendError::Library { reason };
        if !path.is_file() {
            return Err(refused(format!("{} is not there: `cargo xtask bundle --cuda` makes it", path.display())));
        }
        // SAFETY: it is our own library: opening it runs nothing but what its toolchain does at a start.
        let library = unsafe { libloading::Library::new(path) };
        let library = library.map_err(|error| refused(format!("{}: {error}", path.display())))?;
        // Never closed, so that its functions may be called for ever.
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        let other = |found: String| {
            refused(format!("{} is of version {found}, not {VERSION}: install the one of this plugin", path.display()))
        };
        // SAFETY: this function has had this type in every version.
        let version = unsafe { library.get::<extern "C" fn() -> u32>(b"tiller_cuda_version\0") };
        let version = version.map(|version| version()).map_err(|_| other("0".to_owned()))?;
        if version != VERSION {
            return Err(other(version.to_string()));
        }
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: a library of this version has this function with this type: both include abi.rs.
                *unsafe { library.get(concat!("tiller_cuda_", $name, "\0").as_bytes()) }
                    .map_err(|error| refused(format!("{}: {error}", path.display())))?
            };
        }
        let functions = Functions {
            devices: function!("devices"),
            model_open: function!("model_open"),
            model_tensor: function!("model_tensor"),
            model_close: function!("model_close"),
            player_open: function!("player_open"),
            player_close: function!("player_close"),
            prompt_open: function!("prompt_open"),
            prompt_close: function!("prompt_close"),
            held_open: function!("held_open"),
            inject: function!("inject"),
            step: function!("step"),
            read: function!("read"),
            codec_open: function!("codec_open"),
            codec_operation: function!("codec_operation"),
            codec_close: function!("codec_close"),
            stream_open: function!("stream_open"),
            stream_close: function!("stream_close"),
            stream_push: function!("stream_push"),
            stream_take: function!("stream_take"),
            stream_reset: function!("stream_reset"),
            bandwidth: function!("bandwidth"),
        };
        Ok(Self { functions, path: path.to_owned() })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cards that the driver has. Each has run a graph with nothing in it.
    ///
    /// # Errors
    /// No driver, or one that is too old; the text says what to do.
    pub fn cards(&self) -> Result<Vec<Card>, BackendError> {
        let nothing =
            DeviceFacts { name: [0; 128], free: 0, total: 0, major: 0, minor: 0, multiprocessors: 0, driver: 0 };
        let (mut facts, mut count) = ([nothing; MOST_CARDS], 0);
        // SAFETY: there is room for as many as it is told.
        answered(|message| unsafe {
            (self.functions.devices)(facts.as_mut_ptr(), MOST_CARDS as u32, &mut count, message)
        })?;
        let card = |(number, facts): (usize, &DeviceFacts)| {
            let length = facts.name.iter().position(|byte| *byte == 0).unwrap_or(facts.name.len());
            Card {
                number: number as u32,
                name: String::from_utf8_lossy(&facts.name[..length]).into_owned(),
                free: facts.free,
                total: facts.total,
                capability: (facts.major, facts.minor),
                multiprocessors: facts.multiprocessors,
                driver: facts.driver,
            }
        };
        Ok(facts[..count as usize].iter().enumerate().map(card).collect())
    }

    /// Bytes per second of reading, and of copying (both ways counted), so many bytes of a card's memory. For measurements.
    ///
    /// # Errors
    /// The card's memory does not suffice, or it no longer answers.
    pub fn bandwidth(&self, device: u32, bytes: u64) -> Result<[f64; 2], BackendError> {
        let mut rates = [0.0; 2];
        // SAFETY: it writes two numbers.
        answered(|message| unsafe { (self.functions.bandwidth)(device, bytes, &mut rates, message) })?;
        Ok(rates)
    }

    /// An empty codec on a card.
    pub(super) fn open_codec(&self, device: u32) -> Result<CodecObject, BackendError> {
        let mut object = ptr::null_mut();
        // SAFETY: it writes one pointer.
        answered(|message| unsafe { (self.functions.codec_open)(device, &mut object, message) })?;
        Ok(CodecObject { object, functions: self.functions })
    }

    /// Room for a model on a card.
    pub(super) fn open_model(&self, device: u32, shape: &Shape) -> Result<ModelObject, BackendError> {
        let mut object = ptr::null_mut();
        // SAFETY: it writes one pointer.
        answered(|message| unsafe { (self.functions.model_open)(device, shape, &mut object, message) })?;
        Ok(ModelObject { object, functions: self.functions })
    }
}

/// Calls, and turns the answer into an error that carries the library's own words.
fn answered(call: impl FnOnce(*mut Message) -> Answer) -> Result<(), BackendError> {
    let mut message = Message { length: 0, text: [0; 508] };
    match call(&mut message) {
        status::OK => Ok(()),
        status => {
            let text = message.text.get(..message.length as usize).unwrap_or_default();
            Err(BackendError::Card { status, text: String::from_utf8_lossy(text).into_owned() })
        }
    }
}

/// A model of the library's.
pub(super) struct ModelObject {
    object: Object,
    functions: Functions,
}

// SAFETY: the library lets any thread use a model, and it is filled by its one owner before it is shared.
unsafe impl Send for ModelObject {}
// SAFETY: as above: what takes `&self` only makes players, whose library half counts references atomically.
unsafe impl Sync for ModelObject {}

impl ModelObject {
    /// Gives it a tensor, as f32.
    pub fn fill(&mut self, tensor: u32, block: u32, values: &[f32]) -> Result<(), BackendError> {
        let (from, count) = (values.as_ptr().cast(), values.len() as u64);
        // SAFETY: the values are so many.
        answered(|message| unsafe {
            (self.functions.model_tensor)(self.object, tensor, block, from, count, super::abi::F32, message)
        })
    }

    /// A player of it.
    pub fn open_player(&self, settings: &Settings) -> Result<PlayerObject, BackendError> {
        let mut object = ptr::null_mut();
        // SAFETY: it writes one pointer.
        answered(|message| unsafe { (self.functions.player_open)(self.object, settings, &mut object, message) })?;
        Ok(PlayerObject { object, functions: self.functions })
    }
}

impl Drop for ModelObject {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; players keep what they need.
        unsafe { (self.functions.model_close)(self.object) };
    }
}

/// A player of the library's.
pub(super) struct PlayerObject {
    object: Object,
    functions: Functions,
}

// SAFETY: the library lets any one thread at a time use a player.
unsafe impl Send for PlayerObject {}

impl PlayerObject {
    pub fn open_prompt(&mut self, states: &[f32]) -> Result<u32, BackendError> {
        let mut number = 0;
        // SAFETY: the states are so many; it writes one number.
        answered(|message| unsafe {
            (self.functions.prompt_open)(self.object, states.as_ptr(), states.len() as u32, &mut number, message)
        })?;
        Ok(number)
    }

    pub fn close_prompt(&mut self, prompt: u32) -> Result<(), BackendError> {
        // SAFETY: no pointers but the object's.
        answered(|message| unsafe { (self.functions.prompt_close)(self.object, prompt, message) })
    }

    /// Tables of the model's shape: `[blocks][hidden]`, `[blocks][2]`, `[blocks]`.
    ///
    /// # Safety
    /// They are as long as that.
    pub unsafe fn open_held(
        &mut self,
        directions: &[f32],
        levels: &[f32],
        limits: &[f32],
    ) -> Result<u32, BackendError> {
        let mut number = 0;
        let (directions, levels, limits) = (directions.as_ptr(), levels.as_ptr(), limits.as_ptr());
        // SAFETY: the caller's promise; it writes one number.
        answered(|message| unsafe {
            (self.functions.held_open)(self.object, directions, levels, limits, &mut number, message)
        })?;
        Ok(number)
    }

    pub fn inject(&mut self, slot: u32, values: &[f32]) -> Result<(), BackendError> {
        let (from, count) = (values.as_ptr(), values.len() as u64);
        // SAFETY: the values are so many.
        answered(|message| unsafe { (self.functions.inject)(self.object, slot, from, count, message) })
    }

    pub fn step(&mut self, step: &Step, drawn: &mut Drawn) -> Result<(), BackendError> {
        // SAFETY: both are ours and of the interface's own types.
        answered(|message| unsafe { (self.functions.step)(self.object, step, drawn, message) })
    }

    pub fn read(&self, what: u32, index: u32, out: &mut [f32]) -> Result<(), BackendError> {
        let (to, count) = (out.as_mut_ptr(), out.len() as u64);
        // SAFETY: there is room for so many.
        answered(|message| unsafe { (self.functions.read)(self.object, what, index, to, count, message) })
    }
}

impl Drop for PlayerObject {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { (self.functions.player_close)(self.object) };
    }
}

/// A codec of the library's.
pub(super) struct CodecObject {
    object: Object,
    functions: Functions,
}

// SAFETY: the library lets any thread use a codec, and it is filled by its one owner before it is shared.
unsafe impl Send for CodecObject {}
// SAFETY: as above: what takes `&self` only makes streams, whose library half counts references atomically.
unsafe impl Sync for CodecObject {}

impl CodecObject {
    /// Appends an operation.
    pub fn append(&mut self, facts: &Operation, weight: &[f32], bias: &[f32]) -> Result<(), BackendError> {
        let (weights, biases) = (weight.len() as u64, bias.len() as u64);
        let (weight, bias) = (weight.as_ptr(), bias.as_ptr());
        // SAFETY: the numbers are so many.
        answered(|message| unsafe {
            (self.functions.codec_operation)(self.object, facts, weight, weights, bias, biases, message)
        })
    }

    /// A stream of it, and the most samples that one of its runs makes.
    pub fn open_stream(&self) -> Result<(StreamObject, usize), BackendError> {
        let (mut object, mut most) = (ptr::null_mut(), 0);
        // SAFETY: it writes one pointer and one number.
        answered(|message| unsafe { (self.functions.stream_open)(self.object, &mut object, &mut most, message) })?;
        Ok((StreamObject { object, functions: self.functions }, most as usize))
    }
}

impl Drop for CodecObject {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; streams keep what they need.
        unsafe { (self.functions.codec_close)(self.object) };
    }
}

/// A codec stream of the library's.
pub(super) struct StreamObject {
    object: Object,
    functions: Functions,
}

// SAFETY: the library lets any one thread at a time use a stream.
unsafe impl Send for StreamObject {}

impl StreamObject {
    /// Submits one frame's codes, or with none the end.
    pub fn push(&mut self, codes: &[u32]) -> Result<(), BackendError> {
        // SAFETY: the codes are so many.
        answered(|message| unsafe {
            (self.functions.stream_push)(self.object, codes.as_ptr(), codes.len() as u32, message)
        })
    }

    /// Waits for what was submitted; gives how many samples it made.
    pub fn take(&mut self, out: &mut [f32]) -> Result<usize, BackendError> {
        let mut count = 0;
        // SAFETY: there is room for so many; it writes one number.
        answered(|message| unsafe {
            (self.functions.stream_take)(self.object, out.as_mut_ptr(), out.len() as u64, &mut count, message)
        })?;
        Ok(count as usize)
    }

    /// Back to the start. A card that no longer answers says so at the next push.
    pub fn reset(&mut self) {
        // SAFETY: no pointers but the object's.
        let _ = answered(|message| unsafe { (self.functions.stream_reset)(self.object, message) });
    }
}

impl Drop for StreamObject {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { (self.functions.stream_close)(self.object) };
    }
}

/// The library's file name on this system.
fn file_name() -> String {
    format!("{}tiller_cuda{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Where the library has to be: where the variable says, else beside the file that this code was loaded from.
fn place() -> PathBuf {
    match std::env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => {
            own_file().and_then(|file| Some(file.parent()?.join(file_name()))).unwrap_or_else(|| file_name().into())
        }
    }
}

/// The program or dynamic library that this code is part of.
#[cfg(unix)]
fn own_file() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: all zeros are a valid answer: null pointers.
    let mut facts: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address is of this very function; the loader writes its answer.
    let found = unsafe { libc::dladdr(own_file as *const c_void, &mut facts) };
    if found == 0 || facts.dli_fname.is_null() {
        return std::env::current_exe().ok();
    }
    // SAFETY: a text of the loader's that ends with a 0 and stays as long as the file is loaded.
    let name = unsafe { std::ffi::CStr::from_ptr(facts.dli_fname) };
    std::fs::canonicalize(std::ffi::OsStr::from_bytes(name.to_bytes())).ok()
}

/// As above; the program, where the system has no such call: a plugin's own folder is then named by the variable.
#[cfg(not(unix))]
fn own_file() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_or_not_ours_is_a_typed_error_with_a_remedy() {
        let said = |path: &Path| Library::load(path).err().map(|error| error.to_string()).unwrap_or_default();
        let missing = said(Path::new("/nowhere/libtiller_cuda.so"));
        assert!(missing.contains("/nowhere") && missing.contains("bundle --cuda"), "{missing}");
        let folder = std::env::temp_dir().join(format!("tiller-cuda-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let odd = folder.join(file_name());
        std::fs::write(&odd, b"no library").unwrap();
        assert!(said(&odd).contains("plays on the CPU"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn it_is_looked_for_beside_what_this_code_is_in() {
        let own = own_file().unwrap();
        assert_eq!(own, std::fs::canonicalize(std::env::current_exe().unwrap()).unwrap());
    }
}
