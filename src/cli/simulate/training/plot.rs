//! One job's life under each policy, as a picture: when its zones were up, where it sat, how far it came, what it paid.
//!
//! ```text
//!  title
//!  availability   ▇▇  ▇▇▇▇  one line a zone
//!  policies       ▇▇▇▇ lanes of idle, spot, on-demand, reserved;  cost at the right
//!  progress       lines against even progress and the deadline
//!  legend
//! ```

use std::fmt::Write;

use crate::capacity::CapacityKind;
use crate::simulation::deadline::cases::Case;
use crate::simulation::deadline::contest::Contestant;
use crate::simulation::deadline::{Arena, Outcome};

/// What is drawn.
pub struct Life<'a> {
    pub case: &'a Case,
    pub arena: &'a Arena,
    pub unit: Unit,
    pub optimum: Option<f64>,
    pub lives: Vec<(Contestant, Outcome)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Dollars,
    SpotTicks,
}

const WIDTH: f64 = 1180.0;
/// Names stand left of it, costs right of [`RIGHT`], up to [`COSTS`].
const LEFT: f64 = 150.0;
const RIGHT: f64 = 960.0;
const COSTS: f64 = 1090.0;
const LANE: f64 = 24.0;
const CHART: f64 = 260.0;
const TOP: f64 = 78.0;

// Okabe and Ito's palette, told apart with any eyes.
const UP: &str = "#7fb8a4";
const IDLE: &str = "#ececec";
const SPOT: &str = "#009e73";
const ON_DEMAND: &str = "#d55e00";
const RESERVED: &str = "#cc79a7";
const INK: &str = "#222222";
const FAINT: &str = "#d0d0d0";

const fn colour(kind: CapacityKind) -> &'static str {
    match kind {
        CapacityKind::Spot => SPOT,
        CapacityKind::OnDemand => ON_DEMAND,
        CapacityKind::Reserved => RESERVED,
    }
}

/// Colour and dashes of a policy's line.
const fn stroke(one: Contestant) -> (&'static str, &'static str) {
    match one {
        Contestant::OnDemand => ("#d55e00", "2 3"),
        Contestant::Greedy => ("#e69f00", "8 3"),
        Contestant::TimeSliced => ("#56b4e9", "8 3 2 3"),
        Contestant::UniformProgress => ("#0072b2", "4 2"),
        Contestant::Purser => ("#cc79a7", "none"),
        Contestant::Optimal => ("#000000", "none"),
    }
}

/// The picture as SVG.
pub fn svg(life: &Life<'_>) -> String {
    let strips = life.arena.spot_seats();
    let strip = if strips > 6 { 11.0 } else { 14.0 };
    let lanes_top = TOP + strips as f64 * strip + 34.0;
    let chart_top = lanes_top + life.lives.len() as f64 * (LANE + 6.0) + 34.0;
    let height = chart_top + CHART + 112.0;
    let mut canvas = Canvas { text: String::new(), hours: life.hours(), tick_hours: life.arena.tick_seconds as f64 / 3600.0 };
    canvas.open(height);
    canvas.title(life);
    canvas.heading(TOP - 8.0, "Spot can be had (by zone)");
    (0..strips).for_each(|seat| canvas.availability(life, seat, TOP + seat as f64 * strip, strip - 2.0));
    canvas.heading(lanes_top - 8.0, "Where the job sits");
    canvas.text(COSTS, lanes_top - 8.0, Letters::HEADING_RIGHT, &format!("Cost ({})", life.unit.name()));
    canvas.text(WIDTH - 10.0, lanes_top - 8.0, Letters::HEADING_RIGHT, "× optimum");
    for (number, (one, outcome)) in life.lives.iter().enumerate() {
        canvas.lane(life, *one, outcome, lanes_top + number as f64 * (LANE + 6.0));
    }
    canvas.deadline(life, TOP, chart_top + CHART);
    canvas.chart(life, chart_top);
    canvas.legend(life, height - 44.0);
    canvas.text += "</svg>\n";
    canvas.text
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Unit::Dollars => "USD",
            Unit::SpotTicks => "ticks of spot",
        }
    }
}

impl Life<'_> {
    /// What the picture spans.
    fn hours(&self) -> f64 {
        let last = self.lives.iter().map(|(_, outcome)| outcome.finish_tick).max().unwrap_or_default().max(self.case.task.deadline_ticks);
        last as f64 * self.arena.tick_seconds as f64 / 3600.0 * 1.01
    }

    fn deadline_hours(&self) -> f64 {
        (self.case.task.deadline_ticks * self.arena.tick_seconds) as f64 / 3600.0
    }

    fn work_hours(&self) -> f64 {
        self.case.task.true_work as f64 / 3600.0
    }
}

/// How a piece of text looks.
#[derive(Clone, Copy)]
struct Letters {
    anchor: &'static str,
    size: u32,
    weight: &'static str,
    colour: &'static str,
}

