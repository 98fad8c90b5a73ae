//! The loop of an I/O thread.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use snapstore::Effects;

use super::block::{Blocks, is_block};
use super::client::Io;
use super::clients::Clients;
use super::devices::Devices;
use super::memory::{Memory, Reserved};
use super::submit::{Kind, Reaped, Submitter, Ticking};
use super::{Ack, File, Order, setup};
use crate::core::{Entry, Lanes, Mail, Visit};
use crate::lane::{Action, DeviceSlot, Lane, LaneConfig, StoreSlot, Token, VolumeSlot};

/// What a thread is made with.
#[derive(Clone, Debug)]
pub(crate) struct ThreadConfig {
    pub(crate) lane: u16,
    pub(crate) queue_depth: u32,
    pub(crate) buffer_bytes: usize,
}

/// A store as a thread knows it.
struct Store {
    entry: Arc<dyn Entry>,
    /// Enter it even without events.
    due: bool,
}

/// One I/O thread. Dropped on the thread that made it.
pub(crate) struct Thread {
    me: u16,
    lanes: Arc<Lanes>,
    lane: Lane,
    clients: Clients,
    blocks: Blocks,
    stores: Vec<Option<Store>>,
    devices: Devices,
    /// Volumes being detached, with the place of their device.
    leaving: Vec<(VolumeSlot, DeviceSlot, Ack)>,
    visit: Visit,
    mail: Vec<Mail>,
    reaped: Vec<Reaped>,
    /// Another round is wanted without waiting.
    hurry: bool,
    stopping: bool,
    // Dropped in this order: the ring before the memory it uses.
    submit: Submitter,
    memory: Memory,
}

impl Thread {
    /// Makes the ring. To be called on the thread that will run it.
    pub(crate) fn new(config: &ThreadConfig, lanes: Arc<Lanes>) -> io::Result<Self> {
        let (memory, Reserved { copies, zeroes }) = Memory::new(config.buffer_bytes)?;
        let mut submit = Submitter::new(setup::ring(config.queue_depth, &memory)?);
        if let Some(port) = lanes.port(config.lane) {
            submit.watch(port.event().as_raw_fd())?;
            port.set_ring(setup::number(submit.ring()));
        }
        let lane = Lane::new(LaneConfig {
            lane: config.lane,
            copy_buffers: copies,
            zeroes,
        });
        Ok(Self {
            me: config.lane,
            lanes,
            lane,
            clients: Clients::new(),
            blocks: Blocks::new(),
            stores: Vec::new(),
            devices: Devices::new(config.lane),
            leaving: Vec::new(),
            visit: Visit::new(config.lane),
            mail: Vec::new(),
            reaped: Vec::with_capacity(256),
            hurry: false,
            stopping: false,
            submit,
            memory,
        })
    }

