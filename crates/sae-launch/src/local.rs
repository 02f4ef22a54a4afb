//! Jobs on this machine, as many at a time as there are slots for them, with a live view.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sae_config::signals;
use sae_record::Event;

use crate::sweep::show;
use crate::view::{FAILED, View};
use crate::{LaunchError, Launcher, Outcome, Settings, Show, Sweep};

/// Starts jobs here, and analyses them when all have ended.
#[derive(Debug, Clone)]
pub struct Local {
    /// What a job runs on: a CUDA device, or the CPU.
    slots: Vec<Option<String>>,
    show: Show,
    arguments: Vec<String>,
}

impl Local {
    /// One job a device at a time, or as many as asked for.
    pub fn new(settings: Settings) -> Self {
        let Settings { jobs, devices, show, arguments } = settings;
        let count = jobs.map_or(devices.len().max(1), std::num::NonZeroUsize::get);
        let slot = |job: usize| (!devices.is_empty()).then(|| devices[job % devices.len()].clone());
        Self { slots: (0..count).map(slot).collect(), show, arguments }
    }
}

impl Launcher for Local {
    fn launch(&self, sweep: &Sweep) -> Result<Outcome, LaunchError> {
        let interrupted = Arc::new(AtomicBool::new(false));
        // Jobs are told to save themselves and end; we wait for them.
        for signal in signals::that_end_work() {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .map_err(LaunchError::Signals)?;
        }
        let view = View::new(&sweep.manifest, self.show);
        let jobs = Jobs { sweep, view, arguments: &self.arguments, interrupted: &interrupted };
        let failed = jobs.run(self.slots.clone())?;
        let is_interrupted = || interrupted.load(Ordering::SeqCst);
        if is_interrupted() {
            return Ok(Outcome::Interrupted);
        }
        let mut analysis = sweep.analysis();
        analysis.args(&self.arguments);
        run_on(&mut analysis, self.slots.first().and_then(Option::as_deref));
        let analysed = run_until(analysis, &interrupted);
        if is_interrupted() {
            return Ok(Outcome::Interrupted);
        }
        if !failed.is_empty() {
            return Ok(Outcome::Failed(failed));
        }
        analysed?;
        Ok(Outcome::Finished)
    }
}

/// Gives a command a CUDA device, or the CPU.
fn run_on(command: &mut Command, slot: Option<&str>) {
    match slot {
        Some(device) => command.env("CUDA_VISIBLE_DEVICES", device),
        None => command.args(["--device", "cpu"]),
    };
}

/// Runs a command with our own output; where a signal asks for the end, it is told so.
fn run_until(mut command: Command, interrupted: &AtomicBool) -> Result<(), LaunchError> {
    let shown = show(&command);
    let failed = |action, source| LaunchError::Process { action, command: shown.clone(), source };
    let mut child = command.spawn().map_err(|source| failed("start", source))?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|source| failed("wait for", source))? {
            break status;
        }
        if interrupted.load(Ordering::SeqCst) && !std::mem::replace(&mut told, true) {
            terminate(&mut child);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if status.success() { Ok(()) } else { Err(LaunchError::Analysis { command: shown, status }) }
}

/// What a job's threads tell.
enum News {
    Event(usize, Event),
    Line(usize, String),
    Closed(usize),
}

/// The jobs of a sweep while they run.
struct Jobs<'a> {
    sweep: &'a Sweep,
    view: View,
    /// That every job gets.
    arguments: &'a [String],
    interrupted: &'a AtomicBool,
}

struct Running {
    job: usize,
    slot: Option<String>,
    child: Child,
    /// Its streams that are still open.
    open: usize,
}

/// Tells a job to save itself and end.
fn terminate(child: &mut Child) {
    // One that has ended by itself needs no telling.
    if let Ok(None) = child.try_wait() {
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
    }
}

