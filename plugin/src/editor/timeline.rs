//! The last ten seconds over one time axis: which pitch classes were heard, with the target marked, and below that what each
//! strength lane said. Beside the picture stand target and sound in large letters, and the lanes' sliders. UI thread.

use egui::{
    Align2, Color32, ColorImage, Mesh, Painter, Rect, Sense, Shape, Stroke, TextureHandle, TextureOptions, Ui, pos2,
    vec2,
};
use nice_plug::prelude::{FloatParam, Param};
use tiller_engine::control::PitchClass;

use crate::controllers::Learnable;
use crate::editor::chords::chord_name;
use crate::editor::desk::Desk;
use crate::editor::history::{COLUMNS, Column, History};
use crate::editor::{learning, slider, theme, traits};
use crate::monitor::LANES;
use crate::params::TillerParams;
use crate::target::Target;

/// Least and most height of a lane.
const LANE: (f32, f32) = (26.0, 40.0);
const LANE_GAP: f32 = 2.0;
/// Lowest picture of the pitch classes: twelve rows.
const LOWEST: f32 = 12.0 * 7.0;

/// Where things lie from left to right, in every row.
struct Grid {
    names: Rect,
    picture: Rect,
    controls: Rect,
}

impl Grid {
    fn of(row: Rect) -> Self {
        let names = (0.09 * row.width()).clamp(48.0, 68.0);
        let controls = (0.36 * row.width()).clamp(210.0, 430.0);
        let (left, right) = (row.left() + names, row.right() - controls);
        let between = |from: f32, to: f32| Rect::from_min_max(pos2(from, row.top()), pos2(to, row.bottom()));
        Self {
            names: between(row.left(), left - theme::GAP),
            picture: between(left, right - theme::GAP),
            controls: between(right, row.right()),
        }
    }
}

/// A strength over time.
struct Lane<'a> {
    name: &'static str,
    param: &'a FloatParam,
    target: Learnable,
    /// What it steers to, where it steers to one of several.
    aim: Option<fn(Target) -> Option<String>>,
}

/// Lanes that are always seen. Those after them, the user's own traits, fold away.
const ALWAYS: usize = 4;

/// The lanes in the order of [`crate::monitor`]'s strengths.
fn lanes(params: &TillerParams) -> [Lane<'_>; LANES] {
    let own = |place: usize, param| {
        let (name, target) = traits::LANES[place];
        Lane { name, param, target, aim: None }
    };
    [
        Lane {
            name: "Note",
            param: &params.note_strength,
            target: Learnable::NoteStrength,
            aim: Some(|target| target.note.map(|note| note.name().to_owned())),
        },
        Lane {
            name: "Chord",
            param: &params.chord_strength,
            target: Learnable::ChordStrength,
            aim: Some(|target| target.chord.map(chord_name)),
        },
        Lane { name: "Tempo", param: &params.tempo_strength, target: Learnable::TempoStrength, aim: None },
        Lane { name: "Master", param: &params.strength, target: Learnable::Strength, aim: None },
        own(0, &params.trait_1_strength),
        own(1, &params.trait_2_strength),
        own(2, &params.trait_3_strength),
        own(3, &params.trait_4_strength),
    ]
}

/// What the moment is like.
#[derive(Clone, Copy)]
pub struct Now {
    /// The history has grown since the last repaint.
    pub fresh: bool,
    /// A piece is sounding.
    pub sounding: bool,
}

/// What is kept between repaints.
#[derive(Default)]
pub struct Timeline {
    texture: Option<TextureHandle>,
    /// The project has traits; without any there is nothing to show or fold.
    any: bool,
    /// Its traits are put away.
    folded: bool,
}

impl Timeline {
    /// Height that it takes with a picture of the least height.
    pub fn least(&self) -> f32 {
        LOWEST + self.rows() as f32 * (LANE.0 + LANE_GAP) + LANE_GAP
    }

    /// Lanes that are seen, and the row that folds the others away.
    fn rows(&self) -> usize {
        usize::from(self.any) + if self.is_unfolded() { LANES } else { ALWAYS }
    }

    fn is_unfolded(&self) -> bool {
        self.any && !self.folded
    }

