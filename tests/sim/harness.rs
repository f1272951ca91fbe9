//! Arguments, the battery of seeds, and the named tests.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tapeline::store::TapeId;
use tapeline::tape::parse_tape_key;

use crate::checks::{Check, Failure};
use crate::mutants::{Mutant, Rules, mutants};
use crate::schedule::{self, Scenario};
use crate::world::Counts;

/// The most seeds that a mutant gets to be found.
const MUTANT_SEEDS: u64 = 60;
/// The seeds in which the harmless mutant must not be found.
const HARMLESS_SEEDS: u64 = 12;

pub struct Arguments {
    seeds: u64,
    base: u64,
    mutant: Option<String>,
    seed: Option<u64>,
    scenario: Option<Scenario>,
    trace: Option<TapeId>,
    filter: Option<String>,
    list: bool,
}

impl Arguments {
    /// Reads the arguments; those of the standard harness that mean nothing here are passed over.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            seeds: 200,
            base: 0,
            mutant: None,
            seed: None,
            scenario: None,
            trace: None,
            filter: None,
            list: false,
        };
        let number = |word: Option<String>| -> Result<u64, String> {
            let word = word.ok_or("a number is expected")?;
            word.parse().map_err(|_| format!("{word} is no number"))
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seeds" => arguments.seeds = number(words.next())?,
                "--base" => arguments.base = number(words.next())?,
                "--seed" => arguments.seed = Some(number(words.next())?),
                "--mutant" => arguments.mutant = words.next(),
                "--scenario" => {
                    let name = words.next().unwrap_or_default();
                    arguments.scenario =
                        Some(Scenario::named(&name).ok_or(format!("no schedule is named {name}"))?);
                }
                "--trace" => {
                    let word = words.next().unwrap_or_default();
                    arguments.trace = Some(parse_tape_key(&word).ok_or(format!("{word} is no tape id"))?);
                }
                "--list" => arguments.list = true,
                "--nocapture" | "--quiet" | "-q" | "--exact" | "--include-ignored" => {}
                word if word.starts_with("--") => return Err(format!("{word} is not known")),
                word => arguments.filter = Some(word.to_owned()),
            }
        }
        Ok(arguments)
    }
}

struct Run {
    seed: u64,
    scenario: Scenario,
    failures: Vec<Failure>,
    counts: Counts,
}

fn one(seed: u64, scenario: Option<Scenario>, rules: Rules, trace: Option<TapeId>) -> Run {
    let (scenario, sim) = schedule::run(seed, scenario, rules, trace);
    Run { seed, scenario, failures: sim.failures, counts: sim.counts }
}

/// Runs seeds on all cores.
fn battery(seeds: std::ops::Range<u64>, scenario: Option<Scenario>, rules: Rules) -> Vec<Run> {
    let next = AtomicU64::new(seeds.start);
    let runs = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let run = one(seed, scenario, rules, None);
                    runs.lock().unwrap().push(run);
                }
            });
        }
    });
    let mut runs = runs.into_inner().unwrap();
    runs.sort_by_key(|run| run.seed);
    runs
}

