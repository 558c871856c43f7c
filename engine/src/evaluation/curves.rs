//! Figures as curves in a PNG and as rows in a CSV file, for whoever wants to plot them again. Any thread but the audio one.

use super::picture::{self, DrawError, FONT, INK, PictureError};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::{Path, PathBuf};

/// One curve.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f32, f32)>,
    /// Lower and upper end of the interval at each point; empty without intervals.
    pub intervals: Vec<[f32; 2]>,
}

impl Curve {
    /// Without intervals.
    pub fn new(name: &str, points: impl IntoIterator<Item = (f32, f32)>) -> Self {
        Self { name: name.to_owned(), points: points.into_iter().collect(), intervals: Vec::new() }
    }
}

/// Curves over the same axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What is across.
    pub across: String,
    /// What is up.
    pub up: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// Rows under a header.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// As many cells in each.
    pub rows: Vec<Vec<String>>,
}

/// A CSV file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct TableError {
    /// The file.
    path: PathBuf,
    /// What the system said.
    source: csv::Error,
}

impl Table {
    /// Writes it as a CSV file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TableError> {
        let failed = |source: csv::Error| TableError { path: path.to_owned(), source };
        let mut writer = csv::Writer::from_path(path).map_err(failed)?;
        writer.write_record(&self.header).map_err(failed)?;
        for row in &self.rows {
            writer.write_record(row).map_err(failed)?;
        }
        writer.flush().map_err(|error| failed(error.into()))
    }
}

const HEIGHT: u32 = 420;
const COLOURS: [RGBColor; 6] = [
    RGBColor(140, 34, 92),
    RGBColor(216, 80, 48),
    RGBColor(40, 96, 160),
    RGBColor(24, 132, 108),
    RGBColor(180, 130, 20),
    RGBColor(96, 96, 104),
];

/// Writes a PNG with the charts one above the other.
///
/// # Errors
/// [`PictureError`] when there is nothing to draw or the file cannot be written.
pub fn draw(path: &Path, title: &str, charts: &[Chart]) -> Result<(), PictureError> {
    if charts.iter().any(|chart| chart.points().next().is_none()) {
        return Err(PictureError::Empty);
    }
    picture::draw(path, title, HEIGHT, charts.len(), |i, area| draw_chart(area, &charts[i]))
}

impl Chart {
    fn points(&self) -> impl Iterator<Item = (f32, f32)> {
        let ends = |curve: &Curve| {
            let places = curve.points.iter().map(|point| point.0).collect::<Vec<_>>();
            let intervals = places.into_iter().zip(curve.intervals.clone());
            intervals.flat_map(|(x, ends)| ends.map(|y| (x, y))).collect::<Vec<_>>()
        };
        self.curves.iter().flat_map(move |curve| curve.points.iter().copied().chain(ends(curve)))
    }

    /// Room for every point and the zero line.
    fn ranges(&self) -> [std::ops::Range<f32>; 2] {
        let (mut x, mut y) = ([f32::INFINITY, f32::NEG_INFINITY], [0.0f32, 0.0]);
        for (across, up) in self.points().filter(|(across, up)| across.is_finite() && up.is_finite()) {
            x = [x[0].min(across), x[1].max(across)];
            y = [y[0].min(up), y[1].max(up)];
        }
        let room = |[low, high]: [f32; 2]| (0.04 * (high - low)).max(1e-3);
        let (across, up) = (room(x), room(y));
        [x[0] - across..x[1] + across, y[0] - if y[0] < 0.0 { up } else { 0.0 }..y[1] + up]
    }
}

fn draw_chart<'a>(area: &DrawingArea<BitMapBackend<'a>, Shift>, chart: &Chart) -> Result<(), DrawError<'a>> {
    let [across, up] = chart.ranges();
    let mut plot =
        ChartBuilder::on(area).margin(16).x_label_area_size(44).y_label_area_size(64).build_cartesian_2d(across, up)?;
    plot.configure_mesh()
        .x_desc(&chart.across)
        .y_desc(&chart.up)
        .label_style((FONT, 16).into_font().color(&INK))
        .axis_desc_style((FONT, 18).into_font().color(&INK))
        .light_line_style(INK.mix(0.04))
        .bold_line_style(INK.mix(0.12))
        .draw()?;
    for (curve, colour) in chart.curves.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let line = LineSeries::new(curve.points.iter().copied(), style);
        plot.draw_series(line)?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        // Where points lie this close, dots would hide the curve.
        if curve.points.len() <= 40 {
            plot.draw_series(curve.points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
        let bars = curve.points.iter().zip(&curve.intervals);
        plot.draw_series(bars.map(|((x, _), [low, high])| PathElement::new([(*x, *low), (*x, *high)], style)))?;
    }
    plot.configure_series_labels()
        .label_font((FONT, 16).into_font().color(&INK))
        .background_style(WHITE.mix(0.85))
        .position(SeriesLabelPosition::UpperLeft)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let mut curve = Curve::new("on target", [(0.0, 0.1), (0.5, 0.6), (1.0, 0.9)]);
        curve.intervals = vec![[0.05, 0.15], [0.5, 0.7], [0.85, 0.95]];
        Chart { across: "strength".to_owned(), up: "share".to_owned(), curves: vec![curve] }
    }

    #[test]
    fn a_chart_has_room_for_its_intervals_and_zero() {
        let [across, up] = chart().ranges();
        assert!(across.contains(&0.0) && across.contains(&1.0));
        assert!(up.start == 0.0 && up.contains(&0.95) && up.end < 1.1, "{up:?}");
    }

    #[test]
    fn files_are_written() {
        let folder = std::env::temp_dir().join(format!("tiller-curves-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        draw(&folder.join("chart.png"), "Notes", &[chart()]).expect("a picture");
        assert!(std::fs::metadata(folder.join("chart.png")).expect("there").len() > 2_000);
        let table = Table { header: vec!["name", "share"], rows: vec![vec!["a, b".to_owned(), "0.5".to_owned()]] };
        table.write(&folder.join("table.csv")).expect("a table");
        assert_eq!(std::fs::read_to_string(folder.join("table.csv")).expect("text"), "name,share\n\"a, b\",0.5\n");
        assert!(matches!(draw(&folder.join("none.png"), "", &[]), Err(PictureError::Empty)));
        std::fs::remove_dir_all(folder).expect("cleaned");
    }
}
