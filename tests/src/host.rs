//! An in-process CLAP host on clack-host: what a DAW does with the built bundle. `Host` is the main thread's end,
//! `Player` the audio thread's; a test may keep both on one thread or move the player to another.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use clack_extensions::audio_ports_config::{AudioPortsConfigBuffer, PluginAudioPortsConfig};
use clack_extensions::gui::{GuiSize, HostGui, HostGuiImpl};
use clack_extensions::latency::{HostLatency, HostLatencyImpl, PluginLatency};
use clack_extensions::log::{HostLog, HostLogImpl, LogSeverity};
use clack_extensions::params::{
    HostParams, HostParamsImplMainThread, HostParamsImplShared, ParamClearFlags, ParamInfoBuffer, ParamInfoFlags,
    ParamRescanFlags, PluginParams,
};
use clack_extensions::render::{PluginRender, RenderMode};
use clack_extensions::state::{HostState, HostStateImpl, PluginState};
use clack_host::events::event_types::ParamValueEvent;
use clack_host::prelude::*;

use crate::player::Player;

/// Id of the instrument inside the bundle.
pub const PLUGIN_ID: &str = "org.tiller.tiller";

/// What goes wrong in a host, for a person.
pub type Outcome<T> = Result<T, String>;

/// The dev bundle that `cargo xtask test` makes, or `TILLER_BUNDLE`.
///
/// # Errors
/// There is none, or it is older than the library that cargo built after it.
pub fn dev_bundle() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("TILLER_BUNDLE") {
        return Ok(PathBuf::from(path));
    }
    // A test's program lies in target/debug/deps.
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let debug = program.ancestors().find(|p| p.ends_with("debug")).ok_or("the test does not run from target/debug")?;
    let bundle = debug.with_file_name("bundled").join("dev/Tiller.clap");
    let age = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let library = debug.join(format!("{}tiller{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    match (age(&bundle), age(&library)) {
        (Some(made), Some(built)) if made < built => {
            Err(format!("{} is older than {}: cargo xtask bundle --profile dev", bundle.display(), library.display()))
        }
        (Some(_), _) => Ok(bundle),
        (None, _) => Err(format!("{} is missing: cargo xtask bundle --profile dev", bundle.display())),
    }
}

/// The id that the CLAP side of nice-plug gives a parameter: hosts store it, so it is as frozen as the name.
pub fn param_id(name: &str) -> u32 {
    name.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) & !(1 << 31)
}

/// One parameter as the plugin lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Stable id.
    pub id: u32,
    /// Name for people.
    pub name: String,
    /// Largest value; the smallest is 0 (nice-plug shows CLAP hosts normalised values).
    pub max: f64,
    /// Default value.
    pub default: f64,
    /// May be automated.
    pub automatable: bool,
}

/// What the plugin asked of the host.
#[derive(Default)]
pub struct Shared {
    restart: AtomicBool,
    callback: AtomicBool,
    latency_changes: AtomicU32,
    log: Mutex<Vec<String>>,
}

/// Callbacks for the main thread.
pub struct MainThread<'a>(&'a Shared);

/// Names the callback types for clack.
pub struct Handlers;

impl HostHandlers for Handlers {
    type Shared<'a> = Shared;
    type MainThread<'a> = MainThread<'a>;
    type AudioProcessor<'a> = ();

    fn declare_extensions(builder: &mut HostExtensions<Self>, _shared: &Shared) {
        builder.register::<HostLog>().register::<HostLatency>().register::<HostParams>().register::<HostState>();
        builder.register::<HostGui>();
    }
}

impl SharedHandler<'_> for Shared {
    fn request_restart(&self) {
        self.restart.store(true, Ordering::Release);
    }
    fn request_process(&self) {}
    fn request_callback(&self) {
        self.callback.store(true, Ordering::Release);
    }
}

impl HostLogImpl for Shared {
    fn log(&self, severity: LogSeverity, message: &str) {
        if let Ok(mut log) = self.log.lock() {
            log.push(format!("{severity} {message}"));
        }
    }
}

impl HostGuiImpl for Shared {
    fn resize_hints_changed(&self) {}
    fn request_resize(&self, _size: GuiSize) -> Result<(), HostError> {
        Ok(())
    }
    fn request_show(&self) -> Result<(), HostError> {
        Ok(())
    }
    fn request_hide(&self) -> Result<(), HostError> {
        Ok(())
    }
    fn closed(&self, _was_destroyed: bool) {}
}

impl HostParamsImplShared for Shared {
    fn request_flush(&self) {}
}

impl<'a> MainThreadHandler<'a> for MainThread<'a> {}

impl HostLatencyImpl for MainThread<'_> {
    fn changed(&self) {
        self.0.latency_changes.fetch_add(1, Ordering::Relaxed);
    }
}

impl HostParamsImplMainThread for MainThread<'_> {
    fn rescan(&self, _flags: ParamRescanFlags) {}
    fn clear(&self, _param_id: ClapId, _flags: ParamClearFlags) {}
}

