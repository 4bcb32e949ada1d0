//! Random numbers for names that others may see: trace, span and request ids (OBS-103). From the TLS provider's
//! generator, a kilobyte at a time, so that a request costs no call to it and no system call.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

const KEPT: usize = 1024;

/// One worker's supply.
pub struct Noise {
    source: SystemRandom,
    kept: Box<[u8; KEPT]>,
    used: usize,
}

impl Default for Noise {
    fn default() -> Self {
        Noise {
            source: SystemRandom::new(),
            kept: Box::new([0; KEPT]),
            used: KEPT,
        }
    }
}

impl Noise {
    /// The next number, uniform over all of `u64`.
    pub fn draw(&mut self) -> u64 {
        if self.used + 8 > KEPT {
            // The generator fails only where the system gives no randomness at all; ids are names, not secrets.
            if self.source.fill(&mut self.kept[..]).is_err() {
                fastrand::fill(&mut self.kept[..]);
            }
            self.used = 0;
        }
        let mut number = [0; 8];
        number.copy_from_slice(&self.kept[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_beyond_one_supply() {
        let mut noise = Noise::default();
        let mut seen: Vec<u64> = (0..1000).map(|_| noise.draw()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
