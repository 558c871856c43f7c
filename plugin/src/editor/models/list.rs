//! The list of models: a row each, with a light that says how it stands. UI thread.

use egui::{Align2, Rect, Role, Sense, Stroke, Ui, WidgetInfo, pos2, vec2};
use tiller_engine::background::{Kind, Standing};
use tiller_engine::models::Origin;

use crate::editor::models::shelf::Known;
use crate::editor::models::{Page, words};
use crate::editor::theme;

/// How a row is to be taken.
struct Row {
    text: String,
    light: Option<egui::Color32>,
}

/// Draws it. Gives the key of the model that was clicked.
pub fn list(ui: &mut Ui, page: Page<'_>, chosen: Option<&str>) -> Option<String> {
    let mut pressed = None;
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing.y = 1.0;
        for known in &page.known.models {
            if row(ui, known, &state(page, known), chosen.is_some_and(|key| known.key() == key)) {
                pressed = Some(known.key());
            }
        }
    });
    pressed
}

/// In a word or two.
fn state(page: Page<'_>, known: &Known) -> Row {
    let say = |text: String, light| Row { text, light: Some(light) };
    let running = |kind: Kind, subject: &str| {
        let report = page.instance.background.report(kind, subject)?;
        (!report.standing.is_over()).then_some(report)
    };
    if let Some(report) = known.download().and_then(|subject| running(Kind::Download, subject)) {
        let verb = if report.standing == Standing::Paused { "paused" } else { "coming" };
        return say(format!("{verb}, {:.0} %", (100.0 * words::part(&report)).floor()), theme::ASKED);
    }
    for (kind, verb) in [(Kind::Learn, "learning"), (Kind::Trial, "tested now")] {
        if running(kind, &known.subject()).is_some() {
            return say(verb.to_owned(), theme::ASKED);
        }
    }
    let entry = &known.entry;
    // What is on its way is no fault.
    let half = entry.source.is_none() && entry.published.is_some() && entry.partial_bytes > 0;
    if entry.problem.is_some() && !half {
        return say("cannot be played".to_owned(), theme::BAD);
    }
    if page.plays(known) {
        return say("in this project".to_owned(), theme::HEARD);
    }
    match (&entry.source, entry.published) {
        (Some(_), _) if entry.origin == Origin::Embedded => say("built in".to_owned(), theme::QUIET),
        (Some(_), _) => say(words::bytes(entry.disk_bytes), theme::QUIET),
        (None, Some(published)) if entry.partial_bytes > 0 => {
            let all = words::bytes(published.bytes);
            Row { text: format!("{} of {all} here", words::bytes(entry.partial_bytes)), light: None }
        }
        (None, Some(published)) => Row { text: format!("{} to get", words::bytes(published.bytes)), light: None },
        (None, None) => Row { text: String::new(), light: None },
    }
}

fn row(ui: &mut Ui, known: &Known, row: &Row, chosen: bool) -> bool {
    let (place, response) = ui.allocate_exact_size(vec2(ui.available_width(), theme::ROW), Sense::click());
    let painter = ui.painter().with_clip_rect(place.intersect(ui.clip_rect()));
    let fill = if chosen {
        theme::LINE
    } else if response.hovered() {
        theme::WELL
    } else {
        egui::Color32::TRANSPARENT
    };
    painter.rect_filled(place, theme::ROUND, fill);
    let middle = place.center().y;
    let light = pos2(place.left() + 10.0, middle);
    match row.light {
        Some(colour) => _ = painter.circle_filled(light, 4.5, colour),
        None => _ = painter.circle_stroke(light, 4.0, Stroke::new(1.0, theme::QUIET)),
    }
    let ink = if known.entry.source.is_some() { theme::TEXT } else { theme::QUIET };
    let at = pos2(place.right() - 8.0, middle);
    let said = painter.text(at, Align2::RIGHT_CENTER, &row.text, theme::font(theme::SMALL), theme::QUIET);
    let name =
        Rect::from_min_max(pos2(place.left() + 22.0, place.top()), pos2(said.left() - theme::GAP, place.bottom()));
    let painter = painter.with_clip_rect(name.intersect(ui.clip_rect()));
    painter.text(name.left_center(), Align2::LEFT_CENTER, &known.entry.name, theme::font(theme::BODY), ink);
    if response.has_focus() {
        theme::focus_ring(ui.painter(), place.shrink(2.0));
    }
    let label = format!("{}, {}", known.entry.name, row.text);
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen, &label));
    response.clicked()
}