impl HostStateImpl for MainThread<'_> {
    fn mark_dirty(&self) {}
}

/// One instance of the plugin, seen from the main thread.
pub struct Host {
    pub(crate) instance: PluginInstance<Handlers>,
    active: Option<(f64, u32)>,
    /// Of the main output, as its layout says.
    channels: usize,
}

impl Host {
    /// Loads the bundle and makes an instance of the instrument.
    ///
    /// # Errors
    /// The file cannot be loaded, or holds no instrument of our id.
    pub fn load(bundle: &Path) -> Outcome<Self> {
        let info = HostInfo::new("Tiller tests", "Tiller", "", "1").map_err(|e| e.to_string())?;
        // SAFETY: the bundle is our own plugin; loading it runs its initialisers, which is what is to be tested.
        let entry = unsafe { PluginEntry::load(bundle) }.map_err(|e| format!("{}: {e}", bundle.display()))?;
        let id = CString::new(PLUGIN_ID).map_err(|e| e.to_string())?;
        let instance = PluginInstance::new(|()| Shared::default(), |shared| MainThread(shared), &entry, &id, &info)
            .map_err(|e| format!("{}: {e}", bundle.display()))?;
        Ok(Self { instance, active: None, channels: 2 })
    }

    pub(crate) fn extension<E>(&mut self, name: &str) -> Outcome<E>
    where
        E: clack_host::extensions::Extension<ExtensionSide = clack_host::extensions::PluginExtensionSide>,
    {
        self.instance.plugin_handle().get_extension::<E>().ok_or_else(|| format!("the plugin has no {name} extension"))
    }

    /// Every parameter, in the plugin's order.
    pub fn params(&mut self) -> Outcome<Vec<Param>> {
        let extension: PluginParams = self.extension("params")?;
        let handle = self.instance.plugin_handle();
        let mut buffer = ParamInfoBuffer::new();
        let mut params = Vec::new();
        for index in 0..extension.count(&handle) {
            let info =
                extension.get_info(&handle, index, &mut buffer).ok_or_else(|| format!("no parameter {index}"))?;
            params.push(Param {
                id: info.id.get(),
                name: String::from_utf8_lossy(info.name).into_owned(),
                max: info.max_value,
                default: info.default_value,
                automatable: info.flags.contains(ParamInfoFlags::IS_AUTOMATABLE),
            });
        }
        Ok(params)
    }

    /// Selects the layout whose main output has so many channels, while inactive.
    ///
    /// # Errors
    /// There is none, or the plugin refuses.
    pub fn select_layout(&mut self, channels: usize) -> Outcome<()> {
        let extension: PluginAudioPortsConfig = self.extension("audio-ports-config")?;
        let handle = self.instance.plugin_handle();
        let mut buffer = AudioPortsConfigBuffer::new();
        for index in 0..extension.count(&handle) {
            let Some(layout) = extension.get(&handle, index, &mut buffer) else { continue };
            if layout.main_output.is_some_and(|port| port.channel_count as usize == channels) {
                extension.select(&handle, layout.id).map_err(|e| e.to_string())?;
                self.channels = channels;
                return Ok(());
            }
        }
        Err(format!("no layout has {channels} channels"))
    }

    /// Current value of a parameter.
    pub fn value(&mut self, name: &str) -> Outcome<f64> {
        self.value_by_id(clap_id(name)?).map_err(|_| format!("no parameter `{name}`"))
    }

    /// As [`Host::value`], by id.
    pub fn value_by_id(&mut self, id: ClapId) -> Outcome<f64> {
        let extension: PluginParams = self.extension("params")?;
        extension.get_value(&self.instance.plugin_handle(), id).ok_or_else(|| format!("no parameter {id}"))
    }

    /// The value that stands for a text such as "C#" or "-6 dB".
    pub fn value_of(&mut self, name: &str, text: &str) -> Outcome<f64> {
        let extension: PluginParams = self.extension("params")?;
        let id = clap_id(name)?;
        let c_text = CString::new(text).map_err(|e| e.to_string())?;
        extension
            .text_to_value(&self.instance.plugin_handle(), id, &c_text)
            .ok_or_else(|| format!("`{name}` does not understand `{text}`"))
    }

    /// The text that a host shows for a value.
    pub fn text_of(&mut self, name: &str, value: f64) -> Outcome<String> {
        self.text_by_id(clap_id(name)?, value).map_err(|_| format!("`{name}` shows no text for {value}"))
    }

