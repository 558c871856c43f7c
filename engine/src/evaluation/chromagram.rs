//! A picture of what the ear heard: pitch classes over time, with the targets drawn in. Any thread but the audio one.

use super::chroma::share_on_target;
use super::picture::{self, DrawError, FONT, INK, PictureError, WIDTH, heat};
use crate::dataset::harmony::PITCH_CLASS_NAMES;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// A pitch class that was asked for during a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Pitch class, 0 = C.
    pub pitch_class: usize,
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
}

/// One chromagram of the picture.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// What was played; the share on target is added.
    pub title: &'a str,
    /// Energies from [`super::chroma::Chroma::frames`].
    pub frames: &'a [[f32; 12]],
    /// Seconds per frame.
    pub hop_seconds: f64,
    /// What was asked for.
    pub targets: &'a [Target],
}

const ROW_HEIGHT: u32 = 320;
const OUTLINE: RGBColor = RGBColor(64, 224, 255);

/// The target of each frame: that of the last-listed span that holds the frame's middle.
pub fn targets_per_frame(targets: &[Target], frames: usize, hop_seconds: f64) -> Vec<Option<usize>> {
    let holds = |middle: f64| move |t: &&Target| (t.start..t.end).contains(&middle);
    (0..frames)
        .map(|i| targets.iter().rev().find(holds((i as f64 + 0.5) * hop_seconds)).map(|target| target.pitch_class))
        .collect()
}

/// Writes a PNG with the rows one above the other, all over the same time axis.
///
/// # Errors
/// [`PictureError`] when there is nothing to draw or the file cannot be written.
pub fn draw(path: &Path, title: &str, rows: &[Row]) -> Result<(), PictureError> {
    let seconds = rows.iter().map(|row| row.frames.len() as f64 * row.hop_seconds).fold(0.0, f64::max);
    if seconds <= 0.0 {
        return Err(PictureError::Empty);
    }
    picture::draw(path, title, ROW_HEIGHT, rows.len(), |i, area| draw_row(area, &rows[i], seconds))
}

fn draw_row<'a>(area: &DrawingArea<BitMapBackend<'a>, Shift>, row: &Row, seconds: f64) -> Result<(), DrawError<'a>> {
    let targets = targets_per_frame(row.targets, row.frames.len(), row.hop_seconds);
    let caption = match share_on_target(row.frames, &targets) {
        Some(share) => format!("{}   ({:.0} % of targeted frames on target)", row.title, 100.0 * share),
        None => row.title.to_owned(),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 20).into_font().color(&INK))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(40)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..seconds, 0.0..12.0)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("seconds")
        .x_labels(16)
        .y_labels(0)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .draw()?;
    // One cell per pixel column at most, so that long pieces stay quick to draw.
    let stride = (row.frames.len() / WIDTH as usize).max(1);
    for (i, frames) in row.frames.chunks(stride).enumerate() {
        let start = (i * stride) as f64 * row.hop_seconds;
        let end = start + frames.len() as f64 * row.hop_seconds;
        let mut sum = [0.0f32; 12];
        for frame in frames {
            let top = frame.iter().fold(0.0f32, |a, &b| a.max(b));
            sum.iter_mut().zip(frame).for_each(|(s, e)| *s += if top > 0.0 { e / top } else { 0.0 });
        }
        let cells = sum.iter().enumerate().map(|(pc, s)| {
            let corners = [(start, pc as f64), (end, pc as f64 + 1.0)];
            Rectangle::new(corners, heat(s / frames.len() as f32).filled())
        });
        chart.draw_series(cells)?;
    }
    for target in row.targets {
        let low = (target.pitch_class % 12) as f64;
        let corners = [(target.start.min(seconds), low), (target.end.min(seconds), low + 1.0)];
        chart.draw_series([Rectangle::new(corners, OUTLINE.stroke_width(3))])?;
    }
    let plot = chart.plotting_area();
    for (pc, name) in PITCH_CLASS_NAMES.iter().enumerate() {
        let (x, y) = plot.map_coordinate(&(0.0, pc as f64 + 0.5));
        let (left, top) = area.get_base_pixel();
        let style = (FONT, 16).into_font().color(&INK);
        area.draw(&Text::new(*name, (x - left - 30, y - top - 4), style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_take_the_target_that_holds_their_middle() {
        let targets =
            [Target { pitch_class: 3, start: 0.0, end: 0.2 }, Target { pitch_class: 7, start: 0.16, end: 0.3 }];
        assert_eq!(targets_per_frame(&targets, 4, 0.1), [Some(3), Some(3), Some(7), None]);
        let overlapping = [targets[0], Target { pitch_class: 7, start: 0.14, end: 0.3 }];
        assert_eq!(targets_per_frame(&overlapping, 4, 0.1), [Some(3), Some(7), Some(7), None]);
    }

    #[test]
    fn a_picture_is_written_and_targets_change_it() {
        let frames: Vec<[f32; 12]> =
            (0..50).map(|i| std::array::from_fn(|pc| if pc == i / 5 { 1.0 } else { 0.1 })).collect();
        let targets = [Target { pitch_class: 4, start: 2.0, end: 2.5 }];
        let folder = std::env::temp_dir();
        let file = |name: &str| folder.join(format!("tiller-chromagram-{}-{name}.png", std::process::id()));
        let picture = |name: &str, targets: &[Target]| {
            let row = Row { title: "steered", frames: &frames, hop_seconds: 0.1, targets };
            draw(&file(name), "a test", &[row.clone(), row]).expect("draws");
            let bytes = std::fs::read(file(name)).expect("written");
            std::fs::remove_file(file(name)).expect("removed");
            bytes
        };
        let (with, without) = (picture("with", &targets), picture("without", &[]));
        assert_eq!(with[1..4], *b"PNG");
        assert_ne!(with, without);
        assert!(matches!(draw(&file("none"), "nothing", &[]), Err(PictureError::Empty)));
    }
}
