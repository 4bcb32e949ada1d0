//! Where the shop's services and their sidecars listen: each pair has an address of its own on loopback, as a pod has one, so
//! that all of them have the ports that they have elsewhere (PROD-20), and two systems on one machine are not in each
//! other's way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A service, its usual ports, and whom it calls.
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) sidecar: &'static str,
    /// As the health service of gRPC knows it.
    pub(super) grpc: &'static str,
    http_port: u16,
    grpc_port: u16,
    /// Names and usual ports of others.
    calls: &'static [(&'static str, u16)],
}

/// In the order in which they are started: who is asked before who asks.
pub(super) static SERVICES: [Service; 4] = [
    Service {
        name: "users",
        sidecar: "users-sidecar",
        grpc: "users.v1.UsersService",
        http_port: 8001,
        grpc_port: 9001,
        calls: &[],
    },
    Service {
        name: "products",
        sidecar: "products-sidecar",
        grpc: "products.v1.ProductsService",
        http_port: 8002,
        grpc_port: 9002,
        calls: &[],
    },
    Service {
        name: "payments",
        sidecar: "payments-sidecar",
        grpc: "payments.v1.PaymentsService",
        http_port: 8004,
        grpc_port: 9004,
        calls: &[],
    },
    Service {
        name: "orders",
        sidecar: "orders-sidecar",
        grpc: "orders.v1.OrdersService",
        http_port: 8003,
        grpc_port: 9003,
        calls: &[("users", 9001), ("products", 9002), ("payments", 9004)],
    },
];

const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;
const ADMIN: u16 = 15000;

/// Where one pair listens.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) inbound: SocketAddr,
    pub(super) outbound: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Local doors to others: their names, and where each stands for them.
    pub(super) doors: Vec<(&'static str, SocketAddr)>,
}

impl Pod {
    /// Of the service of that number, for the process `of`: no other process has its number, so nobody else has these addresses.
    pub(super) fn new(of: u32, number: u32, service: &Service) -> io::Result<Pod> {
        // Process numbers have 22 bits.
        let host = Ipv4Addr::from_bits(0x7f00_0000 | (of << 2 | number & 3) & 0x00ff_ffff);
        let place = |port| free(host, port);
        let doors = { service.calls.iter() }.map(|(name, port)| Ok((*name, place(*port)?)));
        Ok(Pod {
            http: place(service.http_port)?,
            grpc: place(service.grpc_port)?,
            inbound: place(INBOUND)?,
            outbound: place(OUTBOUND)?,
            admin: place(ADMIN)?,
            doors: doors.collect::<io::Result<_>>()?,
        })
    }
}

/// The usual port, unless somebody has it on all addresses of this machine.
fn free(host: Ipv4Addr, usual: u16) -> io::Result<SocketAddr> {
    let bound = TcpListener::bind((host, usual)).or_else(|_| TcpListener::bind((host, 0)));
    bound?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_every_process_has_an_address_of_its_own() {
        let mut hosts = Vec::new();
        for process in [1, 2, 4_194_303] {
            for (number, service) in (0..).zip(&SERVICES) {
                let pod = Pod::new(process, number, service).unwrap();
                assert!(pod.grpc.ip().is_loopback());
                assert_eq!(pod.grpc.ip(), pod.inbound.ip());
                hosts.push(pod.grpc.ip());
            }
        }
        hosts.sort_unstable();
        hosts.dedup();
        assert_eq!(hosts.len(), 12);
    }
}
