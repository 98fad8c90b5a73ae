//! csnapd's own lanes, core, mail and unique maps: two to four I/O threads by one
//! thread, from one seed.
//!
//! Real: [`Lane`](ublk_target::lane::Lane) with its buffers' bytes, [`Core`] with
//! its lock, inbox, routing and pauses, [`Lanes`] with their mailboxes, the engine
//! and its unique maps. Replaced: the loop of `ring::thread` (its steps are made
//! one by one, see `thread`), the ring and the devices (`device`), the front ends
//! (`client`), the thread that records dropped snapshots, and meeting another lane
//! in the engine (`engine`). Not here: sleeping and waking, which need real threads,
//! buffers of the kernel, and block status.
//!
//! The dice decide at every step which operation completes, or which lane does
//! which of the things it can do: take a request, read a letter, carry out what it
//! brought from the engine, acknowledge a pause, submit an operation, answer a
//! client, enter the engine. Kept is only the order that csnapd relies on: a lane's
//! letters among themselves, and its events.
//!
//! Mailboxes bring an eventfd each and the clock is looked at, but nothing depends
//! on either: a world is a function of its seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use snapstore::engine::{Command, CommandError, Reply};
use snapstore::ids::CommandId;
use snapstore::{Engine, Event, VolumeId};
use ublk_target::core::{Answer as Waiting, Core, Entry, Lanes, Mail, Stepper, Visit};
use ublk_target::lane::{VolumeConfig, VolumeSlot};
use ublk_target::ring::Order;

use super::daemon::{Daemon, Tally};
use super::defect::Defect;
use super::dice::Dice;
use super::runtime::{Answer, Ask, Dev, Habits, Machine};
use super::{Outcome, Violation};

mod client;
mod device;
mod engine;
mod memory;
mod thread;
mod work;

use client::Client;
use device::{Flight, Talents, place_of};
use engine::{Ears, Shared, Wrapped};
use thread::{STORE, Thread};

/// How much longer a laggard takes.
const LAG: u64 = 32;
/// Long after any pause began.
const LATER: Duration = Duration::from_secs(24 * 3600);

/// A command not yet answered.
#[derive(Debug)]
struct Asked {
    reply: Waiting,
    /// What the lanes are to admit afterwards.
    grows: Option<(VolumeId, u64)>,
    /// Lanes that have not heard of it, the way they say so, and the reply meanwhile.
    telling: Option<(usize, Receiver<()>, Result<Reply, CommandError>)>,
}

/// The I/O threads and what they share. See the module.
pub struct Threads {
    core: Arc<Core<Wrapped>>,
    ports: Arc<Lanes>,
    aside: Shared,
    threads: Vec<Thread>,
    machine: Machine,
    /// What each origin can do.
    talents: Vec<Talents>,
    flights: Vec<Flight>,
    /// Volumes in service.
    volumes: BTreeMap<VolumeId, VolumeSlot>,
    next_slot: u32,
    clients: BTreeMap<u64, Client>,
    next_owner: u64,
    asked: BTreeMap<CommandId, Asked>,
    next_command: u64,
    /// Replies nobody has heard yet.
    replies: Vec<(CommandId, Result<Reply, CommandError>)>,
    answers: Vec<Answer>,
    steps: u64,
    born: Instant,
    habits: Habits,
    dice: Dice,
    tally: Tally,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// The core, the mailboxes and the threads of a new daemon.
type Made = (Arc<Core<Wrapped>>, Arc<Lanes>, Shared, Vec<Thread>);

fn make(engine: Engine, habits: &Habits, dice: &mut Dice) -> Outcome<Made> {
    let count = habits.lanes as u16;
    let ports = Lanes::new(count).map_err(|e| Violation(format!("no mailboxes: {e}")))?;
    let ports = Arc::new(ports);
    let aside = Shared::default();
    let checksum = engine.checksum();
    let wrapped = Wrapped {
        engine,
        aside: aside.clone(),
        defect: habits.defect,
    };
    let ears = Arc::new(Ears(aside.clone()));
    let core = Core::new(STORE, wrapped, ports.clone(), ears);
    aside.lock().core = Arc::downgrade(&core);
    let mut threads = Vec::new();
    for number in 0..count {
        let mut thread = Thread::new(number, habits.defect, dice);
        thread
            .lane
            .attach_store(STORE, place_of(Dev::Store), checksum);
        threads.push(thread);
    }
    Ok((core, ports, aside, threads))
}

impl Daemon for Threads {
    fn start(engine: Engine, machine: Machine, habits: Habits, mut dice: Dice) -> Outcome<Self> {
        let (core, ports, aside, threads) = make(engine, &habits, &mut dice)?;
        let talents = machine.origins.iter().map(|_| Talents::roll(&mut dice));
        Ok(Self {
            core,
            ports,
            aside,
            threads,
            talents: talents.collect(),
            machine,
            flights: Vec::new(),
            volumes: BTreeMap::new(),
            next_slot: 0,
            clients: BTreeMap::new(),
            next_owner: 1,
            asked: BTreeMap::new(),
            next_command: 1,
            replies: Vec::new(),
            answers: Vec::new(),
            steps: 0,
            born: Instant::now(),
            habits,
            dice,
            tally: Tally::default(),
        })
    }