impl Letters {
    const HEADING: Letters = Letters { anchor: "start", size: 12, weight: "bold", colour: INK };
    const HEADING_RIGHT: Letters = Letters { anchor: "end", size: 12, weight: "bold", colour: INK };
    const TITLE: Letters = Letters { anchor: "start", size: 17, weight: "bold", colour: INK };
    const NAME: Letters = Letters { anchor: "start", size: 12, weight: "normal", colour: INK };
    const ZONE: Letters = Letters { anchor: "end", size: 10, weight: "normal", colour: INK };
    const NAME_RIGHT: Letters = Letters { anchor: "end", size: 12, weight: "normal", colour: INK };
    const INSIDE: Letters = Letters { anchor: "middle", size: 10, weight: "normal", colour: "#ffffff" };
    const DEADLINE: Letters = Letters { anchor: "start", size: 11, weight: "normal", colour: "#b00020" };
    const MARK_RIGHT: Letters = Letters { anchor: "end", size: 11, weight: "normal", colour: INK };
    const MARK: Letters = Letters { anchor: "middle", size: 11, weight: "normal", colour: INK };
    const AXIS: Letters = Letters { anchor: "middle", size: 12, weight: "normal", colour: INK };
}

struct Canvas {
    text: String,
    hours: f64,
    tick_hours: f64,
}

impl Canvas {
    fn x(&self, hours: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * hours / self.hours
    }

    fn tick_x(&self, tick: usize) -> f64 {
        self.x(tick as f64 * self.tick_hours)
    }

