//! What a plugin asks of its host, answered for one instrument in one window.

use std::collections::HashSet;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use nice_plug::context::PluginApi;
use nice_plug::context::process::SendEventError;
use nice_plug::prelude::{
    ActivateContext, GuiContextInner, NoteEvent, ParamPtr, Params, PluginState, ProcessContext, Transport,
};
use tiller::Tiller;

use crate::session;

/// While the instrument is activated. Latency concerns nobody: there is nothing else to be in time with.
pub struct Activation;

impl ActivateContext<Tiller> for Activation {
    fn plugin_api(&self) -> PluginApi {
        PluginApi::Standalone
    }

    fn execute(&self, _task: tiller::editor::gate::Task) {}

    fn set_latency_samples(&self, _samples: u32) {}

    fn set_current_voice_capacity(&self, _capacity: u32) {}
}

/// While a block is played. Audio thread.
pub struct Moment<'a> {
    /// From the MIDI inputs; everything in it belongs to this block.
    pub events: &'a Receiver<NoteEvent<()>>,
    /// Says nothing: there is no transport, so the Play button or a key starts the music.
    pub transport: &'a Transport,
}

impl ProcessContext<Tiller> for Moment<'_> {
    fn plugin_api(&self) -> PluginApi {
        PluginApi::Standalone
    }

    fn execute_background(&self, _task: tiller::editor::gate::Task) {}

    fn execute_gui(&self, _task: tiller::editor::gate::Task) {}

    fn transport(&self) -> &Transport {
        self.transport
    }

    fn next_event(&mut self) -> Option<NoteEvent<()>> {
        self.events.try_recv().ok()
    }

    fn try_send_event(&mut self, event: NoteEvent<()>) -> Result<(), (NoteEvent<()>, SendEventError)> {
        Err((event, SendEventError::NoOutputBuffer))
    }

    fn set_latency_samples(&self, _samples: u32) {}

    fn request_restart(&self) {}

    fn set_current_voice_capacity(&self, _capacity: u32) {}
}

/// While the window is open. Main thread.
pub struct Window {
    params: Arc<dyn Params>,
    known: HashSet<ParamPtr>,
}

impl Window {
    /// For an instrument with these parameters.
    pub fn new(params: Arc<dyn Params>) -> Self {
        let known = params.param_map().into_iter().map(|(_, ptr, _)| ptr).collect();
        Self { params, known }
    }
}

impl GuiContextInner for Window {
    fn plugin_api(&self) -> PluginApi {
        PluginApi::Standalone
    }

    unsafe fn raw_begin_set_parameter(&self, _param: ParamPtr) {}

    unsafe fn raw_set_parameter_normalized(&self, param: ParamPtr, normalized: f32) {
        if self.known.contains(&param) {
            // SAFETY: it is one of `params`, which this holds. Its value is an atomic that the audio thread reads.
            unsafe { param._internal_set_normalized_value(normalized) };
        }
    }

    unsafe fn raw_end_set_parameter(&self, _param: ParamPtr) {}

    fn get_state(&self) -> PluginState {
        session::state_of(&*self.params)
    }

    fn set_state(&self, state: PluginState) {
        session::restore(&*self.params, &state);
    }

    fn request_restart(&self) {}
}
