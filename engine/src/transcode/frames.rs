//! gRPC's frames: one byte for compression, four for the length, then the message. Holds one message at most, however it
//! came in pieces.

use bytes::{Bytes, BytesMut};

pub(crate) const HEAD: usize = 5;

/// Takes messages out of pieces of a body.
#[derive(Debug)]
pub(crate) struct Frames {
    max: usize,
    /// A frame that has begun.
    partial: BytesMut,
    /// What came last and was not looked at yet.
    rest: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unframed {
    /// It is compressed, which nobody asked for.
    Compressed,
    /// Its length is beyond the bound; told before it is read.
    TooLarge,
    /// The body ended within a frame.
    Cut,
}

impl Unframed {
    /// For the log.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Unframed::Compressed => "a message is compressed, which was not asked for",
            Unframed::TooLarge => "a message is larger than allowed",
            Unframed::Cut => "the answer ended within a message",
        }
    }
}

impl Frames {
    pub(crate) fn new(max: usize) -> Self {
        Frames {
            max,
            partial: BytesMut::new(),
            rest: Bytes::new(),
        }
    }

    /// A piece of the body; all messages of the one before were taken.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.rest.is_empty(), "messages are taken before more comes");
        self.rest = piece;
    }

    /// The next whole message; `None` until more comes.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Unframed> {
        if self.partial.is_empty() {
            let Some(length) = self.length(&self.rest)? else {
                self.keep(self.rest.len());
                return Ok(None);
            };
            if self.rest.len() >= HEAD + length {
                // All of it lies in this piece: nothing is copied.
                let mut frame = self.rest.split_to(HEAD + length);
                return Ok(Some(frame.split_off(HEAD)));
            }
            self.keep(self.rest.len());
            return Ok(None);
        }
        self.keep(HEAD.saturating_sub(self.partial.len()).min(self.rest.len()));
        let Some(length) = self.length(&self.partial)? else {
            return Ok(None);
        };
        let missing = (HEAD + length).saturating_sub(self.partial.len());
        self.keep(missing.min(self.rest.len()));
        if self.partial.len() < HEAD + length {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.partial);
        Ok(Some(frame.split_off(HEAD).freeze()))
    }

    /// The body is over.
    pub(crate) fn end(&self) -> Result<(), Unframed> {
        if self.partial.is_empty() && self.rest.is_empty() {
            Ok(())
        } else {
            Err(Unframed::Cut)
        }
    }

    fn keep(&mut self, count: usize) {
        let taken = self.rest.split_to(count);
        self.partial.extend_from_slice(&taken);
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Unframed> {
        let Some(([compressed, length @ ..], _)) = bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        if *compressed != 0 {
            return Err(Unframed::Compressed);
        }
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.max {
            Err(Unframed::TooLarge)
        } else {
            Ok(Some(length))
        }
    }
}

/// Room for a frame's head; `finish` writes it.
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; HEAD]);
    out.len()
}

/// `begun`: where the message begins.
pub(crate) fn finish(out: &mut [u8], begun: usize) {
    let length = u32::try_from(out.len() - begun).unwrap_or(u32::MAX);
    out[begun - 4..begun].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            let begun = begin(&mut out);
            out.extend_from_slice(message);
            let frame = begun - HEAD;
            finish(&mut out[frame..], HEAD);
        }
        out
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6),
            cuts in proptest::collection::vec(1usize..12, 0..40),
        ) {
            let mut rest = Bytes::from(framed(&messages));
            let (mut frames, mut got) = (Frames::new(20), Vec::new());
            let mut cuts = cuts.into_iter();
            while !rest.is_empty() {
                let count = cuts.next().unwrap_or(usize::MAX).min(rest.len());
                frames.push(rest.split_to(count));
                while let Some(message) = frames.next().unwrap() {
                    got.push(message.to_vec());
                }
            }
            prop_assert_eq!(frames.end(), Ok(()));
            prop_assert_eq!(got, messages);
        }

        #[test]
        fn a_cut_body_is_never_whole(message: Vec<u8>, cut in 1usize..300) {
            let whole = framed(std::slice::from_ref(&message));
            let cut = cut.min(whole.len() - 1).max(1);
            let mut frames = Frames::new(1 << 20);
            frames.push(Bytes::copy_from_slice(&whole[..cut]));
            prop_assert_eq!(frames.next(), Ok(None));
            prop_assert_eq!(frames.end(), Err(Unframed::Cut));
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_it_is_read() {
        let mut frames = Frames::new(10);
        frames.push(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]));
        assert_eq!(frames.next(), Err(Unframed::TooLarge));
        let mut frames = Frames::new(10);
        frames.push(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert_eq!(frames.next(), Err(Unframed::Compressed));
    }
}