    /// Runs until told to stop and idle.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            self.reap()?;
            self.read_mail()?;
            self.retry_stalled()?;
            self.settle()?;
            if self.stopping && self.submit.is_idle() {
                return Ok(());
            }
            self.sleep()?;
        }
    }

    /// Submits what follows from the completions before the engine is told of them:
    /// fast devices finish it at once, and a copy read and written is one visit to
    /// the engine, not two.
    fn gather(&mut self) -> io::Result<()> {
        if self.lane.out.ops.is_empty() || !self.has_events() {
            return Ok(());
        }
        self.submit_operations()?;
        self.submit.nudge()?;
        self.enter_kernel()?;
        self.reap()?;
        self.retry_stalled()
    }

    /// What of block devices waits for a buffer or for pages may look again; clients look
    /// whenever they go on.
    fn retry_stalled(&mut self) -> io::Result<()> {
        let (blocks, mut io) = self.blocks();
        blocks.retry_stalled(&mut io)
    }

    /// Submits everything and waits, if there is nothing else to do.
    fn sleep(&mut self) -> io::Result<()> {
        let port = self.lanes.port(self.me);
        // Buffers that the submission frees are announced by no completion.
        let waited_for = self.blocks.is_stalled() || self.clients.is_stalled();
        self.hurry |= waited_for && self.blocks.is_leaving();
        let parked = !self.hurry && port.is_some_and(|port| port.park());
        if !parked {
            self.submit.nudge()?;
        }
        self.hurry = false;
        self.enter_kernel()?;
        if let Some(port) = self.lanes.port(self.me) {
            port.unpark();
        }
        Ok(())
    }

    /// Submits everything and waits for a completion.
    fn enter_kernel(&mut self) -> io::Result<()> {
        self.submit.submit_and_wait()?;
        if self.submit.all_submitted() {
            self.blocks.submitted(&mut self.memory);
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut reaped = std::mem::take(&mut self.reaped);
        self.submit.reap(&mut reaped);
        for one in reaped.drain(..) {
            self.completed(one)?;
        }
        self.reaped = reaped;
        Ok(())
    }

    fn completed(&mut self, Reaped { kind, rest, result }: Reaped) -> io::Result<()> {
        match kind {
            Kind::Device => {
                let completion = self.submit.completion(Token(rest), result, &self.devices);
                self.lane
                    .complete(Token(rest), completion, &mut self.memory);
            }
            Kind::Receive => {
                let (clients, mut io) = self.clients();
                clients.received(rest, result, &mut io);
            }
            Kind::Send => {
                let (clients, mut io) = self.clients();
                clients.sent(rest, result, &mut io);
            }
            Kind::Fetch => {
                let (blocks, mut io) = self.blocks();
                blocks.fetched(rest, result, &mut io)?;
            }
            Kind::Pages => {
                let (blocks, mut io) = self.blocks();
                blocks.pages(rest, result, &mut io)?;
            }
            Kind::Tick if rest == Ticking::Blocks as u32 => self.blocks.ticked(),
            Kind::Tick => {
                let (clients, mut io) = self.clients();
                clients.ticked(&mut io);
            }
            Kind::Event if !self.stopping => {
                if let Some(port) = self.lanes.port(self.me) {
                    self.submit.watch(port.event().as_raw_fd())?;
                }
            }
            // The message did not arrive: the eventfd does.
            Kind::Sent if result < 0 => {
                if let Some(port) = self.lanes.port(rest as u16) {
                    port.wake();
                }
            }
            Kind::Event | Kind::Sent | Kind::Message | Kind::Nothing => {}
        }
        Ok(())
    }

    fn read_mail(&mut self) -> io::Result<()> {
        let mut mail = std::mem::take(&mut self.mail);
        if let Some(port) = self.lanes.port(self.me) {
            port.take(&mut mail);
        }
        for letter in mail.drain(..) {
            match letter {
                Mail::Effects { store, effects } => self.carry_out(store, effects),
                Mail::Step(slot) => {
                    if let Some(store) = self.store(slot) {
                        store.due = true;
                    }
                }
                Mail::Pause { store, io, volumes } => self.lane.pause(store, io, volumes),
                Mail::Resume { store, io } => self.lane.resume(store, io),
                Mail::Order(order) => self.obey(order)?,
            }
        }
        self.mail = mail;
        Ok(())
    }

    fn carry_out(&mut self, store: StoreSlot, mut effects: Effects) {
        for effect in effects.list.drain(..) {
            self.lane.effect(store, effect, &effects.crcs);
        }
    }

    /// Lets requests, connections and engines go on until nothing moves.
    fn settle(&mut self) -> io::Result<()> {
        self.go_on()?;
        self.gather()?;
        loop {
            self.go_on()?;
            self.enter_engines()?;
            self.submit_operations()?;
            self.tell_errors();
            if self.lane.out.done.is_empty() && !self.clients.is_ready() && !self.has_events() {
                break;
            }
        }
        self.let_go();
        Ok(())
    }

    /// Everything that needs no engine.
    fn go_on(&mut self) -> io::Result<()> {
        self.deliver()?;
        let (clients, mut io) = self.clients();
        clients.pump(&mut io)?;
        self.acknowledge();
        Ok(())
    }

    /// Hands finished requests to where they came from.
    fn deliver(&mut self) -> io::Result<()> {
        let mut done = std::mem::take(&mut self.lane.out.done);
        for one in done.drain(..) {
            if is_block(one.tag) {
                let (blocks, mut io) = self.blocks();
                blocks.done(&one, &mut io)?;
            } else {
                let (clients, mut io) = self.clients();
                clients.done(&one, &mut io);
            }
        }
        // Keep the capacity, and what became done meanwhile.
        done.append(&mut self.lane.out.done);
        self.lane.out.done = done;
        Ok(())
    }

    fn acknowledge(&mut self) {
        while let Some((slot, io)) = self.lane.out.paused.pop() {
            let event = self
                .store(slot)
                .and_then(|store| store.entry.acknowledge(io));
            if let (Some(event), Some(events)) = (event, self.lane.events(slot)) {
                events.events.push(event);
            }
        }
    }

    fn tell_errors(&mut self) {
        while let Some((slot, volume, errno)) = self.lane.out.origin_errors.pop() {
            if let Some(store) = self.store(slot) {
                store.entry.origin_failed(volume, errno);
            }
        }
    }

    fn has_events(&mut self) -> bool {
        (0..self.stores.len() as u32).any(|slot| {
            self.lane
                .events(StoreSlot(slot))
                .is_some_and(|events| !events.is_empty())
        })
    }

    fn enter_engines(&mut self) -> io::Result<()> {
        for index in 0..self.stores.len() {
            self.enter_engine(StoreSlot(index as u32))?;
        }
        Ok(())
    }

    fn enter_engine(&mut self, slot: StoreSlot) -> io::Result<()> {
        let Some(store) = self
            .stores
            .get_mut(slot.0 as usize)
            .and_then(Option::as_mut)
        else {
            return Ok(());
        };
        if let Some(events) = self.lane.events(slot) {
            std::mem::swap(events, &mut self.visit.events);
        }
        if self.visit.events.is_empty() && !store.due {
            return Ok(());
        }
        self.visit.again = false;
        store.entry.enter(&mut self.visit);
        store.due = self.visit.again;
        self.hurry |= self.visit.again;
        let mut local = std::mem::take(&mut self.visit.local);
        for effect in local.list.drain(..) {
            self.lane.effect(slot, effect, &local.crcs);
        }
        local.clear();
        self.visit.local = local;
        while let Some(lane) = self.visit.wakes.pop() {
            self.wake(lane)?;
        }
        Ok(())
    }

    fn wake(&mut self, lane: u16) -> io::Result<()> {
        let Some(port) = self.lanes.port(lane) else {
            return Ok(());
        };
        match port.ring() {
            Some(ring) if lane != self.me => self.submit.message(ring, lane),
            _ => {
                port.wake();
                Ok(())
            }
        }
    }

    fn submit_operations(&mut self) -> io::Result<()> {
        let mut ops = std::mem::take(&mut self.lane.out.ops);
        for op in ops.drain(..) {
            let at_once = match op.action {
                Action::Extents { offset, len } => {
                    Some(self.devices.extents(op.device, offset, len))
                }
                Action::Flush { .. } => self.devices.flush_at_once(op.device),
                _ => None,
            };
            match at_once {
                Some(completion) => self.lane.complete(op.token, completion, &mut self.memory),
                None => self.submit.device(op, &self.devices, &self.memory)?,
            }
        }
        ops.append(&mut self.lane.out.ops);
        self.lane.out.ops = ops;
        Ok(())
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::AttachStore {
                slot,
                entry,
                device,
                file,
                checksum,
                done,
            } => {
                self.set_file(device, Some(file));
                self.lane.attach_store(slot, device, checksum);
                let index = slot.0 as usize;
                if self.stores.len() <= index {
                    self.stores.resize_with(index + 1, || None);
                }
                if let Some(place) = self.stores.get_mut(index) {
                    *place = Some(Store { entry, due: true });
                }
                acknowledge(&done);
            }
            Order::DetachStore { slot, device, done } => {
                self.lane.detach_store(slot);
                if let Some(place) = self.stores.get_mut(slot.0 as usize) {
                    *place = None;
                }
                self.set_file(device, None);
                acknowledge(&done);
            }
            Order::AttachVolume {
                slot,
                config,
                file,
                tally,
                unsure,
                done,
            } => {
                self.set_file(config.device, Some(file));
                self.devices.count(config.device, tally);
                self.devices.doubt(config.device, unsure);
                self.lane.attach_volume(slot, config);
                acknowledge(&done);
            }
            Order::ReplaceOrigin {
                device,
                file,
                tally,
                unsure,
                done,
            } => {
                // What is in flight keeps the file that is gone.
                self.set_file(device, Some(file));
                self.devices.count(device, tally);
                self.devices.doubt(device, unsure);
                self.lane.device_replaced(device);
                acknowledge(&done);
            }
            Order::ResizeVolume { slot, size, done } => {
                self.lane.resize_volume(slot, size);
                acknowledge(&done);
            }
            Order::DetachVolume { slot, device, done } => {
                self.leaving.push((slot, device, done));
                self.lane.detach_volume(slot);
            }
            Order::Serve(new) => self.clients.add(*new),
            Order::CloseExport { export, abort } => {
                let (clients, mut io) = self.clients();
                clients.close(Some(export), abort, &mut io);
            }
            Order::ServeBlock(new) => {
                let (blocks, mut io) = self.blocks();
                blocks.add(new, &mut io)?;
            }
            Order::StandAside { number } => {
                let (blocks, mut io) = self.blocks();
                blocks.stand_aside(Some(number), &mut io);
            }
            Order::Stop => self.stop(),
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.stopping = true;
        let (clients, mut io) = self.clients();
        clients.close(None, true, &mut io);
        let (blocks, mut io) = self.blocks();
        blocks.stand_aside(None, &mut io);
        // The wait for the eventfd has to end too.
        if let Some(port) = self.lanes.port(self.me) {
            port.wake();
        }
    }

    /// Takes volumes that nothing uses any more off the ring.
    fn let_go(&mut self) {
        while let Some(slot) = self.lane.out.detached.pop() {
            while let Some(at) = self
                .leaving
                .iter()
                .position(|(leaving, ..)| *leaving == slot)
            {
                let (_, device, done) = self.leaving.swap_remove(at);
                self.set_file(device, None);
                acknowledge(&done);
            }
        }
    }

    fn set_file(&mut self, device: DeviceSlot, file: Option<File>) {
        self.devices.set(self.submit.ring(), device, file);
    }

    fn store(&mut self, slot: StoreSlot) -> Option<&mut Store> {
        self.stores.get_mut(slot.0 as usize)?.as_mut()
    }

    fn blocks(&mut self) -> (&mut Blocks, Io<'_>) {
        let io = Io {
            memory: &mut self.memory,
            lane: &mut self.lane,
            submit: &mut self.submit,
        };
        (&mut self.blocks, io)
    }

    fn clients(&mut self) -> (&mut Clients, Io<'_>) {
        let io = Io {
            memory: &mut self.memory,
            lane: &mut self.lane,
            submit: &mut self.submit,
        };
        (&mut self.clients, io)
    }
}

fn acknowledge(done: &Ack) {
    // Whoever gave the order may have stopped waiting.
    let _ = done.send(());
}