    /// Draws it `height` points high. `cover` is drawn over the picture of what is heard, where
    /// there is something more important to say.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        height: f32,
        history: &History,
        now: Now,
        desk: Desk<'_>,
        cover: Option<&mut dyn FnMut(&mut Ui)>,
    ) {
        let params = desk.params;
        self.any = desk.instance.project.project().traits.iter().any(Option::is_some);
        let lanes = lanes(params);
        let tall = (LANE.0 + 0.05 * (height - self.least())).clamp(LANE.0, LANE.1).floor();
        let below = self.rows() as f32 * (tall + LANE_GAP) + LANE_GAP;
        let row = ((height - below) / 12.0).floor().max(LOWEST / 12.0);
        let size = vec2(ui.available_width(), 12.0 * row);
        let (place, response) = ui.allocate_exact_size(size, Sense::hover());
        if let Some(cover) = cover {
            let mut inside = ui.new_child(egui::UiBuilder::new().max_rect(place));
            cover(&mut inside);
        } else {
            let grid = Grid::of(place);
            self.heard(ui, &grid, history, now.fresh);
            let asked = if now.sounding {
                history.newest().target
            } else {
                Target { note: params.note.value().pitch_class(), chord: params.chord() }
            };
            readout(ui.painter(), grid.controls, asked, history, now.sounding);
            response.on_hover_text(
                "The last ten seconds: which of the twelve notes are heard. Amber rows are what the music is steered to.",
            );
        }
        ui.spacing_mut().item_spacing.y = LANE_GAP;
        for (index, lane) in lanes.iter().enumerate() {
            if index == ALWAYS && self.any {
                let text = if self.is_unfolded() { "Traits: hide" } else { "Traits: show" };
                let text = egui::RichText::new(text).size(theme::SMALL).color(theme::QUIET);
                if ui.add(egui::Button::new(text).min_size(vec2(0.0, tall))).clicked() {
                    self.folded = !self.folded;
                }
            }
            if index >= ALWAYS && !self.is_unfolded() {
                break;
            }
            let (place, _) = ui.allocate_exact_size(vec2(size.x, tall), Sense::hover());
            let grid = Grid::of(place);
            let painter = ui.painter();
            let name = grid.names.left_center();
            painter.text(name, Align2::LEFT_CENTER, lane.name, theme::font(theme::BODY), theme::QUIET);
            trace(painter, grid.picture, lane, index, history);
            let controls = Rect::from_center_size(grid.controls.center(), vec2(grid.controls.width(), theme::ROW));
            let response = slider::slider_at(ui, controls, lane.param, desk.setter, theme::ASKED);
            learning::menu(&response, lane.target, desk.instance);
        }
    }

    fn heard(&mut self, ui: &Ui, grid: &Grid, history: &History, fresh: bool) {
        let texture = match &mut self.texture {
            Some(texture) => {
                if fresh {
                    texture.set(picture(history), TextureOptions::NEAREST);
                }
                texture
            }
            none => none.insert(ui.ctx().load_texture("heard", picture(history), TextureOptions::NEAREST)),
        };
        let painter = ui.painter();
        let all = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
        painter.image(texture.id(), grid.picture, all, Color32::WHITE);
        let tall = grid.picture.height() / 12.0;
        let newest = history.newest();
        for row in 0..12 {
            let top = grid.picture.top() + tall * row as f32;
            if row > 0 {
                painter.hline(grid.picture.x_range(), top, Stroke::new(1.0, theme::GROUND));
            }
            let class = 11 - row;
            let Some(name) = PitchClass::new(class as u8) else { continue };
            let colour = if newest.target.holds(name) {
                theme::ASKED
            } else if newest.strongest == Some(class) {
                theme::HEARD
            } else {
                theme::QUIET
            };
            // Where rows are low, only names that do not touch their neighbours'.
            if tall >= 11.0 || matches!(class, 0 | 2 | 4 | 7 | 9 | 11) {
                let at = pos2(grid.names.right(), top + tall / 2.0);
                painter.text(at, Align2::RIGHT_CENTER, name.name(), theme::font(tall.clamp(9.5, 13.0)), colour);
            }
        }
    }
}

/// One pixel for each column and pitch class: heard in its colour, in that of the target where it was asked for.
fn picture(history: &History) -> ColorImage {
    let mut pixels = vec![theme::PANEL; COLUMNS * 12];
    let first = COLUMNS - history.columns().len();
    for (x, column) in (first..).zip(history.columns()) {
        for (class, heard) in column.heard.iter().enumerate() {
            let asked = PitchClass::new(class as u8).is_some_and(|class| column.target.holds(class));
            let (ground, colour) = if asked {
                (theme::PANEL.lerp_to_gamma(theme::ASKED, 0.22), theme::ASKED)
            } else {
                (theme::PANEL, theme::HEARD)
            };
            pixels[(11 - class) * COLUMNS + x] = ground.lerp_to_gamma(colour, heard.powf(1.5));
        }
    }
    ColorImage::new([COLUMNS, 12], pixels)
}

