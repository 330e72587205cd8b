//! Lines over a logarithmic axis, as an SVG.

use std::error::Error;

use plotters::prelude::*;

/// Lines in one picture.
#[derive(Debug)]
pub struct Plot {
    /// What is seen.
    pub title: String,
    /// What x is; its axis is logarithmic.
    pub x: String,
    /// What y is; its axis begins at 0.
    pub y: String,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points; each x is greater than 0.
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (800, 480);

impl Plot {
    /// Draws it.
    ///
    /// # Errors
    /// The drawing library's, and if no line has a point.
    pub fn to_svg(&self) -> Result<String, Box<dyn Error>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let least = points().map(|point| point.0.log10()).reduce(f64::min);
        let most = points().map(|point| point.0.log10()).reduce(f64::max);
        let top = points().map(|point| point.1).reduce(f64::max);
        let ((least, most), top) = least.zip(most).zip(top).ok_or("no points")?;
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let failed = |error: DrawingAreaErrorKind<_>| -> Box<dyn Error> {
                format!("the plot can't be drawn: {error}").into()
            };
            area.fill(&WHITE).map_err(failed)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(&self.title, ("sans-serif", 18))
                .margin(12)
                .x_label_area_size(44)
                .y_label_area_size(60)
                .build_cartesian_2d(least..most.max(least + 1e-9), 0.0..top.max(1e-9) * 1.05)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_desc(&self.x)
                .y_desc(&self.y)
                .x_label_formatter(&|x| short(10_f64.powf(*x)))
                .draw()
                .map_err(failed)?;
            for (index, line) in self.lines.iter().enumerate() {
                let style = Palette99::pick(index).stroke_width(2);
                let points = line.points.iter().map(|&(x, y)| (x.log10(), y));
                chart
                    .draw_series(LineSeries::new(points, style))
                    .map_err(failed)?
                    .label(&line.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK)
                .draw()
                .map_err(failed)?;
            area.present().map_err(failed)?;
        }
        Ok(svg)
    }
}

/// A number in two or three digits.
fn short(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        1.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
