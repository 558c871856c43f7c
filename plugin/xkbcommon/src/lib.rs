//! libxkbcommon, opened at run time, by the names that baseview 0.4.2 knows from the crate xkbcommon-dl. The thread of a window.
//!
//! Each window of baseview's makes a keymap and a state that refers to it, and releases the state alone (its
//! src/wrappers/xkbcommon.rs, `XkbcommonState::new`: what `xkb_x11_keymap_new_from_device` returns is the caller's to release,
//! and is never released). The keymap, with the context that it refers to, stays for ever: 53 KB for each opening of the editor
//! with one layout, more with several. Neither is to be reached from outside of baseview. So this crate stands in the place of
//! xkbcommon-dl, and its [`x11::XkbCommonX11::xkb_x11_state_new_from_device`] takes the caller's keymap over.
//!
//! That would be one release too many for a baseview that has been mended: the version table of the workspace pins it, and this
//! crate goes with the pin. Should anything else in the workspace come to need xkbcommon-dl, it will not compile.

#![cfg(target_os = "linux")]
// The C library's names.
#![allow(non_camel_case_types)]

pub mod x11;

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

use libloading::{Error, Library};

/// A key, as the X server counts them.
pub type xkb_keycode_t = u32;

/// An atom table and where to look for files.
#[repr(C)]
pub struct xkb_context([u8; 0]);

/// What the keys say.
#[repr(C)]
pub struct xkb_keymap([u8; 0]);

/// Which keys are down.
#[repr(C)]
pub struct xkb_state([u8; 0]);

/// How a context is made.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum xkb_context_flags {
    XKB_CONTEXT_NO_FLAGS = 0,
}

/// How a keymap is made.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum xkb_keymap_compile_flags {
    XKB_KEYMAP_COMPILE_NO_FLAGS = 0,
}

/// Where a key went.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum xkb_key_direction {
    XKB_KEY_UP = 0,
    XKB_KEY_DOWN = 1,
}

/// Functions of libxkbcommon.
pub struct XkbCommon {
    pub xkb_context_new: unsafe extern "C" fn(xkb_context_flags) -> *mut xkb_context,
    pub xkb_context_unref: unsafe extern "C" fn(*mut xkb_context),
    pub xkb_state_unref: unsafe extern "C" fn(*mut xkb_state),
    pub xkb_state_key_get_utf8: unsafe extern "C" fn(*mut xkb_state, xkb_keycode_t, *mut c_char, usize) -> c_int,
    pub xkb_state_update_key: unsafe extern "C" fn(*mut xkb_state, xkb_keycode_t, xkb_key_direction) -> u32,
    xkb_keymap_unref: unsafe extern "C" fn(*mut xkb_keymap),
    _library: Library,
}

impl XkbCommon {
    fn open() -> Result<Self, Error> {
        // SAFETY: a library that does nothing when it is opened; the types are those of its headers.
        unsafe {
            let library = Library::new("libxkbcommon.so.0").or_else(|_| Library::new("libxkbcommon.so"))?;
            Ok(Self {
                xkb_context_new: *library.get(b"xkb_context_new\0")?,
                xkb_context_unref: *library.get(b"xkb_context_unref\0")?,
                xkb_state_unref: *library.get(b"xkb_state_unref\0")?,
                xkb_state_key_get_utf8: *library.get(b"xkb_state_key_get_utf8\0")?,
                xkb_state_update_key: *library.get(b"xkb_state_update_key\0")?,
                xkb_keymap_unref: *library.get(b"xkb_keymap_unref\0")?,
                _library: library,
            })
        }
    }
}

/// The library, where it is there.
pub fn xkbcommon_option() -> Option<&'static XkbCommon> {
    static LIBRARY: OnceLock<Option<XkbCommon>> = OnceLock::new();
    LIBRARY.get_or_init(|| XkbCommon::open().ok()).as_ref()
}
