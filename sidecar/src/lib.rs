//! The data plane beside one service.

pub mod capture;