/// A named test: which runs, and which checks of them.
struct Named {
    name: &'static str,
    runs: Runs,
    checks: &'static [Check],
    /// How often what it is about has happened: a test in which nothing happens shows nothing.
    happened: fn(&Counts) -> u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Runs {
    Battery,
    Directed(Scenario),
}

fn named() -> Vec<Named> {
    use Check::*;
    let test = |name, runs, checks, happened| Named { name, runs, checks, happened };
    let follow: &'static [Check] = &[AppliedTwice, Follow, Equal, Passed, Lost];
    vec![
        test("sim_follow_never_skips", Runs::Battery, follow, |counts| counts.voids),
        test("sim_whole_node", Runs::Battery, ALL, |counts| counts.reads),
        test("resume_anywhere", Runs::Battery, &[Client, Cursor], |counts| counts.resumes),
        test("append_unknown_verbatim", Runs::Directed(Scenario::Embedded), ALL, |counts| counts.boots),
        test("append_unknown_verbatim_rollover", Runs::Directed(Scenario::Lossy), ALL, |counts| {
            counts.rollovers
        }),
        test("tail_before_blocks", Runs::Directed(Scenario::ShortTail), ALL, |counts| counts.catching_up),
        test("two_keepers_one_shard", Runs::Directed(Scenario::TwoKeepers), ALL, |counts| counts.marks),
        test("clocks_do_not_matter", Runs::Directed(Scenario::Clocks), ALL, |counts| counts.boots),
        test("tapes_expire", Runs::Directed(Scenario::Expiry), ALL, |counts| counts.gaps.min(counts.forgot)),
        test("i1_row_before_frames", Runs::Battery, &[Registered, Bytes], |counts| counts.boots),
        test("i2_bytes_never_change", Runs::Battery, &[Bytes, Window], |counts| counts.rollovers),
        test("i3_low_is_acknowledged", Runs::Battery, &[Low, Durable, Answered], |counts| counts.marks),
        test("i4_nothing_passed_unseen", Runs::Battery, &[Passed, Cursor], |counts| {
            counts.voids.min(counts.gaps)
        }),
        test("i5_regions_end_equal", Runs::Battery, &[Equal], |counts| counts.late),
        test("i6_marks_after_blocks", Runs::Battery, &[Mark, Blocks], |counts| counts.marks),
        test("i7_no_read_has_a_hole", Runs::Battery, &[Read, Unlinked], |counts| counts.reads),
        test("i8_clocks_decide_no_truth", Runs::Directed(Scenario::Clocks), ALL, |counts| counts.resumes),
        test("i9_left_out_only_where_equal", Runs::Battery, &[Cursor, RetiredList, Client], |counts| {
            counts.retired
        }),
        test("i10_memories_are_bounded", Runs::Battery, &[Bounds, Once, Receipts], |counts| {
            counts.catching_up
        }),
    ]
}

const ALL: &[Check] = &[
    Check::AppliedTwice,
    Check::Follow,
    Check::Equal,
    Check::Cursor,
    Check::Client,
    Check::Once,
    Check::Mark,
    Check::Blocks,
    Check::Read,
    Check::History,
    Check::Bytes,
    Check::Window,
    Check::Registered,
    Check::Durable,
    Check::Low,
    Check::Answered,
    Check::Passed,
    Check::Lost,
    Check::RetiredList,
    Check::Bounds,
    Check::Receipts,
    Check::Unlinked,
    Check::Fold,
];

/// Runs what was asked for, and closes as the standard harness does.
pub fn run(arguments: &Arguments) -> ExitCode {
    if arguments.list {
        named().iter().for_each(|test| println!("{}: test", test.name));
        mutants().iter().for_each(|mutant| println!("{} ({}): mutant", mutant.name, mutant.what));
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &arguments.mutant {
        return run_mutant(arguments, name);
    }
    if let Some(seed) = arguments.seed {
        let run = one(seed, arguments.scenario, Rules::default(), arguments.trace);
        println!("seed {seed} {:?}: {:?}\n{:?}", run.scenario, run.failures, run.counts);
        return if run.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    run_named(arguments)
}

fn run_named(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let wanted = |name: &str| arguments.filter.as_deref().is_none_or(|filter| name.contains(filter));
    let tests: Vec<Named> = named().into_iter().filter(|test| wanted(test.name)).collect();
    let (mut passed, mut failed) = (0, 0);
    let mut done: Vec<(Runs, Vec<Run>)> = Vec::new();
    println!("\nrunning {} tests", tests.len() + usize::from(wanted("mutants_fail")));
    for test in &tests {
        if !done.iter().any(|(runs, _)| *runs == test.runs) {
            let (seeds, scenario) = match test.runs {
                Runs::Battery => (arguments.seeds, arguments.scenario),
                Runs::Directed(scenario) => ((arguments.seeds / 20).max(4), Some(scenario)),
            };
            let begun = Instant::now();
            let runs = battery(arguments.base..arguments.base + seeds, scenario, Rules::default());
            println!("{} in {:.1} s", told(&runs, scenario), begun.elapsed().as_secs_f32());
            done.push((test.runs, runs));
        }
        let runs =
            done.iter().find(|(runs, _)| *runs == test.runs).map_or(&[][..], |(_, runs)| runs.as_slice());
        let ok = report(test, runs);
        passed += usize::from(ok);
        failed += usize::from(!ok);
    }
    if wanted("mutants_fail") {
        let ok = mutants_fail(arguments.base);
        passed += usize::from(ok);
        failed += usize::from(!ok);
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = started.elapsed().as_secs_f32();
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {seconds:.2}s\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(runs: &[Run], scenario: Option<Scenario>) -> String {
    let sum = |of: fn(&Counts) -> u64| runs.iter().map(|run| of(&run.counts)).sum::<u64>();
    let name = scenario.map_or("all schedules".to_owned(), |scenario| format!("{scenario:?}"));
    format!(
        "{} seeds of {name}: {} events, {} boots, {} rollovers, {} resumes, {} voids, {} late, {} retired, \
         {} gaps, {} forgotten, {} marks, {} reads, {} read back, longest Position {}",
        runs.len(),
        sum(|counts| counts.events),
        sum(|counts| counts.boots),
        sum(|counts| counts.rollovers),
        sum(|counts| counts.resumes),
        sum(|counts| counts.voids),
        sum(|counts| counts.late),
        sum(|counts| counts.retired),
        sum(|counts| counts.gaps),
        sum(|counts| counts.forgot),
        sum(|counts| counts.marks),
        sum(|counts| counts.reads),
        sum(|counts| counts.catching_up),
        runs.iter().map(|run| run.counts.longest).max().unwrap_or(0),
    )
}

fn report(test: &Named, runs: &[Run]) -> bool {
    let bad: Vec<(&Run, &Failure)> = runs
        .iter()
        .filter_map(|run| {
            run.failures.iter().find(|failure| test.checks.contains(&failure.check)).map(|f| (run, f))
        })
        .collect();
    let happened: u64 = runs.iter().map(|run| (test.happened)(&run.counts)).sum();
    let ok = bad.is_empty() && happened > 0;
    println!("test {} ... {}", test.name, if ok { "ok" } else { "FAILED" });
    for (run, failure) in bad.iter().take(5) {
        println!(
            "    seed {} {:?}, {} ms: {:?}: {}",
            run.seed, run.scenario, failure.at, failure.check, failure.what
        );
    }
    if happened == 0 {
        println!("    nothing of what it is about has happened");
    }
    ok
}

/// Every mutant is found by its schedule, and the harmless one is not.
fn mutants_fail(base: u64) -> bool {
    let mut ok = true;
    for mutant in mutants() {
        let begun = Instant::now();
        let found = find(&mutant, base, if mutant.must_fail { MUTANT_SEEDS } else { HARMLESS_SEEDS });
        let seconds = begun.elapsed().as_secs_f32();
        match &found {
            Some((tried, run)) => {
                let what =
                    run.failures.first().map(|failure| format!("{:?}: {}", failure.check, failure.what));
                let what = what.unwrap_or_default();
                println!("    mutant {} found after {tried} seeds, {seconds:.1} s: {what}", mutant.name);
            }
            None => println!("    mutant {} not found, {seconds:.1} s", mutant.name),
        }
        ok &= found.is_some() == mutant.must_fail;
    }
    println!("test mutants_fail ... {}", if ok { "ok" } else { "FAILED" });
    ok
}

/// The first failing run of a mutant, and how many were tried.
fn find(mutant: &Mutant, base: u64, seeds: u64) -> Option<(u64, Run)> {
    let mut rules = Rules::default();
    (mutant.break_it)(&mut rules);
    let mut tried = 0;
    while tried < seeds {
        let few = 2.min(seeds - tried);
        let from = base + tried;
        tried += few;
        let runs = battery(from..from + few, mutant.scenario, rules);
        if let Some(run) = runs.into_iter().find(|run| !run.failures.is_empty()) {
            return Some((tried, run));
        }
    }
    None
}

fn run_mutant(arguments: &Arguments, name: &str) -> ExitCode {
    let Some(mutant) = mutants().into_iter().find(|mutant| mutant.name == name) else {
        println!("no mutant is named {name}; --list names them");
        return ExitCode::FAILURE;
    };
    let mut rules = Rules::default();
    (mutant.break_it)(&mut rules);
    let scenario = arguments.scenario.or(mutant.scenario);
    let runs = battery(arguments.base..arguments.base + arguments.seeds, scenario, rules);
    let bad: Vec<&Run> = runs.iter().filter(|run| !run.failures.is_empty()).collect();
    for run in bad.iter().take(5) {
        println!("seed {} {:?}: {:?}", run.seed, run.scenario, run.failures.first());
    }
    println!("{}", told(&runs, scenario));
    println!("mutant {name} ({}): {} of {} seeds find it", mutant.what, bad.len(), runs.len());
    if bad.is_empty() == mutant.must_fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