    fn restart(&mut self, engine: Engine) -> Outcome {
        let made = make(engine, &self.habits, &mut self.dice)?;
        (self.core, self.ports, self.aside, self.threads) = made;
        self.flights.clear();
        self.volumes.clear();
        self.next_slot = 0;
        self.clients.clear();
        self.asked.clear();
        self.replies.clear();
        self.answers.clear();
        Ok(())
    }

    fn attach(&mut self, volume: VolumeId, origin: usize) -> Outcome {
        let known = self.core.query(|engine| {
            let unique = engine.unique_map(volume)?;
            Some((unique, engine.volume_size(volume)?, engine.chunk_size()))
        });
        let (unique, size, chunk_size) = known
            .ok_or_else(|| Violation(format!("volume {volume} exists, but not in the engine")))?;
        // Some attach twice: that is not csnapd's way, and leads nowhere here either.
        if self.volumes.contains_key(&volume) {
            return Ok(());
        }
        let slot = VolumeSlot(self.next_slot);
        self.next_slot += 1;
        let config = VolumeConfig {
            store: STORE,
            volume,
            device: place_of(Dev::Origin(origin)),
            size,
            chunk_size,
            unique,
        };
        for thread in &mut self.threads {
            thread.lane.attach_volume(slot, config.clone());
        }
        self.volumes.insert(volume, slot);
        Ok(())
    }

    fn keep_attached(&mut self, keep: impl Fn(VolumeId) -> bool) {
        let threads = &mut self.threads;
        self.volumes.retain(|volume, slot| {
            let stays = keep(*volume);
            if !stays {
                let lanes = threads.iter_mut().map(|thread| &mut thread.lane);
                lanes.for_each(|lane| lane.detach_volume(*slot));
            }
            stays
        });
    }

    fn submit(&mut self, volume: VolumeId, ask: Ask) -> u64 {
        let owner = self.next_owner;
        self.next_owner += 1;
        let lane = self.dice.index(self.threads.len());
        let client = Client::new(lane, volume, ask, self.steps);
        self.clients.insert(owner, client);
        self.threads[lane].arrived.push(owner);
        owner
    }

    fn command(&mut self, command: Command) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        let grows = match &command {
            Command::ResizeVolume { volume, size } => Some((*volume, *size)),
            _ => None,
        };
        match self.core.ask(command) {
            Ok(reply) => {
                let telling = None;
                self.asked.insert(
                    id,
                    Asked {
                        reply,
                        grows,
                        telling,
                    },
                );
            }
            Err(error) => self.replies.push((id, Err(error))),
        }
        id
    }

    fn tick(&mut self, now_ms: u64) {
        // Only a moment long after its beginning ends a pause.
        let late = self.dice.chance(self.habits.give_up, 500);
        let now = if late { self.born + LATER } else { self.born };
        self.core.tick(now_ms, now);
    }

