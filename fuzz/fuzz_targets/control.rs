//! The control socket as csnapd serves it. The input is what a client sends; with an
//! odd first byte each line of it is put into a frame. Every answer is a frame that
//! csnapctl can read, and a request that is understood is the same when sent again.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ublk_target::control::frame::{FrameError, MAX_FRAME, read_frame, write_frame};
use ublk_target::control::protocol::{
    Answer, ErrorCode, Failure, Request, RequestFrame, ResponseFrame, VERSION,
};
use ublk_target::control::server::{Backend, Patience, converse};

/// Nobody reads the answers before the end: they must fit the socket.
const MOST_LINES: usize = 32;
const MOST_RAW: usize = 256;
const LIMIT: Duration = Duration::from_secs(5);

struct Echo;

impl Backend for Echo {
    fn handle(&self, request: Request) -> Result<Answer, Failure> {
        let frame = RequestFrame {
            version: VERSION,
            id: 1,
            request,
        };
        let bytes = serde_json::to_vec(&frame).expect("what was read can be written");
        let again: RequestFrame = serde_json::from_slice(&bytes).expect("and read again");
        assert_eq!(again.request, frame.request);
        match again.request {
            Request::Status {} => Ok(Answer::Done),
            _ => Err(Failure::new(ErrorCode::NotFound, "there is nothing").next("go home")),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [framed, data @ ..] = data else {
        return;
    };
    let (client, server) = UnixStream::pair().expect("a pair of sockets");
    let framed = framed % 2 == 1;
    if framed {
        for line in data.split(|byte| *byte == b'\n').take(MOST_LINES) {
            write_frame(&client, line, LIMIT).expect("room in the socket");
        }
    } else {
        let raw = &data[..data.len().min(MOST_RAW)];
        (&client).write_all(raw).expect("room in the socket");
    }
    client
        .shutdown(Shutdown::Write)
        .expect("the other end is open");
    let patience = Patience {
        idle: LIMIT,
        frame: LIMIT,
    };
    converse(&server, &Echo, patience);
    drop(server);

    let asked = data.split(|byte| *byte == b'\n').take(MOST_LINES).count();
    let mut answers = 0;
    loop {
        match read_frame(&client, LIMIT, LIMIT) {
            Ok(body) => {
                assert!(body.len() <= MAX_FRAME);
                let answer: ResponseFrame = serde_json::from_slice(&body).expect("an answer");
                assert_eq!(answer.version, VERSION);
                answers += 1;
            }
            // What was not read from a socket resets it.
            Err(FrameError::Closed | FrameError::Cut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        !framed || answers == asked,
        "{answers} answers to {asked} requests"
    );
});
