//! What makes a keymap and a state of the X server's keyboard.

use std::ffi::c_void;
use std::sync::OnceLock;

use libloading::{Error, Library};

use crate::{xkb_context, xkb_keymap, xkb_keymap_compile_flags, xkb_state, xkbcommon_option};

/// A connection of libxcb's.
pub type xcb_connection_t = c_void;

type StateNew = unsafe extern "C" fn(*mut xkb_keymap, *mut xcb_connection_t, i32) -> *mut xkb_state;

/// Functions of libxkbcommon-x11.
pub struct XkbCommonX11 {
    pub xkb_x11_get_core_keyboard_device_id: unsafe extern "C" fn(*mut xcb_connection_t) -> i32,
    pub xkb_x11_keymap_new_from_device:
        unsafe extern "C" fn(*mut xkb_context, *mut xcb_connection_t, i32, xkb_keymap_compile_flags) -> *mut xkb_keymap,
    /// Takes the caller's reference to the keymap over.
    pub xkb_x11_state_new_from_device: StateNew,
    state_new: StateNew,
    _library: Library,
}

impl XkbCommonX11 {
    fn open() -> Result<Self, Error> {
        // SAFETY: as the other library's.
        unsafe {
            let library = Library::new("libxkbcommon-x11.so.0").or_else(|_| Library::new("libxkbcommon-x11.so"))?;
            Ok(Self {
                xkb_x11_get_core_keyboard_device_id: *library.get(b"xkb_x11_get_core_keyboard_device_id\0")?,
                xkb_x11_keymap_new_from_device: *library.get(b"xkb_x11_keymap_new_from_device\0")?,
                xkb_x11_state_new_from_device: state_with_its_keymap,
                state_new: *library.get(b"xkb_x11_state_new_from_device\0")?,
                _library: library,
            })
        }
    }
}

/// The library, where it and [`xkbcommon_option`] are there.
pub fn xkbcommon_x11_option() -> Option<&'static XkbCommonX11> {
    static LIBRARY: OnceLock<Option<XkbCommonX11>> = OnceLock::new();
    LIBRARY.get_or_init(|| xkbcommon_option().and_then(|_| XkbCommonX11::open().ok())).as_ref()
}

/// # Safety
/// As `xkb_x11_state_new_from_device`; and the keymap is no longer the caller's.
unsafe extern "C" fn state_with_its_keymap(
    keymap: *mut xkb_keymap,
    connection: *mut xcb_connection_t,
    device: i32,
) -> *mut xkb_state {
    let (Some(common), Some(x11)) = (xkbcommon_option(), xkbcommon_x11_option()) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the caller's promise. The state has a reference of its own.
    unsafe {
        let state = (x11.state_new)(keymap, connection, device);
        (common.xkb_keymap_unref)(keymap);
        state
    }
}
