//! The editor as hosts see it: a window of a remembered size. It is made anew at each opening, so that a project loaded
//! in between brings its own size. UI thread.

mod app;
mod cadence;
mod cell;
mod choice;
mod chords;
mod desk;
pub mod devices;
mod draft;
mod footer;
pub mod gate;
mod hint;
mod history;
mod keys;
mod learning;
mod meter;
mod model;
pub mod models;
mod preset_menu;
mod set_up;
mod slider;
mod theme;
mod timeline;
mod traits;
mod watcher;
mod window;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use nice_plug::context::gui::GuiContext;
use nice_plug::editor::dpi::{LogicalSize, NativeSize, Size};
use nice_plug::editor::{Editor, HostMethods, ParentWindowHandle, ResizeHint, SpawnedEditor};
use nice_plug_egui::{
    EguiEditor, EguiEditorState, EguiNiceSettings, GraphicsConfig, RepaintNotifier, create_egui_editor,
};
use parking_lot::Mutex;

use crate::editor::app::App;
use crate::editor::devices::Devices;
use crate::editor::gate::Gate;
use crate::editor::window::Handle;
use crate::instance::Instance;
use crate::params::TillerParams;

const DEFAULT_SIZE: (u32, u32) = (960, 640);
const SMALLEST: LogicalSize<f32> = LogicalSize { width: 620.0, height: 440.0 };
const LARGEST: LogicalSize<f32> = LogicalSize { width: 2_400.0, height: 1_800.0 };

/// Opens editor windows for one plugin instance.
pub struct TillerEditor {
    instance: Arc<Instance>,
    params: Arc<TillerParams>,
    /// The standalone application's.
    devices: Option<Arc<dyn Devices>>,
    gate: Arc<Gate>,
    /// The newest window and what it knows of its size.
    window: Mutex<Option<(EguiEditor<App>, Arc<EguiEditorState>)>>,
}

impl TillerEditor {
    /// Opens nothing yet.
    pub fn new(instance: Arc<Instance>, params: Arc<TillerParams>, gate: Arc<Gate>) -> Self {
        Self { instance, params, devices: None, gate, window: Mutex::new(None) }
    }

    /// With a page of these devices, for an application that is its own host.
    pub fn with_devices(self, devices: Arc<dyn Devices>) -> Self {
        Self { devices: Some(devices), ..self }
    }

    fn remembered_size(&self) -> LogicalSize<f64> {
        let (width, height) = self.instance.project.project().window.unwrap_or(DEFAULT_SIZE);
        let within = |side: u32, low: f32, high: f32| f64::from((side as f32).clamp(low, high));
        LogicalSize {
            width: within(width, SMALLEST.width, LARGEST.width),
            height: within(height, SMALLEST.height, LARGEST.height),
        }
    }
}

impl Editor for TillerEditor {
    type Handle = Handle;

    fn spawn(
        &self,
        parent: Option<ParentWindowHandle>,
        wait_for_parent: bool,
        fallback_scale_factor: Option<f64>,
        context: GuiContext,
        host: Option<HostMethods>,
    ) -> Result<SpawnedEditor<Self::Handle>, Box<dyn Error>> {
        self.gate.moves();
        let state = EguiEditorState::from_size(self.remembered_size(), 1.0);
        let settings = EguiNiceSettings {
            title: "Tiller".to_owned(),
            graphics: GraphicsConfig::default(),
            resize_hint: self.resize_hint(),
            // Hosts that move a parameter are followed this closely.
            repaint_poll_interval: Duration::from_millis(33),
        };
        let app = App::new(self.instance.clone(), self.params.clone(), self.devices.clone(), state.clone());
        let editor = create_egui_editor(state.clone(), RepaintNotifier::new(), settings, app)
            .ok_or("the editor's window could not be made")?;
        let spawned = editor.spawn(parent, wait_for_parent, fallback_scale_factor, context, host);
        let spawned = spawned.inspect_err(|_| self.gate.settles())?;
        *self.window.lock() = Some((editor, state));
        let (handle, window) = Handle::of(spawned.handle, spawned.window, &self.gate);
        Ok(SpawnedEditor { handle, window })
    }

    fn size(&self) -> NativeSize<u32> {
        match &*self.window.lock() {
            Some((editor, state)) if state.is_open() => editor.size(),
            _ => {
                // It may open next.
                self.gate.asked();
                NativeSize::from_size(Size::Logical(self.remembered_size()), 1.0)
            }
        }
    }

    fn resize_hint(&self) -> ResizeHint {
        ResizeHint::RESIZABLE.with_min_max_logical_size(Some(SMALLEST), Some(LARGEST))
    }
}