    // Writing to a String cannot fail.
    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(element);
        self.text.push('\n');
    }

    fn open(&mut self, height: f64) {
        self.add(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif">"#
        ));
        self.rect(0.0, 0.0, WIDTH, height, "#ffffff");
    }

    fn text(&mut self, x: f64, y: f64, letters: Letters, text: &str) {
        let Letters { anchor, size, weight, colour } = letters;
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.add(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}">{text}</text>"#));
    }

    fn heading(&mut self, y: f64, text: &str) {
        self.text(10.0, y, Letters::HEADING, text);
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        self.add(format_args!(r#"<rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}" fill="{fill}"/>"#));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, dashes: &str) {
        self.add(format_args!(
            r#"<line x1="{:.2}" y1="{:.2}" x2="{:.2}" y2="{:.2}" stroke="{colour}" stroke-width="1.2" stroke-dasharray="{dashes}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    fn title(&mut self, life: &Life<'_>) {
        let (task, tick) = (&life.case.task, life.arena.tick_seconds);
        self.text(10.0, 24.0, Letters::TITLE, "One job's life under each policy");
        let what = format!(
            "{}{}: {:.0} h of work, {:.1} h to the deadline (job fraction {}), {} s to restart, from hour {:.0} of the trace",
            life.case.group,
            if life.arena.spot_seats() == 1 { format!(", {}", life.arena.seats[0].zone) } else { String::new() },
            life.work_hours(),
            life.deadline_hours(),
            life.case.job_fraction,
            task.overhead,
            task.start as f64 * tick as f64 / 3600.0,
        );
        self.text(10.0, 44.0, Letters::NAME, &what);
    }

    /// Spans of ticks with the same value, from the job's start.
    fn spans<T: PartialEq + Copy>(values: impl Iterator<Item = T>) -> Vec<(T, usize, usize)> {
        let mut spans: Vec<(T, usize, usize)> = Vec::new();
        for (tick, value) in values.enumerate() {
            match spans.last_mut() {
                Some((last, _, end)) if *last == value => *end = tick + 1,
                Some(_) | None => spans.push((value, tick, tick + 1)),
            }
        }
        spans
    }

    fn availability(&mut self, life: &Life<'_>, seat: usize, y: f64, height: f64) {
        let zone = &life.arena.seats[seat];
        self.text(LEFT - 8.0, y + height - 1.0, Letters::ZONE, &zone.zone);
        self.rect(LEFT, y, RIGHT - LEFT, height, IDLE);
        let ticks = (self.hours / self.tick_hours) as usize;
        let start = life.case.task.start;
        for (up, from, to) in Self::spans((0..ticks).map(|tick| zone.is_up(start + tick))) {
            if up {
                let (from, to) = (self.tick_x(from), self.tick_x(to));
                self.rect(from, y, to - from, height, UP);
            }
        }
    }

    fn lane(&mut self, life: &Life<'_>, one: Contestant, outcome: &Outcome, y: f64) {
        self.text(LEFT - 8.0, y + 16.0, Letters::NAME_RIGHT, one.name());
        self.rect(LEFT, y, RIGHT - LEFT, LANE, IDLE);
        for (seat, from, to) in Self::spans(outcome.seats.iter().copied()) {
            let Some(seat) = seat else { continue };
            let seat = &life.arena.seats[seat];
            let (from, to) = (self.tick_x(from), self.tick_x(to));
            self.rect(from, y, to - from, LANE, colour(seat.kind));
            // Moves between zones leave no gap: a white edge shows them.
            self.line((from, y), (from, y + LANE), "#ffffff", "none");
            if life.arena.seats.len() > 2 && to - from > 9.0 * seat.zone.len() as f64 * 0.75 {
                self.text((from + to) / 2.0, y + 16.0, Letters::INSIDE, &seat.zone);
            }
        }
        let end = self.tick_x(outcome.finish_tick as usize);
        self.line((end, y - 2.0), (end, y + LANE + 2.0), INK, "none");
        let missed = if outcome.missed { "late, " } else { "" };
        self.text(COSTS, y + 16.0, Letters::NAME_RIGHT, &format!("{missed}{:.1}", outcome.cost));
        if let Some(optimum) = life.optimum {
            self.text(WIDTH - 10.0, y + 16.0, Letters::NAME_RIGHT, &format!("{:.3}", outcome.cost / optimum));
        }
    }

    fn deadline(&mut self, life: &Life<'_>, top: f64, bottom: f64) {
        let x = self.x(life.deadline_hours());
        self.line((x, top), (x, bottom), "#b00020", "5 3");
        self.text(x + 4.0, bottom - 8.0, Letters::DEADLINE, "deadline");
    }

    fn chart(&mut self, life: &Life<'_>, top: f64) {
        let bottom = top + CHART;
        let work = life.work_hours();
        let y = |done: f64| bottom - (CHART - 14.0) * done / work;
        self.heading(top - 8.0, "How far the job has come");
        for hours in marks(work) {
            self.line((LEFT, y(hours)), (RIGHT, y(hours)), FAINT, "none");
            self.text(LEFT - 8.0, y(hours) + 4.0, Letters::MARK_RIGHT, &format!("{hours}"));
        }
        for hours in marks(self.hours) {
            let x = self.x(hours);
            self.line((x, top), (x, bottom), FAINT, "none");
            self.text(x, bottom + 16.0, Letters::MARK, &format!("{hours}"));
        }
        self.line((LEFT, bottom), (RIGHT, bottom), INK, "none");
        self.line((LEFT, top), (LEFT, bottom), INK, "none");
        self.line((self.x(0.0), y(0.0)), (self.x(life.deadline_hours()), y(work)), "#888888", "3 3");
        for (one, outcome) in &life.lives {
            let points = Self::spans(outcome.done.iter().copied()).into_iter().map(|(done, _, to)| (to, done as f64 / 3600.0));
            let mut path = format!("{:.1},{:.1}", self.x(0.0), y(0.0));
            let mut last = 0.0;
            for (tick, done) in points {
                let (before, after) = (self.tick_x(tick.saturating_sub(1)), self.tick_x(tick));
                let _ = write!(path, " {before:.1},{:.1} {after:.1},{:.1}", y(last), y(done.min(work)));
                last = done.min(work);
            }
            let (colour, dashes) = stroke(*one);
            self.add(format_args!(r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dashes}"/>"#));
        }
        self.text((LEFT + RIGHT) / 2.0, bottom + 34.0, Letters::AXIS, "hours since the job was submitted");
        let middle = (top + bottom) / 2.0;
        self.add(format_args!(r#"<text transform="translate(108 {middle:.1}) rotate(-90)" text-anchor="middle" font-size="12" fill="{INK}">hours of work done</text>"#));
    }

    fn legend(&mut self, life: &Life<'_>, y: f64) {
        let kinds = [("idle", IDLE), ("spot", SPOT), ("on-demand", ON_DEMAND), ("reserved", RESERVED)];
        let has_reserved = life.arena.seats.iter().any(|seat| seat.kind == CapacityKind::Reserved);
        let mut x = LEFT;
        for (name, colour) in kinds.into_iter().filter(|(name, _)| *name != "reserved" || has_reserved) {
            self.rect(x, y - 10.0, 14.0, 12.0, colour);
            self.text(x + 20.0, y, Letters::NAME, name);
            x += 44.0 + 7.0 * name.len() as f64;
        }
        x = LEFT;
        let lines = life.lives.iter().map(|(one, _)| (one.name(), stroke(*one))).chain([("even progress", ("#888888", "3 3"))]);
        for (name, (colour, dashes)) in lines {
            self.line((x, y + 18.0), (x + 26.0, y + 18.0), colour, dashes);
            self.text(x + 32.0, y + 22.0, Letters::NAME, name);
            x += 52.0 + 7.0 * name.len() as f64;
        }
    }
}

/// Round hours for an axis, about eight of them.
fn marks(hours: f64) -> Vec<f64> {
    let step = [1.0, 2.0, 3.0, 6.0, 12.0, 24.0, 48.0, 96.0].into_iter().find(|step| hours / step <= 12.0).unwrap_or(hours / 8.0);
    (0..).map(|number| f64::from(number) * step).take_while(|mark| *mark <= hours).collect()
}
