//! What breaks, and its mending.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Dice, MANAGERS, WORKERS};
use crate::Lab;

/// Longest time from one event of a round to the next, in milliseconds.
const PAUSE: u64 = 1500;

/// In seconds.
const HOUR: i64 = 3600;

/// Time within which daemons serve again: a second or two, on a machine that has other things to do.
const START: Duration = Duration::from_secs(5);

/// One thing that breaks.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Daemons killed with -9 at the same time.
    Kill(Vec<u16>),
    /// A machine without power for a while.
    Power(u16),
    /// Links that carry nothing: from, to.
    Cut(&'static str, Vec<(u16, u16)>),
    /// A process that stands still.
    Freeze(u16, Duration),
    /// A disk without room.
    Fill(u16),
    /// A clock that somebody sets so many seconds ahead or back, and perhaps right again.
    Clock(u16, i64, bool),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(nodes) => write!(f, "kill -9 of the daemons of {nodes:?}"),
            Fault::Power(node) => write!(f, "node {node} loses its power"),
            Fault::Cut(shape, links) => write!(f, "{shape}: nothing passes on {links:?}"),
            Fault::Freeze(node, time) => write!(f, "the daemon of node {node} stands still for {time:?}"),
            Fault::Fill(node) => write!(f, "the disk of node {node} is full"),
            Fault::Clock(node, ahead, back) => {
                let back = if *back { ", and back" } else { "" };
                write!(f, "the clock of node {node} jumps by {ahead:+} s{back}")
            }
        }
    }
}

impl Fault {
    /// Draws one. Nodes that lead are hit more often than chance would have it.
    pub(crate) fn draw(dice: &mut Dice, lab: &Lab, freeze: Duration) -> Fault {
        let nodes: Vec<u16> = lab.nodes().collect();
        let managers: Vec<u16> = (1..=MANAGERS).collect();
        let leader = || leader(lab).unwrap_or(1);
        let worker = MANAGERS + 1 + dice.below(u64::from(WORKERS)) as u16;
        let manager = dice.pick(&managers);
        let both = |pairs: Vec<(u16, u16)>| -> Vec<(u16, u16)> {
            pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect()
        };
        let away =
            |node: u16| nodes.iter().filter(|other| **other != node).map(|other| (node, *other)).collect();
        match dice.below(12) {
            0 => Fault::Kill(vec![leader()]),
            1 => Fault::Kill(vec![dice.pick(&managers)]),
            2 => Fault::Kill(vec![worker]),
            3 => Fault::Kill(managers),
            4 => Fault::Power(dice.pick(&nodes)),
            5 => Fault::Cut("the leader alone", both(away(leader()))),
            6 => Fault::Cut("one manager alone", both(away(manager))),
            7 => Fault::Cut("a worker alone", both(away(worker))),
            8 => {
                // Two managers that only see each other through the third.
                let ends: Vec<u16> = managers.into_iter().filter(|other| *other != manager).collect();
                Fault::Cut("a bridge", both(vec![(ends[0], ends[1])]))
            }
            9 => Fault::Cut(
                "the leader hears nobody",
                away(leader()).into_iter().map(|(a, b)| (b, a)).collect(),
            ),
            10 => Fault::Freeze(if dice.below(2) == 0 { leader() } else { dice.pick(&nodes) }, freeze),
            _ => Fault::Fill(leader()),
        }
    }

    /// Draws a jump of a clock.
    pub(crate) fn draw_clock(dice: &mut Dice, lab: &Lab) -> Fault {
        let nodes: Vec<u16> = lab.nodes().collect();
        let node = if dice.below(2) == 0 { leader(lab).unwrap_or(1) } else { dice.pick(&nodes) };
        Fault::Clock(node, dice.pick(&[HOUR, -HOUR]), dice.below(2) == 0)
    }

    /// The node whose daemon stands still and so answers nobody.
    pub(crate) fn frozen(&self) -> Option<u16> {
        match self {
            Fault::Freeze(node, _) => Some(*node),
            _ => None,
        }
    }

    /// Breaks it at a random moment, and mends it at another.
    pub(crate) fn strike(&self, lab: &Lab, dice: &mut Dice) -> Result<(), String> {
        let mut pause = || std::thread::sleep(Duration::from_millis(200 + dice.below(PAUSE)));
        pause();
        match self {
            Fault::Kill(nodes) => {
                on(lab, "kill", nodes)?;
                pause();
                start(lab, nodes)?;
            }
            Fault::Power(node) => {
                succeed(lab, &["kill", "--power", &node.to_string()])?;
                pause();
                pause();
                start(lab, &[*node])?;
            }
            Fault::Cut(_, links) => {
                for (from, to) in links {
                    succeed(lab, &["cut", &from.to_string(), &to.to_string(), "--one-way"])?;
                }
                pause();
                pause();
                pause();
                succeed(lab, &["heal"])?;
            }
            Fault::Freeze(node, time) => {
                on(lab, "pause", &[*node])?;
                std::thread::sleep(*time);
                on(lab, "resume", &[*node])?;
            }
            Fault::Fill(node) => {
                let filled = lab.fill_disk(*node);
                pause();
                pause();
                drop(filled);
            }
            Fault::Clock(node, ahead, back) => {
                lab.set_clock(*node, *ahead)?;
                pause();
                pause();
                if *back {
                    lab.set_clock(*node, 0)?;
                }
            }
        }
        pause();
        Ok(())
    }
}

/// Starts daemons, which must not take long.
fn start(lab: &Lab, nodes: &[u16]) -> Result<(), String> {
    let begun = Instant::now();
    on(lab, "start", nodes)?;
    let took = begun.elapsed();
    // One after the other; managers without a majority wait up to two seconds for one.
    if took > START * nodes.len() as u32 {
        Err(format!("the daemons of {nodes:?} took {took:?} to start"))
    } else {
        Ok(())
    }
}

fn on(lab: &Lab, command: &str, nodes: &[u16]) -> Result<(), String> {
    let nodes: Vec<String> = nodes.iter().map(u16::to_string).collect();
    let words: Vec<&str> = [command].into_iter().chain(nodes.iter().map(String::as_str)).collect();
    succeed(lab, &words)
}

fn succeed(lab: &Lab, words: &[&str]) -> Result<(), String> {
    let output = lab.run(words);
    if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
}

/// The manager that leads, as any of them sees it.
fn leader(lab: &Lab) -> Option<u16> {
    (1..=MANAGERS).find_map(|manager| {
        let nodes = lab.api(manager, "GET", "/nodes", "").ok()?;
        let nodes: Vec<serde_json::Value> = serde_json::from_str(&nodes.body).ok()?;
        let leads = nodes.iter().find(|node| node["ManagerStatus"]["Leader"] == true)?;
        leads["Description"]["Hostname"].as_str()?.rsplit('-').next()?.parse().ok()
    })
}