    /// As [`Host::text_of`], by id.
    pub fn text_by_id(&mut self, id: ClapId, value: f64) -> Outcome<String> {
        let extension: PluginParams = self.extension("params")?;
        let mut buffer = [0; 256];
        let text = extension
            .value_to_text(&self.instance.plugin_handle(), id, value, &mut buffer)
            .map_err(|_| format!("parameter {id} shows no text for {value}"))?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Sets a parameter by its text while the plugin is inactive, as a host does before it plays.
    pub fn set(&mut self, name: &str, text: &str) -> Outcome<()> {
        let value = self.value_of(name, text)?;
        self.set_raw(clap_id(name)?, value)
    }

    /// Sets a parameter to a value, whatever it is, while the plugin is inactive.
    pub fn set_raw(&mut self, id: ClapId, value: f64) -> Outcome<()> {
        let extension: PluginParams = self.extension("params")?;
        let event = ParamValueEvent::new(0, id, Pckn::match_all(), value);
        let Some(mut inactive) = self.instance.inactive_plugin_handle() else {
            return Err(format!("parameter {id} is to be set while the plugin is inactive"));
        };
        let mut output = EventBuffer::new();
        extension.flush(
            &mut inactive,
            &InputEvents::from_buffer(&[event]),
            &mut OutputEvents::from_buffer(&mut output),
        );
        Ok(())
    }

    /// Activates for this rate and largest block and starts processing.
    pub fn activate(&mut self, rate: f64, max_block: u32) -> Outcome<Player> {
        let configuration =
            PluginAudioConfiguration { sample_rate: rate, min_frames_count: 1, max_frames_count: max_block };
        let stopped = self.instance.activate(|_, _| (), configuration).map_err(|e| e.to_string())?;
        let started = stopped.start_processing().map_err(|e| e.to_string())?;
        self.active = Some((rate, max_block));
        Ok(Player::new(started, rate, max_block as usize, self.channels))
    }

    /// Takes the player back and deactivates.
    pub fn deactivate(&mut self, player: Player) {
        self.instance.deactivate(player.into_processor().stop_processing());
        self.active = None;
    }

    /// What a host sends to an active plugin that it does not pull: parameters without any buffer.
    pub fn flush_active(&mut self, player: &mut Player, changes: &[(&str, f64)]) -> Outcome<()> {
        let extension: PluginParams = self.extension("params")?;
        let mut input = EventBuffer::new();
        for (name, value) in changes {
            input.push(&ParamValueEvent::new(0, clap_id(name)?, Pckn::match_all(), *value));
        }
        let mut output = EventBuffer::new();
        extension.flush_active(&mut player.handle(), &input.as_input(), &mut output.as_output());
        Ok(())
    }

    /// Samples of delay that the plugin reports.
    pub fn latency(&mut self) -> Outcome<u32> {
        let extension: PluginLatency = self.extension("latency")?;
        Ok(extension.get(&self.instance.plugin_handle()))
    }

    /// Says whether what follows is an export. nice-plug answers a change with a request to be activated anew.
    pub fn set_offline(&mut self, offline: bool) -> Outcome<()> {
        let extension: PluginRender = self.extension("render")?;
        let mode = if offline { RenderMode::Offline } else { RenderMode::Realtime };
        extension.set(&self.instance.plugin_handle(), mode).map_err(|e| e.to_string())
    }

    /// The plugin's state, as a project file would hold it.
    pub fn save(&mut self) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        self.save_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Gives the plugin a state back.
    pub fn restore(&mut self, state: &[u8]) -> Outcome<()> {
        self.restore_from(&mut std::io::Cursor::new(state))
    }

    /// Gives the plugin a state that it must read for itself.
    pub fn restore_from(&mut self, reader: &mut impl std::io::Read) -> Outcome<()> {
        let extension: PluginState = self.extension("state")?;
        extension.load(&self.instance.plugin_handle(), reader).map_err(|e| e.to_string())
    }

    /// As [`Host::save`], into whatever takes the bytes.
    pub fn save_to(&mut self, writer: &mut impl std::io::Write) -> Outcome<()> {
        let extension: PluginState = self.extension("state")?;
        extension.save(&self.instance.plugin_handle(), writer).map_err(|e| e.to_string())
    }

    /// Does on the main thread what the plugin asked for, a restart apart. Call it while another thread plays.
    pub fn pump(&mut self) {
        if self.instance.access_shared_handler(|shared| shared.callback.swap(false, Ordering::AcqRel)) {
            self.instance.call_on_main_thread_callback();
        }
    }

    /// Whether the plugin asked to be deactivated and activated since the last call.
    pub fn restart_wanted(&self) -> bool {
        self.instance.access_shared_handler(|shared| shared.restart.swap(false, Ordering::AcqRel))
    }

    /// What the plugin wrote into the host's log.
    pub fn log(&self) -> Vec<String> {
        self.instance.access_shared_handler(|shared| shared.log.lock().map(|log| log.clone()).unwrap_or_default())
    }
}

/// The typed id of a parameter that the plugin listed.
pub fn raw_id(id: u32) -> Outcome<ClapId> {
    ClapId::from_raw(id).ok_or_else(|| format!("{id} is no id"))
}

/// The typed id of a parameter.
pub fn clap_id(name: &str) -> Outcome<ClapId> {
    ClapId::from_raw(param_id(name)).ok_or_else(|| format!("`{name}` has no valid id"))
}
