//! An in-process CLAP host on clack-host: what a DAW does with the built bundle. `Host` is the main thread's end,
//! `Player` the audio thread's; a test may keep both on one thread or move the player to another.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
    instance: PluginInstance<Handlers>,
    active: Option<(f64, u32)>,
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
        Ok(Self { instance, active: None })
    }

    fn extension<E>(&mut self, name: &str) -> Outcome<E>
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

    /// Current value of a parameter.
    pub fn value(&mut self, name: &str) -> Outcome<f64> {
        let extension: PluginParams = self.extension("params")?;
        let id = clap_id(name)?;
        extension.get_value(&self.instance.plugin_handle(), id).ok_or_else(|| format!("no parameter `{name}`"))
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
        let extension: PluginParams = self.extension("params")?;
        let id = clap_id(name)?;
        let mut buffer = [0; 256];
        let text = extension
            .value_to_text(&self.instance.plugin_handle(), id, value, &mut buffer)
            .map_err(|_| format!("`{name}` shows no text for {value}"))?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Sets a parameter by its text while the plugin is inactive, as a host does before it plays.
    pub fn set(&mut self, name: &str, text: &str) -> Outcome<()> {
        let value = self.value_of(name, text)?;
        let extension: PluginParams = self.extension("params")?;
        let event = ParamValueEvent::new(0, clap_id(name)?, Pckn::match_all(), value);
        let Some(mut inactive) = self.instance.inactive_plugin_handle() else {
            return Err(format!("`{name}` is to be set while the plugin is inactive"));
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
        Ok(Player::new(started, rate, max_block as usize))
    }

    /// Takes the player back and deactivates.
    pub fn deactivate(&mut self, player: Player) {
        self.instance.deactivate(player.into_processor().stop_processing());
        self.active = None;
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
        let extension: PluginState = self.extension("state")?;
        let mut bytes = Vec::new();
        extension.save(&self.instance.plugin_handle(), &mut bytes).map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    /// Gives the plugin a state back.
    pub fn restore(&mut self, state: &[u8]) -> Outcome<()> {
        let extension: PluginState = self.extension("state")?;
        extension.load(&self.instance.plugin_handle(), &mut std::io::Cursor::new(state)).map_err(|e| e.to_string())
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

/// The typed id of a parameter.
pub fn clap_id(name: &str) -> Outcome<ClapId> {
    ClapId::from_raw(param_id(name)).ok_or_else(|| format!("`{name}` has no valid id"))
}
