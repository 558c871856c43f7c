//! The page of what one sets and leaves: how codes are drawn, when the instrument sounds and how late, how MIDI
//! is taken. UI thread.

use egui::{RichText, Ui};
use tiller_engine::status::Status;

use crate::controllers::Learnable;
use crate::editor::choice::{choice, named_row, option};
use crate::editor::desk::{Desk, group};
use crate::editor::traits::TraitsView;
use crate::editor::{learning, slider, theme};
use crate::params::choices::{Late, Latency, Run};

/// Draws the page: in two columns where there is room for them.
pub fn set_up(ui: &mut Ui, desk: Desk<'_>, traits: &mut TraitsView, status: &Status) {
    if ui.available_width() < 560.0 {
        left(ui, desk, traits, status);
        right(ui, desk);
        return;
    }
    ui.columns(2, |columns| {
        left(&mut columns[0], desk, traits, status);
        right(&mut columns[1], desk);
    });
}

fn left(ui: &mut Ui, desk: Desk<'_>, traits: &mut TraitsView, status: &Status) {
    let params = desk.params;
    group(ui, "How it chooses", |ui| {
        desk.slider(ui, &params.temperature, Learnable::Temperature, theme::QUIET);
        desk.slider(ui, &params.guidance, Learnable::Guidance, theme::QUIET);
        desk.slider(ui, &params.top_k, Learnable::TopK, theme::QUIET);
        note(
            ui,
            "Temperature: how freely. Guidance: how closely it keeps to the prompt. Top k: out of how many sounds at a time.",
        );
    });
    group(ui, "Traits", |ui| traits.settings(ui, desk, status));
}

fn right(ui: &mut Ui, desk: Desk<'_>) {
    let params = desk.params;
    group(ui, "Time", |ui| {
        choice(ui, &params.run, desk.setter);
        note(
            ui,
            match params.run.value() {
                Run::Transport => "Sounds while the host plays, or while Play is on.",
                Run::Free => "Sounds always.",
                Run::Keys => "Sounds while a MIDI key is held.",
            },
        );
        choice(ui, &params.latency, desk.setter);
        if params.latency.value() == Latency::Frames {
            slider::slider(ui, &params.latency_frames, desk.setter, theme::QUIET);
        }
        note(
            ui,
            match params.latency.value() {
                Latency::Tight => "As early as a quiet machine can. The host makes up for it.",
                Latency::Safe => "Room for a busy machine. The host makes up for it.",
                Latency::Frames => "Room for so many frames of 20 ms. The host makes up for it.",
            },
        );
        choice(ui, &params.late, desk.setter);
        note(
            ui,
            match params.late.value() {
                Late::Auto => "Exports wait for the model; live, what is late is left out.",
                Late::Wait => "Always waits for the model: no gaps, but a slow one holds the host up.",
                Late::Fade => "Never waits: what is late is left out.",
            },
        );
    });
    group(ui, "Keys", |ui| {
        keys(ui, desk);
        choice(ui, &params.quantise, desk.setter);
        note(ui, "New targets wait for the host's beat or bar.");
    });
    group(ui, "MIDI controllers", |ui| controllers(ui, desk));
}

fn keys(ui: &mut Ui, desk: Desk<'_>) {
    let project = desk.instance.project.project();
    let (mut latch, mut velocity) = (project.latch, project.velocity);
    named_row(ui, "Held keys", |ui| {
        latch ^= option(ui, "latch", latch);
        velocity ^= option(ui, "velocity", velocity);
    });
    note(ui, "Latch: targets stay until other keys are struck. Velocity: soft keys steer weakly.");
    if (latch, velocity) != (project.latch, project.velocity) {
        desk.instance.project.edit(|project| (project.latch, project.velocity) = (latch, velocity));
    }
}

fn controllers(ui: &mut Ui, desk: Desk<'_>) {
    let project = desk.instance.project.project();
    for (number, target) in &project.controllers {
        ui.horizontal(|ui| {
            ui.label(format!("CC {number}  moves  {}", learning::name(desk.params, *target)));
            if ui.button("Forget").clicked() {
                desk.instance.project.edit(|project| _ = project.controllers.remove(number));
            }
        });
    }
    let id = ui.scope_id().with("learn");
    let mut target = ui.data(|data| data.get_temp::<Learnable>(id)).unwrap_or(Learnable::Strength);
    ui.horizontal(|ui| {
        let menu = egui::ComboBox::from_id_salt("target").width(150.0);
        menu.selected_text(learning::name(desk.params, target)).show_ui(ui, |ui| {
            for one in Learnable::ALL {
                ui.selectable_value(&mut target, one, learning::name(desk.params, one));
            }
        });
        if ui.button("Learn").clicked() {
            desk.instance.meters.controllers.learn(Some(target));
        }
    });
    ui.data_mut(|data| data.insert_temp(id, target));
    note(ui, "Learn, then move the controller that is to move it. A right click on a slider does the same.");
}

fn note(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).size(theme::SMALL).color(theme::QUIET));
}
