//! A sheet of spectrograms: what pieces look like over time and frequency. Any thread but the audio one.

use super::picture::{self, DrawError, FONT, INK, PictureError, WIDTH, heat};
use super::spectrum::Spectra;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// One piece of the sheet.
#[derive(Debug, Clone)]
pub struct Strip<'a> {
    /// What was played.
    pub title: &'a str,
    /// Its sound, one channel.
    pub mono: &'a [f32],
    /// Samples per second.
    pub rate: f64,
}

const ROW_HEIGHT: u32 = 240;
/// Hz at the foot of a strip; the top is half the rate. Log scale, as ears have.
const LOWEST: f64 = 50.0;
/// Cells from foot to top.
const CELLS: usize = 150;
/// Samples of one spectrum and from one to the next.
const SIZE: usize = 4096;
/// Level of black under full scale; pale yellow is [`BRIGHT`].
const DARK: f32 = -100.0;
const BRIGHT: f32 = -20.0;
/// Columns this wide and colours this far apart, in dB, keep the file a third of its size: it travels with every clone.
const COLUMN_PIXELS: usize = 3;
const STEP: f32 = 6.0;

/// Writes a PNG with one strip under the other.
///
/// # Errors
/// [`PictureError`] when there is nothing to draw or the file cannot be written.
pub fn draw(path: &Path, title: &str, strips: &[Strip]) -> Result<(), PictureError> {
    if strips.iter().all(|strip| strip.mono.is_empty()) {
        return Err(PictureError::Empty);
    }
    picture::draw(path, title, ROW_HEIGHT, strips.len(), |i, area| draw_strip(area, &strips[i]))
}

/// Level in dB of each cell, lowest first, of every spectrum: the loudest bin within the cell, or the nearest one.
fn levels(strip: &Strip, hop: usize) -> Vec<[f32; CELLS]> {
    let top = strip.rate / 2.0;
    let edge = |cell: usize| LOWEST * (top / LOWEST).powf(cell as f64 / CELLS as f64) * SIZE as f64 / strip.rate;
    let cells: Vec<(usize, usize)> = (0..CELLS)
        .map(|cell| {
            (edge(cell).round() as usize, (edge(cell + 1).round() as usize).max(edge(cell).round() as usize + 1))
        })
        .collect();
    let mut columns = Vec::new();
    Spectra::new(SIZE).visit(strip.mono, hop, |_, power| {
        columns.push(std::array::from_fn(|cell| {
            let (first, last) = cells[cell];
            let loudest = power[first.min(SIZE / 2)..last.min(SIZE / 2 + 1)].iter().fold(0.0f32, |a, &b| a.max(b));
            // A sine of amplitude 1 has a power of 1/4.
            10.0 * (4.0 * loudest).max(1e-12).log10()
        }));
    });
    columns
}

fn draw_strip<'a>(area: &DrawingArea<BitMapBackend<'a>, Shift>, strip: &Strip) -> Result<(), DrawError<'a>> {
    let seconds = strip.mono.len() as f64 / strip.rate;
    let hop = (strip.mono.len() * COLUMN_PIXELS / WIDTH as usize).max(128);
    let mut chart = ChartBuilder::on(area)
        .caption(strip.title, (FONT, 20).into_font().color(&INK))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..seconds.max(0.1), (LOWEST..strip.rate / 2.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_mesh()
        .y_desc("Hz")
        .x_labels(20)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.0} s"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 14).into_font().color(&INK))
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .draw()?;
    let ratio = (strip.rate / 2.0 / LOWEST).powf(1.0 / CELLS as f64);
    for (column, cells) in levels(strip, hop).iter().enumerate() {
        let (start, end) = (column * hop, (column + 1) * hop);
        let (start, end) = (start as f64 / strip.rate, (end as f64 / strip.rate).min(seconds));
        chart.draw_series(cells.iter().enumerate().map(|(cell, level)| {
            let low = LOWEST * ratio.powi(cell as i32);
            let shown = STEP * (level / STEP).round();
            Rectangle::new([(start, low), (end, low * ratio)], heat((shown - DARK) / (BRIGHT - DARK)).filled())
        }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::signals::{RATE, sine};
    use super::*;

    #[test]
    fn a_tone_lights_its_own_cell() {
        for hertz in [110.0, 1_000.0, 9_000.0] {
            let tone = sine(hertz, 0.5, 1.0);
            let columns = levels(&Strip { title: "", mono: &tone, rate: RATE }, 1024);
            let middle = &columns[columns.len() / 2];
            let (cell, level) =
                middle.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, l)| (i, *l)).expect("has cells");
            let centre = LOWEST * (RATE / 2.0 / LOWEST).powf((cell as f64 + 0.5) / CELLS as f64);
            // Below 200 Hz a cell is narrower than a bin of 7.8 Hz.
            assert!((centre / hertz).ln().abs() < 0.06, "{hertz} Hz is drawn at {centre:.0}");
            assert!((level + 6.0).abs() < 2.0, "{level} dB");
        }
    }

    #[test]
    fn a_sheet_is_written() {
        let path = std::env::temp_dir().join(format!("tiller-spectrogram-{}.png", std::process::id()));
        let tone = sine(440.0, 0.5, 2.0);
        let strip = Strip { title: "a tone", mono: &tone, rate: RATE };
        draw(&path, "a test", &[strip.clone(), strip]).expect("draws");
        assert_eq!(std::fs::read(&path).expect("written")[1..4], *b"PNG");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(draw(&path, "nothing", &[]), Err(PictureError::Empty)));
    }
}
