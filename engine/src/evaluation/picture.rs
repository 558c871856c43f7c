//! What the pictures share: font, colours, a sheet of rows under a title. Any thread but the audio one.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// A picture cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// There is nothing to draw.
    #[error("a picture needs at least one row with something in it")]
    Empty,
    /// Drawing or writing failed.
    #[error("cannot draw {path}: {reason}")]
    Draw {
        /// The file.
        path: PathBuf,
        /// What the plotting library said.
        reason: String,
    },
}

/// What drawing on a bitmap can say.
pub(super) type DrawError<'a> = DrawingAreaErrorKind<<BitMapBackend<'a> as DrawingBackend>::ErrorType>;

/// Pixels across.
pub(super) const WIDTH: u32 = 1400;
pub(super) const FONT: &str = "sans-serif";
pub(super) const INK: RGBColor = RGBColor(32, 32, 38);
const TITLE_HEIGHT: u32 = 56;

/// Makes the font that egui ships known to plotters, which has none of its own here.
fn load_font() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            if register_font(FONT, style, epaint_default_fonts::UBUNTU_LIGHT).is_err() {
                log::error!("the embedded font of the pictures is damaged");
            }
        }
    });
}

/// Writes a PNG with a title over `rows` areas of equal height; `draw_row` fills each.
pub(super) fn draw<'a>(
    path: &'a Path,
    title: &str,
    row_height: u32,
    rows: usize,
    mut draw_row: impl FnMut(usize, &DrawingArea<BitMapBackend<'a>, Shift>) -> Result<(), DrawError<'a>>,
) -> Result<(), PictureError> {
    if rows == 0 {
        return Err(PictureError::Empty);
    }
    load_font();
    let failed = |error: DrawError| PictureError::Draw { path: path.to_owned(), reason: error.to_string() };
    let root = BitMapBackend::new(path, (WIDTH, TITLE_HEIGHT + row_height * rows as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let (head, body) = root.split_vertically(TITLE_HEIGHT);
    let style = (FONT, 26).into_font().color(&INK);
    head.draw(&Text::new(title.to_owned(), (16, 14), style)).map_err(failed)?;
    for (row, area) in body.split_evenly((rows, 1)).iter().enumerate() {
        draw_row(row, area).map_err(failed)?;
    }
    root.present().map_err(failed)
}

/// Black over violet, red and orange to pale yellow, for 0 to 1.
pub(super) fn heat(share: f32) -> RGBColor {
    const STOPS: [(f32, f32, f32); 6] = [
        (8.0, 6.0, 20.0),
        (58.0, 14.0, 92.0),
        (140.0, 34.0, 92.0),
        (216.0, 80.0, 48.0),
        (250.0, 166.0, 42.0),
        (252.0, 248.0, 180.0),
    ];
    let at = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let low = (at as usize).min(STOPS.len() - 2);
    let (a, b, t) = (STOPS[low], STOPS[low + 1], at - low as f32);
    let mix = |a: f32, b: f32| (a + (b - a) * t) as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}
