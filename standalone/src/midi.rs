//! MIDI inputs, connected to the audio thread's queue. Control thread; what arrives is handed over on a thread of the system's.

use crossbeam_channel::Sender;
use midir::{Ignore, MidiInput, MidiInputConnection};
use nice_plug::prelude::NoteEvent;
use tiller::editor::devices::Midi;

const CLIENT: &str = "Tiller";

/// Open connections; dropping it closes them.
#[derive(Default)]
pub struct Inputs {
    open: Vec<MidiInputConnection<()>>,
}

/// The names of the inputs that there are, without our own.
pub fn names() -> Vec<String> {
    let Ok(midi) = MidiInput::new(CLIENT) else { return Vec::new() };
    let names = midi.ports().into_iter().filter_map(|port| midi.port_name(&port).ok());
    names.filter(|name| !name.starts_with(CLIENT)).collect()
}

impl Inputs {
    /// Connects what is chosen. The second value says, for people, what could not be connected.
    pub fn open(chosen: &Midi, events: &Sender<NoteEvent<()>>) -> (Self, Vec<String>) {
        let wanted: Vec<String> = match chosen {
            Midi::None => Vec::new(),
            Midi::Input(name) => vec![name.clone()],
            Midi::All => names(),
        };
        let (mut inputs, mut troubles) = (Self::default(), Vec::new());
        for name in wanted {
            match connect(&name, events.clone()) {
                Ok(connection) => inputs.open.push(connection),
                Err(why) => troubles.push(format!("The MIDI input {name} cannot be used ({why}).")),
            }
        }
        (inputs, troubles)
    }
}

fn connect(name: &str, events: Sender<NoteEvent<()>>) -> Result<MidiInputConnection<()>, String> {
    let mut midi = MidiInput::new(CLIENT).map_err(|error| error.to_string())?;
    midi.ignore(Ignore::All);
    let port = midi.ports().into_iter().find(|port| midi.port_name(port).is_ok_and(|own| own == name));
    let port = port.ok_or("it is not there")?;
    let take = move |_micros: u64, bytes: &[u8], (): &mut ()| {
        if let Ok(event) = NoteEvent::from_midi(0, bytes) {
            // A full queue has nobody playing from it.
            let _ = events.try_send(event);
        }
    };
    midi.connect(&port, "in", take, ()).map_err(|error| error.to_string())
}