impl Jobs<'_> {
    /// Runs all jobs that are not finished; returns the names of those that failed.
    fn run(mut self, slots: Vec<Option<String>>) -> Result<Vec<String>, LaunchError> {
        let waiting: VecDeque<usize> = self.sweep.unfinished().into();
        for (index, job) in self.sweep.manifest.jobs.iter().enumerate() {
            if !waiting.contains(&index) {
                self.view.skip(index, job);
            }
        }
        let mut running: Vec<Running> = Vec::new();
        let failed = self.run_jobs(waiting, slots, &mut running);
        // Where a job cannot be started, those that run must not be left behind.
        for Running { child, .. } in &mut running {
            terminate(child);
            let _ = child.wait();
        }
        self.view.finish();
        failed
    }

    /// Starts the waiting jobs as slots become free; returns the names of those that failed.
    fn run_jobs(
        &mut self,
        mut waiting: VecDeque<usize>,
        mut slots: Vec<Option<String>>,
        running: &mut Vec<Running>,
    ) -> Result<Vec<String>, LaunchError> {
        let (sender, receiver) = channel();
        let mut failed = Vec::new();
        let mut told = false;
        loop {
            while !self.interrupted.load(Ordering::SeqCst)
                && !slots.is_empty()
                && let Some(job) = waiting.pop_front()
                && let Some(slot) = slots.pop()
            {
                running.push(self.start(job, slot, &sender)?);
            }
            if running.is_empty() {
                return Ok(failed);
            }
            if self.interrupted.load(Ordering::SeqCst) && !std::mem::replace(&mut told, true) {
                // From a terminal they have the signal already; once more changes nothing.
                for running in running.iter_mut() {
                    terminate(&mut running.child);
                }
            }
            self.listen(&receiver, running);
            let ended = running.extract_if(.., |running| running.open == 0).collect::<Vec<_>>();
            for Running { job, slot, mut child, .. } in ended {
                let status = child.wait().map_err(|source| LaunchError::Process {
                    action: "wait for",
                    command: self.sweep.name(job),
                    source,
                })?;
                slots.push(slot);
                if status.success() {
                    self.view.advance(self.sweep.manifest.jobs[job].runs.len() as u64);
                }
                let how = match (status.success(), self.interrupted.load(Ordering::SeqCst)) {
                    (true, _) => "done",
                    (false, true) => "stopped",
                    (false, false) => FAILED,
                };
                self.view.end(job, how);
                if !status.success() {
                    failed.push(self.sweep.name(job));
                }
            }
        }
    }

    fn start(
        &mut self,
        job: usize,
        slot: Option<String>,
        sender: &Sender<News>,
    ) -> Result<Running, LaunchError> {
        let mut command = self.sweep.job(job);
        // It tells of its progress as lines of JSON on stdout.
        command.args(["--progress", "json"]).args(self.arguments);
        run_on(&mut command, slot.as_deref());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| LaunchError::Process {
                action: "start",
                command: show(&command),
                source,
            })?;
        let mut open = 0;
        if let Some(stdout) = child.stdout.take() {
            open += 1;
            read_lines(job, stdout, sender.clone(), |job, line| {
                match serde_json::from_str(&line) {
                    Ok(event) => News::Event(job, event),
                    Err(_) => News::Line(job, line),
                }
            });
        }
        if let Some(stderr) = child.stderr.take() {
            open += 1;
            read_lines(job, stderr, sender.clone(), News::Line);
        }
        self.view.start(job, &self.sweep.name(job));
        Ok(Running { job, slot, child, open })
    }

    /// Takes in what has come, and waits for a little more.
    fn listen(&mut self, receiver: &Receiver<News>, running: &mut [Running]) {
        let mut next = receiver.recv_timeout(Duration::from_millis(200)).ok();
        while let Some(news) = next {
            match news {
                News::Event(job, event) => self.view.event(job, &event),
                News::Line(job, line) => self.view.line(&self.sweep.name(job), &line),
                News::Closed(job) => {
                    if let Some(running) = running.iter_mut().find(|running| running.job == job) {
                        running.open -= 1;
                    }
                }
            }
            next = receiver.try_recv().ok();
        }
    }
}

fn read_lines(
    job: usize,
    stream: impl Read + Send + 'static,
    sender: Sender<News>,
    news: impl Fn(usize, String) -> News + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(news(job, line)).is_err() {
                return;
            }
        }
        // The launcher outlives its jobs; a closed channel means that it is ending.
        let _ = sender.send(News::Closed(job));
    });
}

/// The CUDA devices that jobs may use: those that `CUDA_VISIBLE_DEVICES` leaves, else all that the driver lists.
pub fn visible_cuda_devices() -> Vec<String> {
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        let ids = visible.split(',').map(str::trim).filter(|id| !id.is_empty());
        return ids.map(str::to_owned).collect();
    }
    let listed = Command::new("nvidia-smi").arg("--list-gpus").stderr(Stdio::null()).output();
    match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let gpus = text.lines().filter(|line| line.starts_with("GPU ")).count();
            (0..gpus).map(|index| index.to_string()).collect()
        }
        _ => Vec::new(),
    }
}
