//! Tying MIDI controllers to parameters: a right click on a slider learns the next controller that moves, or forgets those it
//! has. UI thread.

use egui::{Response, Ui};
use nice_plug::prelude::Param;

use crate::controllers::Learnable;
use crate::instance::Instance;
use crate::params::TillerParams;

/// Gives a control its menu.
pub fn menu(response: &Response, target: Learnable, instance: &Instance) {
    response.context_menu(|ui| {
        let map = &instance.meters.controllers;
        let own = numbers(instance, target);
        if map.learning() == Some(target) {
            ui.label("Move a controller of your MIDI device now.");
            if ui.button("Never mind").clicked() {
                map.learn(None);
                ui.close();
            }
            return;
        }
        if ui.button("Learn a MIDI controller").clicked() {
            map.learn(Some(target));
            ui.close();
        }
        for number in own {
            if ui.button(format!("Forget controller {number}")).clicked() {
                instance.project.edit(|project| _ = project.controllers.remove(&number));
                ui.close();
            }
        }
    });
}

/// Takes over what was learned since the last repaint. Each repaint calls it once.
pub fn settle(instance: &Instance) {
    if let Some((number, target)) = instance.meters.controllers.take_learned() {
        instance.project.edit(|project| _ = project.controllers.insert(number, target));
    }
}

/// A line about what is being learned, if anything is.
pub fn line(ui: &mut Ui, instance: &Instance, params: &TillerParams) {
    let map = &instance.meters.controllers;
    let Some(target) = map.learning() else { return };
    ui.horizontal(|ui| {
        ui.label(format!("{} will follow the next MIDI controller that moves.", name(params, target)));
        if ui.button("Never mind").clicked() {
            map.learn(None);
        }
    });
}

/// What hosts call the parameter.
pub fn name(params: &TillerParams, target: Learnable) -> &str {
    match target {
        Learnable::Note => params.note.name(),
        Learnable::NoteStrength => params.note_strength.name(),
        Learnable::ChordRoot => params.chord_root.name(),
        Learnable::ChordQuality => params.chord_quality.name(),
        Learnable::ChordStrength => params.chord_strength.name(),
        Learnable::TempoStrength => params.tempo_strength.name(),
        Learnable::Trait1 => params.trait_1_strength.name(),
        Learnable::Trait2 => params.trait_2_strength.name(),
        Learnable::Trait3 => params.trait_3_strength.name(),
        Learnable::Trait4 => params.trait_4_strength.name(),
        Learnable::Strength => params.strength.name(),
        Learnable::Attack => params.attack.name(),
        Learnable::Release => params.release.name(),
        Learnable::Temperature => params.temperature.name(),
        Learnable::Guidance => params.guidance.name(),
        Learnable::TopK => params.top_k.name(),
        Learnable::Gain => params.gain.name(),
        Learnable::Bypass => params.bypass.name(),
    }
}

/// The controllers that move a parameter.
fn numbers(instance: &Instance, target: Learnable) -> Vec<u8> {
    let project = instance.project.project();
    project.controllers.iter().filter(|(_, own)| **own == target).map(|(number, _)| *number).collect()
}
