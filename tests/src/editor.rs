//! The plugin's editor in a window of ours, under an X server: opened, shown and closed over and over. Main thread.

use std::time::Duration;

use clack_extensions::gui::{GuiApiType, GuiConfiguration, PluginGui, Window};
use x11rb::COPY_DEPTH_FROM_PARENT;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ConnectionExt, CreateWindowAux, WindowClass};
use x11rb::rust_connection::RustConnection;

use crate::host::{Host, Outcome};

/// A window for the editor to lie in.
pub struct Screen {
    connection: RustConnection,
    window: u32,
}

impl Screen {
    /// Opens it on `DISPLAY`.
    ///
    /// # Errors
    /// There is no X server.
    pub fn open() -> Outcome<Self> {
        let (connection, number) = RustConnection::connect(None).map_err(|e| format!("no X server: {e}"))?;
        let screen = &connection.setup().roots[number];
        let (root, window) = (screen.root, connection.generate_id().map_err(|e| e.to_string())?);
        let (depth, visual) = (COPY_DEPTH_FROM_PARENT, screen.root_visual);
        let shape = CreateWindowAux::new();
        connection
            .create_window(depth, window, root, 0, 0, 1_000, 800, 0, WindowClass::INPUT_OUTPUT, visual, &shape)
            .and_then(|_| connection.map_window(window))
            .map_err(|e| e.to_string())?;
        connection.flush().map_err(|e| e.to_string())?;
        Ok(Self { connection, window })
    }

    /// Windows that lie in ours: the editor's, while it is open.
    pub fn children(&self) -> Outcome<usize> {
        let asked = self.connection.query_tree(self.window).map_err(|e| e.to_string())?;
        Ok(asked.reply().map_err(|e| e.to_string())?.children.len())
    }
}

impl Host {
    /// Opens the editor in the window, keeps it for so long, doing what it asks of the main thread, and closes it.
    ///
    /// # Errors
    /// The plugin has no editor for X11, or will not open it.
    pub fn open_editor(&mut self, screen: &Screen, time: Duration) -> Outcome<()> {
        let gui: PluginGui = self.extension("gui")?;
        let configuration = GuiConfiguration { api_type: GuiApiType::X11, is_floating: false };
        let handle = self.instance.plugin_handle();
        gui.create(&handle, configuration).map_err(|e| e.to_string())?;
        if gui.get_size(&handle).is_none_or(|size| size.width == 0 || size.height == 0) {
            return Err("the editor has no size".to_owned());
        }
        let window = Window::from_x11_handle(screen.window.into());
        // SAFETY: the window lives until `screen` is dropped, after the editor was destroyed.
        unsafe { gui.set_parent(&handle, window) }.map_err(|e| e.to_string())?;
        // Some plugins are shown by being embedded, and say no here.
        let _ = gui.show(&handle);
        let until = std::time::Instant::now() + time;
        while std::time::Instant::now() < until {
            self.pump();
            std::thread::sleep(Duration::from_millis(1).min(time));
        }
        let handle = self.instance.plugin_handle();
        let _ = gui.hide(&handle);
        gui.destroy(&handle);
        Ok(())
    }
}
