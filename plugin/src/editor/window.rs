//! An open window and its handle, as nice-plug keeps them: nice-plug-egui's own, and the gate that is shut while it comes and
//! goes. Main thread.

use std::sync::Arc;

use nice_plug::editor::dpi::NativeSize;
use nice_plug::editor::{EditorHandle, ParentWindowHandle};
use nice_plug_egui::{EguiEditorHandle, baseview};

use crate::editor::gate::Gate;

/// A window. It is dropped after its [`Handle`].
pub struct Window {
    window: baseview::Window,
    /// Last: the window has closed by then.
    _settles: Settles,
}

/// Says that the window has closed.
struct Settles(Arc<Gate>);

impl Drop for Settles {
    fn drop(&mut self) {
        self.0.settles();
    }
}

/// What the host does with a window.
pub struct Handle {
    inner: EguiEditorHandle,
    gate: Arc<Gate>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.gate.moves();
    }
}

impl Handle {
    /// Both parts of a window that has opened.
    pub fn of(inner: EguiEditorHandle, window: baseview::Window, gate: &Arc<Gate>) -> (Self, Window) {
        (Self { inner, gate: gate.clone() }, Window { window, _settles: Settles(gate.clone()) })
    }
}

impl EditorHandle for Handle {
    type Window = Window;
    type Error = baseview::Error;

    fn run_until_closed(window: Self::Window) -> Result<(), Self::Error> {
        EguiEditorHandle::run_until_closed(window.window)
    }

    fn set_parent(&self, parent: ParentWindowHandle, window: &Self::Window) -> Result<(), Self::Error> {
        self.inner.set_parent(parent, &window.window)
    }

    fn show(&self, window: &Self::Window) -> Result<(), Self::Error> {
        let shown = self.inner.show(&window.window);
        // The last thing before the host has the window.
        self.gate.settles();
        shown
    }

    fn hide(&self, window: &Self::Window) -> Result<(), Self::Error> {
        self.inner.hide(&window.window)
    }

    fn set_size(&self, new_size: NativeSize<u32>, window: &Self::Window) -> Result<(), Self::Error> {
        self.inner.set_size(new_size, &window.window)
    }

    fn host_main_thread_callback(&self, window: &Self::Window) {
        self.inner.host_main_thread_callback(&window.window);
    }

    fn adjust_size(&self, new_size: NativeSize<u32>, window: &Self::Window) -> Option<NativeSize<u32>> {
        self.inner.adjust_size(new_size, &window.window)
    }

    fn set_fallback_scale_factor(&self, scale_factor: f64, window: &Self::Window) -> Result<(), Self::Error> {
        self.inner.set_fallback_scale_factor(scale_factor, &window.window)
    }

    fn state_changed(&self) {
        self.inner.state_changed();
    }

    fn param_value_changed(&self, id: &str, normalized_value: f32) {
        self.inner.param_value_changed(id, normalized_value);
    }

    fn param_modulation_changed(&self, id: &str, modulation_offset: f32) {
        self.inner.param_modulation_changed(id, modulation_offset);
    }
}