/// What a lane said over time: filled from zero, strong where it steered.
fn trace(painter: &Painter, place: Rect, lane: &Lane<'_>, index: usize, history: &History) {
    painter.rect_filled(place, theme::ROUND, theme::PANEL);
    let inner = place.shrink2(vec2(0.0, 3.0));
    let two_sided = lane.param.string_to_normalized_value("-1").is_some_and(|low| low == 0.0)
        && lane.param.string_to_normalized_value("0") == Some(0.5);
    let y = |value: f32| {
        let part = if two_sided { 0.5 + 0.5 * value } else { value };
        inner.bottom() - inner.height() * part.clamp(0.0, 1.0)
    };
    painter.hline(place.x_range(), y(0.0), Stroke::new(1.0, theme::WELL));
    let width = place.width() / COLUMNS as f32;
    let first = COLUMNS - history.columns().len();
    let mut mesh = Mesh::default();
    let mut labels: Vec<(f32, f32, String)> = Vec::new();
    let mut running: Option<String> = None;
    for (x, column) in (first..).zip(history.columns()) {
        let left = place.left() + width * x as f32;
        let aim = lane.aim.map(|aim| column.strengths.and_then(|_| aim(column.target)));
        if let Some(aim) = &aim {
            match aim {
                Some(name) if running.as_ref() == Some(name) => {
                    if let Some(label) = labels.last_mut() {
                        label.1 = left + width;
                    }
                }
                Some(name) => labels.push((left, left + width, name.clone())),
                None => {}
            }
            running.clone_from(aim);
        }
        bar(&mut mesh, left, width, y, column, index, aim.is_none_or(|aim| aim.is_some()));
    }
    painter.add(Shape::mesh(mesh));
    for (left, right, name) in labels {
        // Narrower than its name, it would run into the next one.
        if right - left >= 22.0 {
            let at = pos2(left + 4.0, place.center().y);
            painter.text(at, Align2::LEFT_CENTER, name, theme::font(theme::SMALL), theme::TEXT);
        }
    }
}

fn bar(mesh: &mut Mesh, left: f32, width: f32, y: impl Fn(f32) -> f32, column: &Column, index: usize, steers: bool) {
    let Some(strengths) = column.strengths else { return };
    let (from, to) = (y(0.0), y(strengths[index]));
    let colour = theme::ASKED.gamma_multiply(if steers { 0.55 } else { 0.15 });
    let (top, bottom) = (from.min(to), from.max(to));
    mesh.add_colored_rect(Rect::from_min_max(pos2(left, top), pos2(left + width, bottom)), colour);
    let edge = theme::ASKED.gamma_multiply(if steers { 1.0 } else { 0.4 });
    mesh.add_colored_rect(Rect::from_min_max(pos2(left, to - 0.75), pos2(left + width, to + 0.75)), edge);
}

/// What is asked for, and what is heard, to be read from afar.
fn readout(painter: &Painter, place: Rect, asked: Target, history: &History, sounding: bool) {
    painter.rect_filled(place, theme::ROUND, theme::PANEL);
    let inner = place.shrink2(vec2(12.0, 8.0));
    let large = (inner.height() * 0.42).min(0.26 * inner.width()).clamp(26.0, 110.0);
    let names = [asked.note.map(|note| note.name().to_owned()), asked.chord.map(chord_name)];
    let wanted: Vec<String> = names.into_iter().flatten().collect();
    let heard = history.newest().strongest.filter(|_| sounding).and_then(|class| PitchClass::new(class as u8));
    let halves = [inner.left(), inner.center().x];
    let title = |x: f32, text: &str| {
        painter.text(pos2(x, inner.top()), Align2::LEFT_TOP, text, theme::font(theme::SMALL), theme::QUIET);
    };
    let number = |x: f32, text: &str, colour: Color32| {
        let middle = inner.top() + theme::SMALL + (inner.height() - theme::SMALL - 18.0) / 2.0;
        let size = if colour == theme::QUIET { 22.0 } else { large };
        // Two targets at once are written smaller.
        let wide = painter.layout_no_wrap(text.to_owned(), theme::font(size), colour).size().x;
        let room = inner.width() / 2.0 - theme::GAP;
        let size = if wide > room { size * room / wide } else { size };
        painter.text(pos2(x, middle), Align2::LEFT_CENTER, text, theme::font(size), colour);
    };
    title(halves[0], "asked for");
    title(halves[1], "heard");
    let shrunk = if wanted.len() > 1 { wanted.join(" ") } else { wanted.first().cloned().unwrap_or_default() };
    if shrunk.is_empty() {
        number(halves[0], "nothing", theme::QUIET);
    } else {
        number(halves[0], &shrunk, theme::ASKED);
    }
    match heard {
        Some(class) => number(halves[1], class.name(), theme::HEARD),
        None => number(halves[1], "silence", theme::QUIET),
    }
    let share = history.share_on_target();
    let line = Rect::from_min_max(pos2(inner.left(), inner.bottom() - 4.0), inner.max);
    painter.rect_filled(line, theme::ROUND, theme::WELL);
    if let Some(share) = share {
        let filled = Rect::from_min_size(line.min, vec2(line.width() * share, line.height()));
        painter.rect_filled(filled, theme::ROUND, theme::ASKED);
        let text = format!("{:.0} % of the last ten seconds on target", 100.0 * share);
        let at = line.left_top() - vec2(0.0, 3.0);
        painter.text(at, Align2::LEFT_BOTTOM, text, theme::font(theme::SMALL), theme::QUIET);
    }
}