    fn step(&mut self) -> Outcome<bool> {
        self.steps += 1;
        self.collect_mail();
        let waiting = self.waiting();
        let weights = waiting.map(|n| usize::from(n > 0));
        let eager = self.habits.eagerness;
        let eager = [eager[0], eager[1], eager[2], eager[1]];
        let weights: Vec<u64> = weights
            .iter()
            .zip(eager)
            .map(|(n, eager)| *n as u64 * eager.max(1))
            .collect();
        if weights.iter().sum::<u64>() == 0 {
            return Ok(false);
        }
        match self.dice.weighted(&weights) {
            0 => self.land()?,
            1 => self.work()?,
            2 => self.enter()?,
            _ => {
                let index = self.dice.index(self.replies.len());
                let (id, result) = self.replies.swap_remove(index);
                self.answers.push(Answer::Reply { id, result });
            }
        }
        self.verdict()?;
        Ok(true)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    fn idle(&mut self) -> bool {
        self.collect_mail();
        self.waiting() == [0; 4] && self.asked.is_empty()
    }

    fn oldest(&self) -> Option<(u64, String)> {
        let client = self.clients.values().min_by_key(|c| c.born)?;
        Some((client.born, format!("{client:?}")))
    }

    fn describe(&self) -> String {
        let Self {
            threads,
            flights,
            asked,
            replies,
            ..
        } = self;
        let mut text = format!("flights {flights:?}\nasked {asked:?}\nreplies {replies:?}\n");
        for thread in threads {
            let lane: String = format!("{thread:?}").chars().take(3000).collect();
            text += &format!("{lane}\n");
        }
        let engine = self.look(|engine| format!("{:?} {engine:?}", engine.store_info()));
        text.extend(engine.chars().take(6000));
        text
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn look<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        self.core.query(|wrapped| look(&wrapped.engine))
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

impl Threads {
    fn is(&self, defect: Defect) -> bool {
        self.habits.defect == Some(defect)
    }

    /// Moves what lies in the mailboxes to where its lane will read it, in order.
    fn collect_mail(&mut self) {
        let mut letters = Vec::new();
        for (number, thread) in self.threads.iter_mut().enumerate() {
            if let Some(port) = self.ports.port(number as u16) {
                port.take(&mut letters);
                thread.mail.extend(letters.drain(..));
            }
        }
    }

    /// Operations in flight, lanes with work, lanes with something for the engine,
    /// replies to be heard.
    fn waiting(&mut self) -> [usize; 4] {
        [
            self.flights.len(),
            self.threads.iter().filter(|t| !t.work().is_empty()).count(),
            self.threads
                .iter_mut()
                .map(|t| usize::from(t.calls()))
                .sum(),
            self.replies.len(),
        ]
    }

    /// What the engine or a lane found broken.
    fn verdict(&mut self) -> Outcome {
        if let Some(broken) = self.aside.lock().broken.take() {
            return Err(Violation(broken));
        }
        self.threads.iter().try_for_each(|t| t.memory.verdict())
    }

    /// A lane enters the engine; perhaps others come while it is there.
    fn enter(&mut self) -> Outcome {
        let mut callers: Vec<usize> = (0..self.threads.len()).collect();
        callers.retain(|lane| self.threads[*lane].calls());
        let lane = self.dice.pick(&callers);
        if self.threads[lane].away && !self.dice.chance(1, LAG) {
            return Ok(());
        }
        for other in callers.into_iter().filter(|other| *other != lane) {
            if self.dice.chance(1, 4) {
                let mut visit = Visit::new(other as u16);
                self.threads[other].bring(&mut visit);
                if !visit.events.is_empty() {
                    self.tally.met += 1;
                    self.aside.lock().meeting.push(visit);
                }
            }
        }
        let thread = &mut self.threads[lane];
        let mut visit = std::mem::take(&mut thread.visit);
        thread.bring(&mut visit);
        visit.again = false;
        self.core.enter(&mut visit);
        thread.due = visit.again;
        // Nobody sleeps here.
        visit.wakes.clear();
        let crcs = std::mem::take(&mut visit.local.crcs);
        for effect in visit.local.list.drain(..) {
            let late = self.dice.chance(self.habits.laggards, 16);
            thread.brought.push(work::brought(effect, &crcs, late));
        }
        thread.visit = visit;
        if !self.aside.lock().meeting.is_empty() {
            return Err(Violation::new("a lane waits at an engine that is free"));
        }
        self.after_entry();
        Ok(())
    }

    /// Notices, replies and what is to be recorded.
    fn after_entry(&mut self) {
        let (notices, invalid) = {
            let mut aside = self.aside.lock();
            let notices = std::mem::take(&mut aside.notices);
            (notices, std::mem::take(&mut aside.invalid))
        };
        self.answers.extend(notices.into_iter().map(Answer::Notice));
        for (io, volumes) in invalid {
            self.machine.invalid.extend(volumes);
            let lane = self.dice.index(self.threads.len());
            let result = Ok(());
            self.threads[lane].tell(Event::Flushed { io, result });
        }
        self.hear_replies();
    }

    /// A reply is heard at once, but of growth only when every lane knows of it.
    fn hear_replies(&mut self) {
        let mut heard = Vec::new();
        for (id, asked) in &mut self.asked {
            if let Ok(result) = asked.reply.try_recv() {
                let slot = asked.grows.filter(|_| result.is_ok());
                let slot = slot.and_then(|(v, size)| Some((*self.volumes.get(&v)?, size)));
                match slot {
                    None => heard.push((*id, result)),
                    Some((slot, size)) => {
                        let (done, told) = channel();
                        for lane in 0..self.ports.count() {
                            let done = done.clone();
                            let order = Order::ResizeVolume { slot, size, done };
                            self.ports.post(lane, Mail::Order(order));
                        }
                        asked.telling = Some((self.threads.len(), told, result));
                    }
                }
            }
            if let Some((left, told, result)) = &mut asked.telling {
                *left -= told.try_iter().count();
                if *left == 0 {
                    heard.push((*id, result.clone()));
                }
            }
        }
        for (id, _) in &heard {
            self.asked.remove(id);
        }
        self.replies.append(&mut heard);
    }
}
