//! Runs of spans, the oldest of which leave when there is no room for the newest. Bounded by bytes.

use std::collections::VecDeque;

/// Takes no memory before the first run.
#[derive(Debug)]
pub(super) struct Ring {
    most: usize,
    bytes: usize,
    spans: usize,
    /// Each with how many spans it holds.
    runs: VecDeque<(Box<[u8]>, usize)>,
}

impl Ring {
    pub(super) fn new(most: usize) -> Self {
        Ring {
            most,
            bytes: 0,
            spans: 0,
            runs: VecDeque::new(),
        }
    }

    /// Says how many spans are lost by it.
    pub(super) fn push(&mut self, run: &[u8], spans: usize) -> usize {
        if run.len() > self.most {
            return spans;
        }
        let mut lost = 0;
        while self.bytes + run.len() > self.most
            && let Some((oldest, spans)) = self.runs.pop_front()
        {
            self.bytes -= oldest.len();
            self.spans -= spans;
            lost += spans;
        }
        self.bytes += run.len();
        self.spans += spans;
        self.runs.push_back((run.into(), spans));
        lost
    }

    /// The oldest first.
    pub(super) fn copy(&self) -> Vec<Box<[u8]>> {
        self.runs.iter().map(|(run, _)| run.clone()).collect()
    }

    /// Everything, and how many spans that is.
    pub(super) fn take(&mut self) -> (Vec<Box<[u8]>>, usize) {
        self.bytes = 0;
        let runs = std::mem::take(&mut self.runs);
        let spans = std::mem::take(&mut self.spans);
        (runs.into_iter().map(|(run, _)| run).collect(), spans)
    }
}
