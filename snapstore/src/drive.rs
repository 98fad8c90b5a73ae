//! The engine driven with plain calls, before anybody asks anything of it.

use crate::block::Block;
use crate::device::BlockDevice;
use crate::engine::{Command, Effect, Effects, Engine, Event, EventBatch};
use crate::ids::CommandId;
use crate::recover::OpenError;

/// Drives the engine through one checkpoint.
pub(crate) fn checkpoint(engine: &mut Engine, dev: &mut impl BlockDevice) -> Result<(), OpenError> {
    const ID: CommandId = CommandId(u64::MAX);
    let mut batch = EventBatch::default();
    let mut effects = Effects::default();
    batch.events.push(Event::Command {
        id: ID,
        command: Command::Checkpoint,
    });
    loop {
        effects.clear();
        engine.step(&mut batch, &mut effects);
        if effects.list.is_empty() {
            return Err(OpenError::Checkpoint("it made no progress".to_owned()));
        }
        for effect in effects.list.drain(..) {
            match effect {
                Effect::ReadBlock { io, block } => {
                    let mut data = Box::new(Block::zeroed());
                    let read = dev.read(block, std::slice::from_mut(&mut *data));
                    let result = read.map(|()| data.into());
                    batch.events.push(Event::BlockRead { io, result });
                }
                Effect::WriteBlock {
                    io,
                    block,
                    data,
                    fua,
                } => {
                    let mut result = dev.write(block, std::slice::from_ref(&*data));
                    if fua && result.is_ok() {
                        result = dev.flush();
                    }
                    batch.events.push(Event::BlockWritten { io, result });
                }
                Effect::FlushStore { io } => {
                    batch.events.push(Event::Flushed {
                        io,
                        result: dev.flush(),
                    });
                }
                Effect::Reply { id: ID, result } => {
                    return result
                        .map(|_| ())
                        .map_err(|error| OpenError::Checkpoint(error.to_string()));
                }
                _ => {}
            }
        }
    }
}
